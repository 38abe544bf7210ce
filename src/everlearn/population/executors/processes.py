"""Segments trained in processes of this machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import final

from everlearn.population.executors.executor import Beat, MakeRunner
from everlearn.population.executors.pool import Pool
from everlearn.population.executors.process_worker import ProcessWorker
from everlearn.population.members import MemberId


@final
class Processes(Pool[ProcessWorker]):
    """Trains in processes of their own, which may die or hang.

    Args:
        make_runner: Makes what trains, in each process.
        directory: Where the members' files are.
        workers: Processes.
        shares: The members that are trained together, for each such group; a member that is in none is trained alone.
        timeout: Seconds without a sign of life after which a worker counts as hung.
        restarts: How often segments are tried again.
        log: Where the output of all workers goes; None for nowhere.
        beat: Told how far each segment is.
    """

    def __init__(
        self,
        make_runner: MakeRunner,
        directory: Path,
        workers: int,
        shares: Sequence[Sequence[MemberId]] = (),
        *,
        timeout: float = 300.0,
        restarts: int = 2,
        log: Path | None = None,
        beat: Beat = lambda member_id, updates: None,
    ) -> None:
        super().__init__(workers, shares, timeout=timeout, restarts=restarts, beat=beat)
        self._make_runner, self._directory, self._log = make_runner, directory, log

    @property
    def pids(self) -> list[int]:
        """Of the processes that there are."""
        return [place.worker.pid for place in self._places.values() if place.worker.pid is not None]

    def _hire(self, number: int) -> ProcessWorker:
        return ProcessWorker(self._make_runner, self._directory, self._log)

    def _heard_from(self, workers: Mapping[int, ProcessWorker], seconds: float) -> Collection[int]:
        ready = wait([worker.connection for worker in workers.values()], seconds)
        return [number for number, worker in workers.items() if worker.connection in ready]
