"""Training a population: segments, reports, decisions; each is in the journal before anything follows from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from everlearn.core.errors import ConfigError
from everlearn.population.beginning import drawn_members, given_members
from everlearn.population.config import PBTConfig
from everlearn.population.executors import Executor
from everlearn.population.members import PopulationMember
from everlearn.population.population import Decided, Population, Verify, first_seeds
from everlearn.population.scheduler_state import generator_from
from everlearn.population.segments import Result
from everlearn.population.store import Generation, Journal, PopulationStore

_log = logging.getLogger(__name__)


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

    Attributes:
        population: As it stands.
        seconds: Time that training has taken.
        generator: Of the population.

    Raises:
        ConfigError: If the population in the journal has other rules.
    """

    def __init__(
        self,
        config: PBTConfig,
        store: PopulationStore,
        total_updates: int,
        verify: Verify,
        seed: int,
        initial: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._store, self._verify = store, verify
        journal = store.read()
        if journal is None:
            self._begin(config, total_updates, seed, initial)
            journal = store.read()
            assert journal is not None
        self.population, self.generator, self.seconds = replayed(config, journal)
        if self.population.total_updates != total_updates:
            raise ConfigError(
                f"{store.path}: its members were to train for {self.population.total_updates} updates, and the "
                f"configuration says {total_updates}. Resume it with its own."
            )

    def run(self, executor: Executor, stopped: Callable[[], bool], watcher: Watcher | None = None) -> bool:
        """Train to the end, or until it is stopped.

        Args:
            executor: Has the segments trained.
            stopped: Asked now and then.
            watcher: Sees what happens.

        Returns:
            Whether the population has come to its end.

        Raises:
            PopulationFailed: If all members have failed.
        """
        watcher, start = watcher or Watcher(), time.monotonic() - self.seconds
        watcher.began(self.population, self.seconds)
        try:
            self._retry_failures()
            while self._train(executor, stopped, watcher):
                self.seconds = time.monotonic() - start
                if self.population.is_over:
                    return True
                self._decide(watcher)
            return False
        finally:
            watcher.ended(self.population, self.seconds)

    def _begin(
        self, config: PBTConfig, total_updates: int, seed: int, initial: Sequence[Mapping[str, Any]] | None
    ) -> None:
        generator = np.random.default_rng(seed)
        members = drawn_members(config, generator) if initial is None else given_members(config, initial)
        self._store.begin(
            {
                "seed": seed,
                "total_updates": total_updates,
                "members": [[member.member_id, member.hyperparams] for member in members],
                "seeds": first_seeds(len(members), generator),
                "generator": generator.bit_generator.state,
            }
        )

    def _retry_failures(self) -> None:
        """Where the training before has ended because all had failed, they try again."""
        population = self.population
        results = population.results.values()
        if len(results) == len(population.members) and all(result.error is not None for result in results):
            self._store.forget_failures(population.generation)
            population.results.clear()

    def _train(self, executor: Executor, stopped: Callable[[], bool], watcher: Watcher) -> bool:
        """Have the segments of this generation trained; returns whether all of them are."""
        population = self.population
        for results in executor.run_segments(population.tasks(), stopped):
            self._store.commit_results(results)
            population.report(results)
            watcher.reported(population, results)
        return len(population.results) == len(population.members)

    def _decide(self, watcher: Watcher) -> None:
        population, number = self.population, self.population.generation
        decided = population.decide(self.generator, self._verify)
        plain = [each.plain() for each in decided]
        self._store.commit_generation(Generation(number, self.seconds, self.generator.bit_generator.state, plain))
        population.settle(decided)
        for each in decided:
            if each.event.source_id is not None:
                _log.info("%s", each.event)
        watcher.decided(population, decided, self.seconds)


def replayed(config: PBTConfig, journal: Journal) -> tuple[Population, np.random.Generator, float]:
    """The population of a journal, its generator, and how many seconds it has been trained.

    Args:
        config: Its rules.
        journal: All that it has done.

    Raises:
        StateError: If the journal is of other hyper-parameters.
    """
    about = journal.about
    members = [
        PopulationMember(member_id, config.space.checked(values, "journal")) for member_id, values in about["members"]
    ]
    population = Population(config, members, about["seeds"], about["total_updates"])
    generator, seconds = generator_from(about), 0.0
    for generation in journal.generations:
        population.report(journal.results.get(generation.number, ()))
        population.settle([population.decided_from(each) for each in generation.decisions])
        generator, seconds = generator_from({"generator": generation.generator}), generation.seconds
    population.report(journal.results.get(population.generation, ()))
    return population, generator, seconds
