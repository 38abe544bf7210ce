"""A population as its journal tells it: the sum of what was reported and decided, in whatever process that was."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from numpy.random import Generator

from everlearn.checkpoint.archive import FORMAT
from everlearn.core.errors import EverlearnError, StateError
from everlearn.population import scheduler_statistics as counted
from everlearn.population.config import PBTConfig
from everlearn.population.decided import Decided
from everlearn.population.decisions import Decision, decide, hyperparams_after
from everlearn.population.ledger import Ledger, Taken
from everlearn.population.members import MemberId, PopulationMember, Record, score_of
from everlearn.population.records import Records
from everlearn.population.segments import Checkpoint, Copy, Result, Task

Verify = Callable[[Checkpoint], str | None]
"""Why a state cannot be taken over; None if it can."""
VGS = "vgs_state"


class PopulationFailed(EverlearnError):  # noqa: N818 - the family's names are the words for what happened
    """Every member has failed: there is nobody to go on with."""


@dataclass
class Place:
    """What a member trains from.

    Args:
        seed: Of its beginning.
        checkpoint: Its state after the last segment that it came through; None before the first.
        copy: What it takes over before the next one.
        env_steps: Environment steps that it has taken.
        seconds: Time that these took.
    """

    seed: int
    checkpoint: Checkpoint | None = None
    copy: Copy | None = None
    env_steps: int = 0
    seconds: float = 0.0


@final
class Population:
    """All members, where each stands, and what was decided; a sum of what was reported and decided, in its order.

    Args:
        config: The rules.
        members: The handles.
        seeds: Of each member.
        total_updates: Training updates of a member altogether.

    Attributes:
        generation: The one that is being trained.
        results: What has come of it so far, by member.
        places: What each member trains from.
        ledger: What is remembered of them all.
    """

    def __init__(
        self, config: PBTConfig, members: Sequence[PopulationMember], seeds: Sequence[int], total_updates: int
    ) -> None:
        self.config, self.total_updates = config, total_updates
        self.generation = 0
        self.results: dict[MemberId, Result] = {}
        self.places = {member.member_id: Place(seed) for member, seed in zip(members, seeds, strict=True)}
        self.ledger = Ledger()
        self.ledger.begin(members, keeps_files=False)

    @property
    def members(self) -> list[PopulationMember]:
        """The handles, in their order."""
        return self.ledger.members

    @property
    def generations(self) -> int:
        """How many there are."""
        return math.ceil(self.total_updates / self.config.perturbation_interval)

    @property
    def is_over(self) -> bool:
        """Whether the last generation has been trained, and not all have failed in it."""
        is_last = self.generation == self.generations - 1
        return is_last and len(self.results) == len(self.members) and not self.has_failed

    @property
    def env_steps(self) -> int:
        """Environment steps of all members together."""
        return sum(place.env_steps for place in self.places.values())

    def best(self) -> PopulationMember | None:
        """Who has the best score and a state; None if nobody has."""
        standings, mode = self.ledger.standings, self.config.metric_mode
        scored = [
            (score, member)
            for member in self.members
            if (score := score_of(member.performance, mode)) is not None and standings[member.member_id].has_state
        ]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def tasks(self) -> list[Task]:
        """The segments of this generation that nothing has come of yet."""
        interval = self.config.perturbation_interval
        updates = min(interval, self.total_updates - self.generation * interval)
        return [
            Task(
                member.member_id,
                self.generation,
                member.step,
                updates,
                self.places[member.member_id].seed,
                dict(member.hyperparams),
                self.places[member.member_id].checkpoint,
                self.places[member.member_id].copy,
            )
            for member in self.members
            if member.member_id not in self.results
        ]

    def require_expected(self, results: Sequence[Result]) -> None:
        """Refuse what did not come of a segment of this generation.

        Raises:
            StateError: Naming member and generation.
        """
        for result in results:
            if result.generation != self.generation or result.member_id not in self.places:
                raise StateError(
                    f"There is no segment of member {result.member_id!r} in generation {self.generation}, but a result "
                    f"of one in generation {result.generation}. Report what came of the tasks of this generation."
                )

    def report(self, results: Sequence[Result]) -> None:
        """Enter what came of some segments of this generation; of two results of a segment the first counts.

        Raises:
            StateError: If one is of another generation, or of no member.
        """
        self.require_expected(results)
        for result in results:
            if result.member_id not in self.results:
                self._enter(result)

    def _enter(self, result: Result) -> None:
        member, place = self.ledger.member(result.member_id), self.places[result.member_id]
        standing = self.ledger.standings[result.member_id]
        self.results[result.member_id] = result
        self.ledger.report(member, result.performance, result.step)
        standing.has_state = result.checkpoint is not None
        place.env_steps += result.env_steps
        place.seconds += result.seconds
        if result.checkpoint is not None:
            standing.saved_step = result.step
            place.checkpoint, place.copy = result.checkpoint, None
            member.checkpoint_path = Path(result.checkpoint.name)
        for what in result.interruptions:
            self.ledger.note(member, what)
        if result.error is not None:
            self.ledger.note(member, f"It has failed: {result.error}")

    @property
    def has_failed(self) -> bool:
        """Whether all members have failed in this generation."""
        return len(self._failed()) == len(self.members)

    def require_survivor(self) -> None:
        """Refuse to go on where all members have failed; row 26 of the failure modes.

        Raises:
            PopulationFailed: With everybody's cause.
        """
        if self.has_failed:
            raise PopulationFailed(self._causes())

    def forget(self) -> None:
        """Have all segments of this generation trained again; that they have failed stays among the incidents."""
        self.results = {}

    def decide(self, generator: Generator, verify: Verify) -> list[Decided]:
        """What the members do next; nothing changes yet but the generator.

        A member that has failed takes over the best that has not, whatever the rule says.

        Args:
            generator: Of the population.
            verify: Says of a state whether it can be taken over.
        """
        failed = self._failed()
        ready = {
            each.member_id for each in self.members if each.step >= self.config.burn_in or each.member_id in failed
        }
        records = self._records()
        healthy = tuple(each.member_id for each in records.sources)
        decisions = [
            replace(each, sources=each.sources or healthy) if each.member_id in failed else each
            for each in decide(records, self.config, generator, ready)
        ]
        return [self._decided(each, records, verify) for each in decisions]

    def settle(self, decided: Sequence[Decided]) -> None:
        """Enter what was decided, and begin the next generation."""
        for each in decided:
            place, copy = self.places[each.event.member_id], each.copy
            parts = () if copy is None else copy.checkpoint.parts
            whole = copy is not None and copy.copied == "everything"
            path = None if copy is None else Path(copy.checkpoint.name)
            digest = None if copy is None else copy.checkpoint.policy_digest
            self.ledger.counts[counted.ATTEMPTS] += bool(copy or each.event.passed_over)
            self.ledger.settle(each.event, path, digest, whole and VGS in parts)
            for source in each.event.passed_over:
                self.ledger.note(self.ledger.member(each.event.member_id), f"It could not take over {source}")
            place.copy = copy or place.copy
        self.generation += 1
        self.results = {}

    def needed(self) -> set[str]:
        """The names of the files that members may have to go back to."""
        checkpoints = [place.checkpoint for place in self.places.values()]
        checkpoints += [place.copy.checkpoint for place in self.places.values() if place.copy is not None]
        return {each.name for each in checkpoints if each is not None}

    def _records(self) -> Records:
        mode, learns = self.config.metric_mode, self.config.explore.learns
        records = self.ledger.records(self.members, mode, with_observations=learns)
        return Records(replace(record, samples=self._samples(record)) for record in records)

    def _samples(self, record: Record) -> tuple[float, ...]:
        """The finite scores of its last segment; what is better is higher in them, too."""
        result = self.results.get(record.member_id)
        scores = () if result is None else (score_of(each, self.config.metric_mode) for each in result.samples)
        return tuple(score for score in scores if score is not None)

    def _failed(self) -> set[MemberId]:
        return {member_id for member_id, result in self.results.items() if result.error is not None}

    def _decided(self, decision: Decision, records: Records, verify: Verify) -> Decided:
        member = self.ledger.member(decision.member_id)
        passed_over: list[str] = []
        for source_id in decision.sources:
            checkpoint = self.places[source_id].checkpoint
            assert checkpoint is not None  # a member without a state is never a source
            problem = verify(checkpoint)
            if problem is None:
                hyperparams = hyperparams_after(decision, source_id, records, self.config)
                rules = self.config.copied, self.config.optimizer_exploit_strategy
                copy = Copy(source_id, checkpoint, *rules, decision.seed)
                taken = Taken(self.ledger.member(source_id), None, FORMAT, tuple(passed_over))
                return Decided(self.ledger.event(member, taken, hyperparams), copy)
            passed_over.append(f"member {source_id!r}: {problem}")
        hyperparams = hyperparams_after(decision, None, records, self.config)
        return Decided(self.ledger.event(member, Taken(None, passed_over=tuple(passed_over)), hyperparams), None)

    def _causes(self) -> str:
        errors = {member_id: result.error or "unknown" for member_id, result in self.results.items()}
        lines = [f"  member {member_id}: {error.splitlines()[-1]}" for member_id, error in errors.items()]
        return (
            f"All members have failed in generation {self.generation}; their last checkpoints stay. The causes, which "
            "the journal has in full:\n" + "\n".join(lines) + "\nMend the cause, and resume the population."
        )
