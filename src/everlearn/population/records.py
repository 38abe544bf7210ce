"""The records of a generation, and what every decision asks of them, found once for all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from statistics import fmean, pstdev
from typing import Any, TypeVar, final

from everlearn.core.errors import StateError
from everlearn.population.members import MemberId, Record, ranked

Made = TypeVar("Made")


class _Places(dict[MemberId, int]):
    """A place for each member; of one without a record it says so."""

    def __missing__(self, member_id: MemberId) -> int:
        raise StateError(
            f"There is no record of member {member_id!r}, only of {[*self]}. Give all of the decision, with its own."
        )


@final
class Records(tuple[Record, ...]):
    """Records of different members, in the order of the population.

    Each member is asked about by itself, and what the rules want to know is of all: so a thousand members would be
    sorted a thousand times. Here it is done when it is asked for first.
    """

    @classmethod
    def of(cls, population: Sequence[Record]) -> Records:
        """These records; the same object if they are such already."""
        return population if isinstance(population, Records) else cls(population)

    @cached_property
    def positions(self) -> Mapping[MemberId, int]:
        """Where each member is in the order of the population; a StateError of one without a record."""
        return _Places((record.member_id, position) for position, record in enumerate(self))

    @cached_property
    def ranking(self) -> tuple[Record, ...]:
        """As ``ranked`` has them: best first, without a score last."""
        return tuple(ranked(self))

    @cached_property
    def ranks(self) -> Mapping[MemberId, int]:
        """Where each member is in the ranking; the best has 0. A StateError of one without a record."""
        return _Places((record.member_id, rank) for rank, record in enumerate(self.ranking))

    @cached_property
    def sources(self) -> tuple[Record, ...]:
        """Who may be taken over, best first."""
        return tuple(record for record in self.ranking if record.can_be_source)

    def sources_above(self, score: float | None) -> int:
        """How many of the sources have a higher score than that: the first of them. Without a score, all."""
        return len(self.sources) if score is None else bisect_left(self._depths, -score)

    def sources_among(self, best: int) -> int:
        """How many of the sources are among so many at the top of the ranking: the first of them."""
        return bisect_left(self._source_ranks, best)

    def once(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """What a rule makes of all these records, made when it is asked for first.

        Args:
            what: Everything but the records that it follows from.
            make: Makes it, the same every time and with nothing drawn.
        """
        if what not in self._made:
            self._made[what] = make()
        made: Made = self._made[what]
        return made

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def mean_and_deviation(self) -> tuple[float, float] | None:
        """Of the scores; None where nobody has one."""
        scores = [record.score for record in self if record.score is not None]
        return (fmean(scores), pstdev(scores)) if scores else None

    @cached_property
    def _depths(self) -> list[float]:
        """The scores of the sources with their sign turned, so that they rise."""
        return [-record.score for record in self.sources if record.score is not None]

    @cached_property
    def _source_ranks(self) -> list[int]:
        return [self.ranks[record.member_id] for record in self.sources]
