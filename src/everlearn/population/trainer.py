"""Training a population: segments, reports, decisions; each is in the journal before anything follows from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any, final

import numpy as np

from everlearn.core.errors import StateError
from everlearn.population.beginning import drawn_members, given_members
from everlearn.population.config import PBTConfig
from everlearn.population.decided import Decided, decided_from
from everlearn.population.executors import Executor
from everlearn.population.journal_database import expected_content
from everlearn.population.journal_rules import require_plain, require_same_rules, rules_of
from everlearn.population.members import PopulationMember
from everlearn.population.population import Population, Verify
from everlearn.population.scheduler_state import generator_from
from everlearn.population.segments import Result
from everlearn.population.store import Generation, Journal, PopulationStore

_log = logging.getLogger(__name__)
Keep = Callable[[Collection[str]], None]
"""Told the names of the files that are needed."""
_FIRST_SEEDS = 2**31


class Watcher:
    """Sees a population while it is trained; the methods do nothing."""

    def began(self, population: Population, seconds: float) -> None:
        """Training begins, or goes on after so many seconds."""

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Segments have come to their end."""

    def decided(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        """A generation has been decided, so many seconds after training began; ``population`` is at the next one."""

    def ended(self, population: Population, seconds: float) -> None:
        """Training is over, or was interrupted."""


@final
class PopulationTrainer:
    """Has the members of a population trained and decides what becomes of them.

    Args:
        config: The rules.
        store: The journal. A population that is in it goes on where it was.
        total_updates: Training updates of a member altogether.
        verify: Says of a state whether it can be taken over.
        seed: Of all that is drawn.
        initial: Hyper-parameters of each member; None draws them.
        settings: What else a member's training follows from, by name; a population goes on by the same alone.
        keep: Told the names of all files that members may have to go back to, whenever they have changed; the others
            may go.

    Attributes:
        population: As it stands.
        seconds: Time that training has taken.
        generator: Of the population.

    Raises:
        ConfigError: If the population in the journal has other rules, or a value cannot be kept in a journal.
        StateError: If the journal is none of a population.
    """

    def __init__(
        self,
        config: PBTConfig,
        store: PopulationStore,
        total_updates: int,
        verify: Verify,
        seed: int,
        initial: Sequence[Mapping[str, Any]] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        keep: Keep = lambda names: None,
    ) -> None:
        self._store, self._verify, self._keep = store, verify, keep
        journal = store.read()
        if journal is None:
            require_plain(config.space)
            journal = Journal(_beginning(config, settings or {}, total_updates, seed, initial))
            store.begin(journal.about)
        with expected_content(store.path):
            require_same_rules(config, settings or {}, total_updates, journal.about)
        self.population, self.generator, self.seconds = replayed(config, journal)

    def run(self, executor: Executor, stopped: Callable[[], bool], watcher: Watcher | None = None) -> bool:
        """Train to the end, or until it is stopped.

        Args:
            executor: Has the segments trained.
            stopped: Asked now and then.
            watcher: Sees what happens.

        Returns:
            Whether the population has come to its end.

        Raises:
            PopulationFailed: If all members have failed; when it runs again, they try again.
        """
        watcher, start = watcher or Watcher(), time.monotonic() - self.seconds
        self._retry_failures()
        self._keep(self.population.needed())
        watcher.began(self.population, self.seconds)
        try:
            while self._train(executor, stopped, watcher, start):
                self.population.require_survivor()
                if self.population.is_over:
                    self._keep(self.population.needed())
                    return True
                self._decide(watcher)
            return False
        finally:
            watcher.ended(self.population, self.seconds)

    def _retry_failures(self) -> None:
        """Where the training before has ended because all had failed, they try again."""
        if self.population.has_failed:
            self._store.forget_failures(self.population.generation)
            self.population.forget()

    def _train(self, executor: Executor, stopped: Callable[[], bool], watcher: Watcher, start: float) -> bool:
        """Have the segments of this generation trained; returns whether all of them are."""
        population, is_stopped = self.population, False

        def halted() -> bool:
            nonlocal is_stopped
            is_stopped = is_stopped or stopped()
            return is_stopped

        for results in executor.run_segments(population.tasks(), halted):
            population.require_expected(results)
            self.seconds = time.monotonic() - start
            self._store.commit_results(results, self.seconds)
            population.report(results)
            watcher.reported(population, results)
        left = [str(task.member_id) for task in population.tasks()]
        if left and not is_stopped:
            raise StateError(
                f"{type(executor).__name__} left out the segments of {', '.join(left)}. An executor has to hand out a "
                "result for every task."
            )
        return not left

    def _decide(self, watcher: Watcher) -> None:
        population, generator = self.population, deepcopy(self.generator)
        decided = population.decide(generator, self._verify)
        plain = [each.plain() for each in decided]
        if all(result.performance is None for result in population.results.values()):
            _log.warning("No member has a score, so that nobody is copied. Have them train longer between decisions.")
        self._store.commit_generation(
            Generation(population.generation, self.seconds, generator.bit_generator.state, plain)
        )
        population.settle(decided)
        self.generator = generator
        self._keep(population.needed())
        watcher.decided(population, decided, self.seconds)


def _beginning(
    config: PBTConfig,
    settings: Mapping[str, Any],
    total_updates: int,
    seed: int,
    initial: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """What a new population begins with."""
    generator = np.random.default_rng(seed)
    members = drawn_members(config, generator) if initial is None else given_members(config, initial)
    if len(members) == 1:
        _log.warning("A population of one trains as a single agent: there is nobody to copy.")
    return {
        "seed": seed,
        "total_updates": total_updates,
        "rules": rules_of(config, settings),
        "members": [[member.member_id, member.hyperparams] for member in members],
        "seeds": first_seeds(len(members), generator),
        "generator": generator.bit_generator.state,
    }


def first_seeds(count: int, generator: np.random.Generator) -> list[int]:
    """A seed for every member, no two alike."""
    seeds: dict[int, None] = {}
    while len(seeds) < count:
        seeds[int(generator.integers(_FIRST_SEEDS))] = None
    return [*seeds]


def replayed(config: PBTConfig, journal: Journal) -> tuple[Population, np.random.Generator, float]:
    """The population of a journal, its generator, and how many seconds it has been trained.

    Args:
        config: Its rules.
        journal: All that it has done.

    Raises:
        StateError: If the journal is of another space, or of no population.
    """
    with expected_content("The journal"):
        return _replayed(config, journal)


def _replayed(config: PBTConfig, journal: Journal) -> tuple[Population, np.random.Generator, float]:
    about = journal.about
    members = given_members(config, [PopulationMember(member_id, values) for member_id, values in about["members"]])
    population, generator = Population(config, members, about["seeds"], about["total_updates"]), generator_from(about)
    for generation in journal.generations:
        _report(population, journal)
        if generation.number != population.generation or len(population.results) < len(members):
            raise StateError(f"The journal lacks a part of generation {population.generation}. Restore it from a copy.")
        population.settle([decided_from(each, config.space) for each in generation.decisions])
        generator = generator_from({"generator": generation.generator})
    _report(population, journal)
    return population, generator, journal.seconds


def _report(population: Population, journal: Journal) -> None:
    """Enter what the journal has of the generation that is being trained."""
    for failure in journal.failures:
        if failure.generation == population.generation:
            population.report([failure])
            population.forget()
    population.report(journal.results.get(population.generation, ()))
