"""Segments trained in processes, which may die or hang: then those that they were at are trained again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import final

from everlearn.population.executors.executor import Beat, Executor, MakeRunner
from everlearn.population.executors.worker import Worker
from everlearn.population.members import MemberId
from everlearn.population.segments import Result, Task

_log = logging.getLogger(__name__)
_PAUSE = 0.2
"""Seconds from one look at the clock to the next."""
_BEGINNING = 60.0
"""Seconds that a new process gets before its first sign of life is waited for."""


@dataclass
class _Batch:
    """Segments that are trained together, and how often a worker was lost over them."""

    tasks: list[Task]
    losses: tuple[str, ...] = ()


@final
class Processes(Executor):
    """Trains in processes of their own.

    Row 22 of the failure modes: a worker that has died, or has not been heard of for too long, is replaced by a new
    one, and its segments are trained again from the files from which they began. Where that has happened ``restarts``
    times, members that were trained together are trained one by one, to find the one that it is; a single one has
    failed.

    Args:
        make_runner: Makes what trains, in each process.
        shares: The members that are trained together, for each such group; a member that is in none is trained alone.
        workers: Processes.
        timeout: Seconds without a sign of life after which a worker counts as hung.
        restarts: How often segments are tried again.
        log: Where the output of all workers goes; None for nowhere.
        beat: Told how far each segment is.
    """

    def __init__(
        self,
        make_runner: MakeRunner,
        workers: int,
        shares: Sequence[Sequence[MemberId]] = (),
        *,
        timeout: float = 300.0,
        restarts: int = 2,
        log: Path | None = None,
        beat: Beat = lambda member_id, updates: None,
    ) -> None:
        self._make_runner, self._workers, self._log, self._beat = make_runner, workers, log, beat
        self._timeout, self._restarts = timeout, restarts
        self._share_of = {member_id: number for number, share in enumerate(shares) for member_id in share}
        self._idle: dict[int, Worker] = {}
        self._at_work: dict[int, tuple[Worker, _Batch, float]] = {}

    @property
    def pids(self) -> list[int]:
        """Of the processes that there are."""
        workers = [*self._idle.values(), *(worker for worker, _, _ in self._at_work.values())]
        return [worker.pid for worker in workers if worker.pid is not None]

    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        """Side by side, by as many processes as there are."""
        if self._at_work:  # an earlier call was given up half-way
            self.close()
        waiting = deque(self._batches(tasks))
        while waiting or self._at_work:
            if stopped():
                self.close()
                return
            self._begin(waiting)
            yield from self._finished(waiting)

    def close(self) -> None:
        """End all processes."""
        busy = [worker for worker, _, _ in self._at_work.values()]
        idle, self._idle, self._at_work = [*self._idle.values()], {}, {}
        for worker in busy:
            worker.close(patience=0.0)
        for worker in idle:
            worker.close()

    def _batches(self, tasks: Sequence[Task]) -> list[_Batch]:
        shares: dict[tuple[str, object], list[Task]] = {}
        for task in tasks:
            number = self._share_of.get(task.member_id)
            key = ("alone", task.member_id) if number is None else ("share", number)
            shares.setdefault(key, []).append(task)
        return [_Batch(share) for share in shares.values()]

    def _begin(self, waiting: deque[_Batch]) -> None:
        """Give work to every process that has none: to each its own share, and members without one to any."""
        for number in range(self._workers):
            batch = None if number in self._at_work else self._next_for(number, waiting)
            if batch is None:
                continue
            worker, start = self._idle.pop(number, None), time.monotonic()
            if worker is None:
                worker, start = Worker(self._make_runner, self._log), start + _BEGINNING
            self._at_work[number] = (worker, batch, start)
            with suppress(OSError):  # a process that is gone is noticed when it is listened to
                worker.send(batch.tasks)

    def _next_for(self, number: int, waiting: deque[_Batch]) -> _Batch | None:
        for batch in waiting:
            share = self._share_of.get(batch.tasks[0].member_id)
            if share is None or share % self._workers == number:
                waiting.remove(batch)
                return batch
        return None

    def _finished(self, waiting: deque[_Batch]) -> Iterator[list[Result]]:
        """What has come in within a moment; workers that are lost are replaced."""
        ready = wait([worker.connection for worker, _, _ in self._at_work.values()], _PAUSE)
        for number, (worker, batch, heard) in list(self._at_work.items()):
            if worker.connection in ready:
                yield from self._heard(number, worker, batch, waiting)
            elif time.monotonic() - heard > self._timeout:
                yield from self._replace(number, waiting, f"has not been heard of for {self._timeout:g} seconds")

    def _heard(self, number: int, worker: Worker, batch: _Batch, waiting: deque[_Batch]) -> Iterator[list[Result]]:
        try:
            message = worker.receive()
        except (EOFError, OSError):
            yield from self._replace(number, waiting)
            return
        if isinstance(message, tuple):
            self._at_work[number] = (worker, batch, time.monotonic())
            self._beat(*message)
            return
        del self._at_work[number]
        self._idle[number] = worker
        for loss in reversed(batch.losses):
            what = f"A worker was lost, and its segment was trained again: {loss}"
            message = [result.interrupted(what) for result in message]
        yield message

    def _replace(self, number: int, waiting: deque[_Batch], what: str | None = None) -> Iterator[list[Result]]:
        """Have the segments of a lost worker trained again, alone or not at all where that has been tried enough."""
        worker, batch, _ = self._at_work.pop(number)
        if what is not None:
            worker.close(patience=0.0)
        loss = f"worker {number} {what or worker.obituary()}"
        members = ", ".join(str(task.member_id) for task in batch.tasks)
        _log.warning("The %s, while it trained member %s.", loss, members)
        losses = (*batch.losses, loss)
        if len(losses) <= self._restarts:
            waiting.appendleft(_Batch(batch.tasks, losses))
        elif len(batch.tasks) > 1:
            waiting.extendleft(_Batch([task]) for task in reversed(batch.tasks))
        else:
            yield [task.failed("; ".join(losses)) for task in batch.tasks]
