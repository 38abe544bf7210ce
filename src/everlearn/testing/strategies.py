"""The laws of the strategies of populations: subclass ``ExploitConformance`` or ``ExploreConformance``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator

from everlearn.population.exploit import ExploitStrategy
from everlearn.population.explore import ExploreStrategy
from everlearn.population.members import Observation, Record
from everlearn.population.space import HyperparamConfig, SearchSpace

SEEDS = range(40)
SPACE = SearchSpace(
    (
        HyperparamConfig("learning_rate", 1e-5, 1e-2, is_log_scale=True, default=1e-3),
        HyperparamConfig("ent_coef", 0.0, 0.1, default=0.01),
        HyperparamConfig("gamma", 0.9, 0.999, scale="one_minus", default=0.99),
        HyperparamConfig("gae_lambda", 0.5, 0.99, scale="logit", default=0.95),
        HyperparamConfig("n_epochs", 1, 20, default=10),
        HyperparamConfig("batch_size", values=(32, 64, 128, 256), default=64),
        HyperparamConfig("normalize_advantage", values=(True, False), default=True),
    )
)
"""One hyper-parameter of each kind."""


def random_population(seed: int) -> tuple[Record, ...]:
    """Two to nine members, some without a score and some without a state, with equal scores among them."""
    generator = np.random.default_rng(seed)
    return tuple(_random_record(number, generator) for number in range(int(generator.integers(2, 10))))


def _random_record(number: int, generator: Generator) -> Record:
    score = None if generator.random() < 0.2 else float(generator.integers(-3, 4))
    samples = () if score is None else tuple(score + generator.normal(size=int(generator.integers(0, 12))))
    seen = tuple(
        Observation(time, SPACE.sample(generator), float(generator.normal()))
        for time in range(int(generator.integers(4)))
    )
    has_state = bool(generator.random() < 0.8)
    return Record(number, SPACE.sample(generator), score, has_state=has_state, samples=samples, observations=seen)


@contextmanager
def untouched_globals() -> Iterator[None]:
    """Fails if the global generator of python or numpy was advanced inside."""
    before = random.getstate(), _numpy_state()
    yield
    assert (random.getstate(), _numpy_state()) == before


def _numpy_state() -> bytes:
    state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    return bytes(state["state"]["key"].tobytes()) + repr(state["state"]["pos"]).encode()


class ExploitConformance:
    """Laws of an exploit strategy. A subclass has a fixture ``strategy`` that returns it."""

    def all_chosen(self, strategy: ExploitStrategy) -> Iterator[tuple[Record, Sequence[Record]]]:
        """Every member of many random populations, and whom it may copy."""
        for seed in SEEDS:
            population, generator = random_population(seed), np.random.default_rng(seed)
            for target in population:
                yield target, strategy.sources(target, population, generator)

    def test_b31_a_source_has_a_state_and_a_finite_score(self, strategy: ExploitStrategy) -> None:
        """A score that is missing is never copied."""
        for _, sources in self.all_chosen(strategy):
            assert all(source.can_be_source for source in sources)

    def test_a_source_is_better_than_who_copies_it(self, strategy: ExploitStrategy) -> None:
        """Nor is a member ever its own source, and none is there twice."""
        for target, sources in self.all_chosen(strategy):
            ids = [source.member_id for source in sources]
            assert target.member_id not in ids
            assert len(set(ids)) == len(ids)
            if target.score is not None:
                assert all(source.score > target.score for source in sources)  # type: ignore[operator]

    def test_the_same_generator_chooses_the_same(self, strategy: ExploitStrategy) -> None:
        """All that is drawn comes from the generator that is given."""
        with untouched_globals():
            assert list(self.all_chosen(strategy)) == list(self.all_chosen(strategy))

    def test_once_sources_are_given_nothing_is_drawn(self, strategy: ExploitStrategy) -> None:
        """Whoever looks at more of them leaves the generator alone."""
        for population in map(random_population, SEEDS):
            generator = np.random.default_rng(0)
            chosen = [strategy.sources(target, population, generator) for target in population]
            before = generator.bit_generator.state
            assert all(len([*sources]) == len(sources) for sources in chosen)
            assert generator.bit_generator.state == before

    def test_a_population_of_one_copies_nobody(self, strategy: ExploitStrategy) -> None:
        """There is nobody else."""
        alone = Record("alone", {}, 1.0)
        assert strategy.sources(alone, (alone,), np.random.default_rng(0)) == ()


class ExploreConformance:
    """Laws of an explore strategy. A subclass has a fixture ``strategy`` that returns it.

    A rule that never looks at ``observations`` may say ``learns = False``, and gets none then.
    """

    def explored(self, strategy: ExploreStrategy, seed: int) -> tuple[Record, dict[str, object]]:
        """A member of a random population, and what becomes of its hyper-parameters."""
        population = random_population(seed)
        source = population[0]
        return source, strategy.explored(source.hyperparams, SPACE, population, np.random.default_rng(seed))

    def test_the_space_will_do(self, strategy: ExploreStrategy) -> None:
        """It has one hyper-parameter of each kind, all with a default."""
        strategy.require(SPACE)

    def test_b30_values_stay_in_range_and_keep_their_type(self, strategy: ExploreStrategy) -> None:
        """Whole numbers are ints, switches are booleans, choices are among the given ones."""
        for source, values in map(partial(self.explored, strategy), SEEDS):
            assert values.keys() == source.hyperparams.keys()
            for config in SPACE:
                assert config.allowed.contains(values[config.name]), config.name
                assert type(values[config.name]) is type(source.hyperparams[config.name]), config.name

    def test_the_same_generator_explores_the_same(self, strategy: ExploreStrategy) -> None:
        """All that is drawn comes from the generator that is given."""
        with untouched_globals():
            assert all(self.explored(strategy, seed) == self.explored(strategy, seed) for seed in SEEDS)

    def test_a_rule_that_does_not_learn_needs_no_observations(self, strategy: ExploreStrategy) -> None:
        """Where ``learns`` is False it explores the same without them: a population gives it none."""
        for seed in () if strategy.learns else SEEDS:
            source, explored = self.explored(strategy, seed)
            unseen = [replace(record, observations=()) for record in random_population(seed)]
            assert strategy.explored(source.hyperparams, SPACE, unseen, np.random.default_rng(seed)) == explored

    def test_b30_copies_of_one_source_do_not_become_equal(self, strategy: ExploreStrategy) -> None:
        """What is copied from one member goes in different directions."""
        population, start = random_population(0), {config.name: config.default for config in SPACE}
        values = [strategy.explored(start, SPACE, population, np.random.default_rng(seed)) for seed in SEEDS]
        assert len({value["learning_rate"] for value in values}) > 1
        assert len({value["n_epochs"] for value in values}) > 1

    def test_what_is_not_in_the_space_stays(self, strategy: ExploreStrategy) -> None:
        """A hyper-parameter that is not learned is copied as it is."""
        population = random_population(0)
        given = {**population[0].hyperparams, "other": "text"}
        assert strategy.explored(given, SPACE, population, np.random.default_rng(0))["other"] == "text"
