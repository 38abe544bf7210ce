"""Segments trained in the calling process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import final

from everlearn.population.executors.executor import Beat, Executor, MakeRunner
from everlearn.population.segments import Result, Task


@final
class Inline(Executor):
    """Trains in the calling process: for tests, for debugging, and where there is one core.

    Args:
        make_runner: Makes what trains.
        directory: Where the members' files are.
        beat: Told how far each segment is.
    """

    def __init__(self, make_runner: MakeRunner, directory: Path, beat: Beat = lambda member_id, updates: None) -> None:
        self._runner, self._beat = make_runner(directory), beat

    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        """One after the other."""
        for task in tasks:
            if stopped():
                return
            yield self._runner.run([task], self._beat)

    def close(self) -> None:
        """End the runner."""
        self._runner.close()
