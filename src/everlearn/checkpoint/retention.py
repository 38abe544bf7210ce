"""Which checkpoints stay when a new one is written: the last, the best, and one every so often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everlearn.core.errors import ArgumentError


@dataclass(frozen=True)
class Checkpoint:
    """A file of a store.

    Args:
        step: Environment steps before it was written.
        path: Where it is.
        performance: What the agent was worth then, higher is better; None if nobody looked.
        known: Whether the file could be asked for it.
    """

    step: int
    path: Path
    performance: float | None = None
    known: bool = True


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay when a new one is written.

    Args:
        keep_last: The newest so many.
        keep_best: So many with the highest performance.
        keep_every: The first at or after each multiple of so many steps; None for none.
    """

    keep_last: int = 3
    keep_best: int = 1
    keep_every: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (("keep_last", 1), ("keep_best", 0), ("keep_every", 1)):
            value = getattr(self, name)
            if not (name == "keep_every" and value is None) and not (type(value) is int and value >= lowest):
                raise ArgumentError(f"{name}={value!r}: give a whole number from {lowest} on.")

    def kept(self, checkpoints: Sequence[Checkpoint]) -> set[Path]:
        """Those that stay. One that could not be asked may be the best, and stays too.

        Args:
            checkpoints: All, by rising step.
        """
        last, best = checkpoints[-self.keep_last :], self.best(checkpoints)
        first: dict[int, Checkpoint] = {}
        for checkpoint in checkpoints if self.keep_every else ():
            first.setdefault(checkpoint.step // (self.keep_every or 1), checkpoint)
        first.pop(0, None)
        unknown = [checkpoint for checkpoint in checkpoints if not checkpoint.known]
        return {checkpoint.path for checkpoint in (*last, *best, *first.values(), *unknown)}

    def best(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Those that stay for their performance."""
        return sorted(filter(has_performance, checkpoints), key=rank)[-self.keep_best :] if self.keep_best else []


DEFAULT = Retention()
"""Of a store that is told nothing else."""


def has_performance(checkpoint: Checkpoint) -> bool:
    """Whether somebody looked, and found a number."""
    return checkpoint.performance is not None and math.isfinite(checkpoint.performance)


def rank(checkpoint: Checkpoint) -> tuple[float, int]:
    """Higher is better; of equals the later one."""
    return (-math.inf if checkpoint.performance is None else checkpoint.performance, checkpoint.step)
