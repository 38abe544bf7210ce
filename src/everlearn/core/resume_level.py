"""How exactly a training goes on from a file."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """What a resumed training shares with one that was never interrupted; the first is the highest."""

    EXACT = "exact"  # every bit, on the same kind of machine with the same versions
    REPLAY = "exact-replay"  # the same, with environments rebuilt by repeating their actions
    EPISODE = "episode"  # everything but the running episodes, which start anew from saved generators
    WEIGHTS = "weights"  # what was learned

    def reaches(self, wanted: Level) -> bool:
        """Whether this level is as high as the wanted one; the first two promise the same."""
        order = list(Level)
        return order.index(self) <= max(order.index(wanted), order.index(Level.REPLAY))


class Resumability(NamedTuple):
    """A level, and what keeps it from being higher.

    Attributes:
        level: What is promised.
        reasons: One sentence each; none where it is exact.
    """

    level: Level
    reasons: tuple[str, ...] = ()

    @classmethod
    def lowest(cls, several: Iterable[Resumability]) -> Resumability:
        """Of several together: the lowest level, and the reasons of all, each once."""
        found = [cls(Level.EXACT), *several]
        level = max((each.level for each in found), key=list(Level).index)
        return cls(level, tuple(dict.fromkeys(reason for each in found for reason in each.reasons)))
