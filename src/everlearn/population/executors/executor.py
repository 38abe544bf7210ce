"""Who trains the segments of a population. To add a way, write an ``Executor`` in one file and register it."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from everlearn.population.members import MemberId
from everlearn.population.segments import Result, Task

Beat = Callable[[MemberId, int], None]
"""Told now and then, while a segment is trained, of which member and how many updates of it are done."""


class SegmentRunner(ABC):
    """Trains segments in one process: what an executor has one of wherever it works."""

    @abstractmethod
    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        """Train some segments, together if it can, and leave each member's state in a file that survives a crash.

        The same task gives the same result, whatever else the runner has done before. A member that fails is a result
        with an error and harms no other.

        Args:
            tasks: What to train, of one member each.
            beat: To be called at least every few seconds.
        """

    def close(self) -> None:  # noqa: B027 - many have nothing to give back
        """Give back what it holds."""


class MakeRunner(Protocol):
    """Makes a runner, also in another process: what it is goes there as ``multiprocessing`` sends functions."""

    def __call__(self, directory: Path, /) -> SegmentRunner:
        """A new one, which has its members' files in a directory."""
        ...


class Executor(ABC):
    """Has segments trained."""

    @abstractmethod
    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        """Have all tasks done, and hand out what came of them as soon as it is there.

        What is handed out in one piece was trained together: it is entered together or not at all, so that what is
        trained again after a crash is trained in the same way.

        Args:
            tasks: Segments of different members.
            stopped: Asked now and then; once it says so, what is not done yet is given up.
        """

    def close(self) -> None:  # noqa: B027 - many have nothing to give back
        """End all that is at work."""


def failure(error: BaseException) -> str:
    """An error in full, as it goes into the journal."""
    return "".join(traceback.format_exception(error)).strip()
