"""A population's history along one axis: training updates since its beginning, the same for all members.

A member that has failed has fewer updates behind it than the others; on this axis its segment takes as long as theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from everlearn.population.lineage import ancestry, schedule
from everlearn.population.members import Hyperparams, MemberId, PopulationMember, Report
from everlearn.population.population import Population
from everlearn.report.population_rows import finite


@dataclass(frozen=True)
class Span:
    """A segment of a member.

    Attributes:
        member_id: Whose.
        start: Updates at its beginning.
        end: And at its end.
        score: At its end; None where there was none.
        failed: Whether it has come to nothing.
        hyperparams: By which it was trained.
    """

    member_id: MemberId
    start: int
    end: int
    score: float | None
    failed: bool
    hyperparams: Hyperparams


@dataclass(frozen=True)
class Exploit:
    """A member takes over another's state.

    Attributes:
        at: Updates.
        source_id: Whose.
        member_id: Who.
    """

    at: int
    source_id: MemberId
    member_id: MemberId


@dataclass(frozen=True)
class Stay:
    """A part of a line of descent.

    Attributes:
        member_id: Who had the state.
        start: From when.
        end: Until when.
    """

    member_id: MemberId
    start: int
    end: int


@dataclass(frozen=True)
class Timeline:
    """What has happened to a population.

    Attributes:
        members: In their order.
        end: Updates so far.
        spans: Of each member, in their order.
        exploits: In their order.
        winner: The best member; None if there is none.
        descent: By whom the winner's state was trained, from the first weights on.
    """

    members: Sequence[MemberId]
    end: int
    spans: Sequence[Span]
    exploits: Sequence[Exploit]
    winner: MemberId | None
    descent: Sequence[Stay]

    @property
    def line(self) -> set[tuple[MemberId, int]]:
        """The exploits of the line of descent: who, and when."""
        return {(stay.member_id, stay.start) for stay in self.descent[1:]}


def timeline_of(population: Population) -> Timeline:
    """The history of a population."""
    rounds = [dict(zip(_ids(population), each, strict=True)) for each in _rounds(population.members)]
    last = [
        min((index + 1) * population.config.perturbation_interval, population.total_updates)
        for index in range(len(rounds))
    ]
    ends = dict(zip(range(len(rounds)), last, strict=True))
    when = {
        (member_id, report.generation): ends[index]
        for index, each in enumerate(rounds)
        for member_id, report in each.items()
        if report is not None
    }
    events = population.ledger.events
    in_force = {(event.member_id, event.generation): event.hyperparams for event in events}
    spans = [
        Span(
            member_id,
            ends.get(index - 1, 0),
            ends[index],
            finite(report.performance),
            _has_failed(report, rounds[index - 1][member_id] if index else None),
            in_force[member_id, report.generation],
        )
        for member_id in _ids(population)
        for index, each in enumerate(rounds)
        if (report := each[member_id]) is not None
    ]
    exploits = [
        Exploit(when[event.member_id, event.generation - 1], event.source_id, event.member_id)
        for event in events
        if event.source_id is not None
    ]
    end, best = max(last, default=0), population.best()
    winner = None if best is None else best.member_id
    return Timeline(_ids(population), end, spans, exploits, winner, _descent(population, when, winner, end))


def winning_schedule(population: Population, winner: MemberId) -> list[tuple[int, int, Hyperparams]]:
    """From when to when the state of the best member was trained by which hyper-parameters."""
    stretches, start, found = schedule(population.ledger.events, winner, population.ledger.member(winner).step), 0, []
    for stretch in stretches:
        found.append((start, start + stretch.updates, stretch.hyperparams))
        start += stretch.updates
    return found


def _ids(population: Population) -> list[MemberId]:
    return [member.member_id for member in population.members]


def _rounds(members: Sequence[PopulationMember]) -> list[tuple[Report | None, ...]]:
    """What all have reported, by generation, without those in which all had failed: these were trained again."""
    rounds = [*zip_longest(*(member.history for member in members))]
    kept: list[tuple[Report | None, ...]] = []
    for index, each in enumerate(rounds):
        before = kept[-1] if kept else (None,) * len(members)
        failed = all(
            report is not None and _has_failed(report, last) for report, last in zip(each, before, strict=True)
        )
        if not failed or index == len(rounds) - 1:
            kept.append(each)
    return kept


def _has_failed(report: Report, before: Report | None) -> bool:
    """Whether a segment has come to nothing: it has left no update."""
    return report.performance is None and report.step == (before.step if before is not None else 0)


def _descent(
    population: Population, when: dict[tuple[MemberId, int], int], winner: MemberId | None, end: int
) -> list[Stay]:
    if winner is None:
        return []
    stays, holder = [], winner
    for event in reversed(ancestry(population.ledger.events, winner)):
        assert event.source_id is not None  # an exploit
        start = when[event.member_id, event.generation - 1]
        stays.append(Stay(holder, start, end))
        holder, end = event.source_id, start
    stays.append(Stay(holder, 0, end))
    return stays[::-1]
