"""What is remembered of a population: its members, where each stands, what was decided and what went wrong."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from everlearn.core.errors import ArgumentError
from everlearn.population import scheduler_statistics as counted
from everlearn.population.lineage import Event, observations
from everlearn.population.members import (
    Hyperparams,
    MemberId,
    MetricMode,
    Observation,
    PopulationMember,
    Record,
    Report,
    score_of,
)
from everlearn.population.records import Records

_MOST_INCIDENTS = 1000


@dataclass
class Standing:
    """Where a member stands.

    Args:
        reported_at: When it reported last, by the ledger's clock; 0 if never.
        decided_at: When it was decided about last; 0 if never.
        last_event_step: Its training updates at its last decision, or at the beginning.
        waits: How often it was not decided about since, because others had not reported.
        has_state: Whether its state can be taken over: that of a member which has just taken over another's cannot.
        saved_step: Its training updates when that was saved.
        expected_digest: The fingerprint of the policy that it was given last; None if it was given none.
        scored: The hyper-parameters by which it came by its score and its state, where it has explored since.
    """

    reported_at: int = 0
    decided_at: int = 0
    last_event_step: int = 0
    waits: int = 0
    has_state: bool = False
    saved_step: int | None = None
    expected_digest: str | None = None
    scored: dict[str, Any] | None = None

    @property
    def has_reported(self) -> bool:
        """Whether it has since its last decision."""
        return self.reported_at > self.decided_at


@dataclass(frozen=True)
class Incident:
    """Something that went wrong and was lived with.

    Args:
        member_id: With whom.
        step: Its training updates then.
        what: What happened and what was done.
    """

    member_id: MemberId
    step: int
    what: str


@dataclass(frozen=True)
class Taken:
    """Whose state a member takes over, and why not that of better ones.

    Args:
        source: Whose; None if nobody's.
        parameters: What the member gets; None where it keeps its own, or the caller copies.
        checkpoint_format: Of the file that they came from.
        passed_over: Better sources whose state could not be read, and why.
    """

    source: PopulationMember | None
    parameters: dict[str, Any] | None = None
    checkpoint_format: str | None = None
    passed_over: tuple[str, ...] = ()


@dataclass
class Ledger:
    """All that is remembered, but for generator and files.

    Args:
        members: The handles, in the order of the population.
        standings: By member.
        events: What was decided, in its order.
        incidents: What went wrong; the latest thousand.
        counts: How often what has happened.
    """

    members: list[PopulationMember] = field(default_factory=list)
    standings: dict[MemberId, Standing] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._clock = max((max(each.reported_at, each.decided_at) for each in self.standings.values()), default=0)
        self._events_of: defaultdict[MemberId, list[Event]] = defaultdict(list)
        for event in self.events:
            self._events_of[event.member_id].append(event)
        self.hold(self.members)

    def hold(self, members: Sequence[PopulationMember]) -> None:
        """Take these handles for the members."""
        self.members = list(members)
        self._handles = {member.member_id: member for member in members}

    def begin(self, members: Sequence[PopulationMember], keeps_files: bool) -> None:
        """Enter the members of a new population.

        Args:
            members: All of them; one that has a file already can be taken over at once.
            keeps_files: Whether states are kept in files.
        """
        for member in members:
            has_state = keeps_files and member.checkpoint_path is not None
            self.standings[member.member_id] = Standing(
                last_event_step=member.step, has_state=has_state, saved_step=member.step if has_state else None
            )
            values = dict(member.hyperparams)
            start = Event(member.member_id, member.generation, member.step, member.performance, values)
            self._append(start)
        self.hold(members)

    def standing(self, member: PopulationMember) -> Standing:
        """Where a member stands.

        Raises:
            ArgumentError: If it is none of these members, or a copy of one.
        """
        if self._handles.get(member.member_id) is not member:
            raise ArgumentError(
                f"Member {member.member_id!r} is none of this scheduler's, or a copy of one. Use those in "
                "scheduler.members."
            )
        return self.standings[member.member_id]

    def report(self, member: PopulationMember, performance: float | None, step: int) -> None:
        """Enter what a member says of itself."""
        standing = self.standing(member)
        member.performance, member.step = performance, step
        member.history.append(Report(step, performance, member.generation))
        standing.reported_at, standing.scored = self._now(), None
        standing.last_event_step = min(standing.last_event_step, step)  # one that began its count again
        if performance is None or not math.isfinite(performance):
            self.note(member, f"Its performance is {performance}: it ranks last and nobody copies it.")

    def note(self, member: PopulationMember, what: str) -> None:
        """Enter something that went wrong."""
        self.incidents = [*self.incidents[1 - _MOST_INCIDENTS :], Incident(member.member_id, member.step, what)]
        self.counts[counted.INCIDENTS] += 1

    def counting(self, member: PopulationMember) -> list[PopulationMember]:
        """The members that count in the generation of one of them: they have reported since its last decision.

        Those that have died since neither count nor are waited for.
        """
        decided_at = self.standing(member).decided_at
        return [each for each in self.members if self.standings[each.member_id].reported_at > decided_at]

    def _now(self) -> int:
        """The next tick of a clock that counts reports and decisions."""
        self._clock += 1
        return self._clock

    def records(
        self, members: Iterable[PopulationMember], metric_mode: MetricMode, *, with_observations: bool
    ) -> Records:
        """Frozen copies of some members, as strategies see them.

        Args:
            members: Which.
            metric_mode: Whether higher or lower is better.
            with_observations: Whether to look through all that was decided for what it has brought.
        """
        return Records(
            Record(
                member_id=member.member_id,
                hyperparams=self.standings[member.member_id].scored or member.hyperparams,
                score=score_of(member.performance, metric_mode),
                step=member.step,
                generation=member.generation,
                has_state=self.standings[member.member_id].has_state,
                samples=_samples(member, metric_mode),
                observations=self._observations(member, metric_mode) if with_observations else (),
            )
            for member in members
        )

    def _observations(self, member: PopulationMember, metric_mode: MetricMode) -> tuple[Observation, ...]:
        return observations(self.events_of(member.member_id), member.member_id, metric_mode)

    def event(self, member: PopulationMember, taken: Taken, hyperparams: Hyperparams) -> Event:
        """What has been decided about a member; nothing changes yet.

        Args:
            member: Which.
            taken: Whose state it takes over.
            hyperparams: With what it goes on.
        """
        source = taken.source
        start = member.hyperparams if source is None else self.standings[source.member_id].scored or source.hyperparams
        return Event(
            member.member_id,
            member.generation + 1,
            member.step,
            member.performance,
            dict(hyperparams),
            None if source is None else source.member_id,
            None if source is None else self.standings[source.member_id].saved_step,
            None if source is None else source.performance,
            taken.checkpoint_format,
            taken.passed_over,
            hyperparams != start,
        )

    def settle(self, event: Event, checkpoint_path: Path | str | None, expected: str | None, with_vgs: bool) -> None:
        """Enter what was decided about a member, and put it into its handle.

        Args:
            event: What.
            checkpoint_path: The file that its state comes from, if it takes over another's.
            expected: The fingerprint of the policy that it was given.
            with_vgs: Whether the state of variance scaling came along.
        """
        member = self.member(event.member_id)
        standing = self.standings[event.member_id]
        self._append(event)
        self.counts[counted.EXPLORATIONS] += event.explored
        standing.scored = dict(member.hyperparams) if event.source_id is None else None
        member.hyperparams, member.generation = dict(event.hyperparams), event.generation
        standing.decided_at, standing.waits, standing.last_event_step = self._now(), 0, member.step
        if event.source_id is not None:
            member.parent, member.checkpoint_path = event.source_id, checkpoint_path
            standing.has_state, standing.saved_step, standing.expected_digest = False, None, expected
            self.counts[counted.EXPLOITS] += 1
            self.counts[counted.WITH_VGS] += with_vgs
            if event.checkpoint_format is not None:
                self.counts[f"{counted.FORMAT}{event.checkpoint_format}"] += 1

    def member(self, member_id: MemberId) -> PopulationMember:
        """The handle of a member."""
        return self._handles[member_id]

    def events_of(self, member_id: MemberId) -> Sequence[Event]:
        """What was decided about a member, oldest first; its beginning too."""
        return self._events_of.get(member_id, ())

    def _append(self, event: Event) -> None:
        self.events.append(event)
        self._events_of[event.member_id].append(event)

    def files(self) -> set[Path]:
        """What members refer to."""
        return {Path(member.checkpoint_path) for member in self.members if member.checkpoint_path is not None}


def _samples(member: PopulationMember, metric_mode: MetricMode) -> tuple[float, ...]:
    """The finite scores since the last decision, oldest first."""
    reports = takewhile(lambda report: report.generation == member.generation, reversed(member.history))
    scores = (score_of(report.performance, metric_mode) for report in reports)
    return tuple(score for score in scores if score is not None)[::-1]
