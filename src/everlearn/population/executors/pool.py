"""Segments trained by workers elsewhere, who may die or hang: then those that they were at are trained again."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from everlearn.population.executors.executor import Beat, Executor
from everlearn.population.members import MemberId
from everlearn.population.segments import Result, Task

_log = logging.getLogger(__name__)
_PAUSE = 0.2
"""Seconds from one look at the clock to the next."""

Message = list[Result] | tuple[MemberId, int] | None
"""What a worker says: results; a member and how many updates of its segment are done; or that it has begun."""


class WorkerLost(Exception):  # noqa: N818 - what has happened; the pool alone sees it
    """A worker is gone; the message says how, as what follows its name in a sentence."""


class Worker(ABC):
    """One who trains segments elsewhere.

    Attributes:
        has_begun: Whether it can be given work.
    """

    has_begun = True

    @abstractmethod
    def send(self, tasks: Sequence[Task]) -> None:
        """Have segments trained; if the worker is gone, ``receive`` says so."""

    @abstractmethod
    def receive(self) -> Message:
        """What it says next, once the pool knows that there is something.

        Raises:
            WorkerLost: If it is gone.
        """

    @abstractmethod
    def close(self, patience: float) -> None:
        """End it; what it is at is given up.

        Args:
            patience: Seconds that it gets to end by itself.
        """


W = TypeVar("W", bound=Worker)


@dataclass
class _Batch:
    """Segments that are trained together, and how often a worker was lost over them."""

    tasks: list[Task]
    losses: tuple[str, ...] = ()


@dataclass
class _Place(Generic[W]):
    """A worker, what it is at, and when it last gave a sign of life."""

    worker: W
    heard: float
    batch: _Batch | None = None


class Pool(Executor, Generic[W]):
    """Trains by workers; a kind of workers is a subclass.

    Row 22 of the failure modes: a worker that has died, or has not been heard of for too long, is replaced by a new
    one, and its segments are trained again from the files from which they began. Where that has happened ``restarts``
    times, members that were trained together are trained one by one, to find the one that it is; a single one has
    failed.

    Args:
        workers: How many there are at most.
        shares: The members that are trained together, for each such group; a member that is in none is trained alone.
        timeout: Seconds without a sign of life after which a worker counts as hung.
        restarts: How often segments are tried again.
        beat: Told how far each segment is.
    """

    _PATIENCE = 3.0
    """Seconds that idle workers get to end by themselves, all together."""
    _BEGINNING = 60.0
    """Seconds that a new worker gets before its first sign of life is waited for."""

    def __init__(
        self, workers: int, shares: Sequence[Sequence[MemberId]], *, timeout: float, restarts: int, beat: Beat
    ) -> None:
        self._workers, self._beat, self._timeout, self._restarts = workers, beat, timeout, restarts
        self._share_of = {member_id: number for number, share in enumerate(shares) for member_id in share}
        self._places: dict[int, _Place[W]] = {}

    @abstractmethod
    def _hire(self, number: int) -> W:
        """A new worker."""

    @abstractmethod
    def _heard_from(self, workers: Mapping[int, W], seconds: float) -> Collection[int]:
        """Whoever of some workers has something to say, at once if one has, and otherwise after so many seconds."""

    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        """Side by side, by as many workers as there are."""
        if any(place.batch for place in self._places.values()):  # an earlier call was given up half-way
            self._dismiss()
        self._bury_idle()
        waiting = deque(self._batches(tasks))
        while waiting or any(place.batch for place in self._places.values()):
            if stopped():
                self._dismiss()
                return
            self._begin(waiting)
            yield from self._finished(waiting)

    def close(self) -> None:
        """End all workers."""
        self._dismiss()

    def _dismiss(self) -> None:
        """Have no workers any more; those that come are new ones."""
        places, self._places = self._places, {}
        end = time.monotonic() + self._PATIENCE
        for place in sorted(places.values(), key=lambda each: each.batch is None):  # first those that are at work
            place.worker.close(0.0 if place.batch else max(0.0, end - time.monotonic()))

    def _bury_idle(self) -> None:
        """Part with workers that have died while they had no work, so that no segment is lost by them."""
        idle = {number: place.worker for number, place in self._places.items() if place.worker.has_begun}
        for number in self._heard_from(idle, 0.0) if idle else ():
            try:
                idle[number].receive()
            except WorkerLost as loss:
                _log.warning("The worker %s %s, while it had no work.", number, loss)
                self._places.pop(number).worker.close(0.0)

    def _batches(self, tasks: Sequence[Task]) -> list[_Batch]:
        shares: dict[tuple[str, object], list[Task]] = {}
        for task in tasks:
            number = self._share_of.get(task.member_id)
            key = ("alone", task.member_id) if number is None else ("share", number)
            shares.setdefault(key, []).append(task)
        return [_Batch(share) for share in shares.values()]

    def _begin(self, waiting: deque[_Batch]) -> None:
        """Give work to every worker that has none: to each its own share, and members without one to any.

        There are never more workers that have yet to begin than there is work for.
        """
        beginning = sum(not place.worker.has_begun for place in self._places.values())
        for number in range(self._workers):
            place = self._places.get(number)
            if place is None and self._next_for(number, waiting) is not None and beginning < len(waiting):
                place = self._places[number] = _Place(self._hire(number), time.monotonic() + self._BEGINNING)
                beginning += not place.worker.has_begun
            if place is not None and place.batch is None and place.worker.has_begun:
                self._give(number, place, waiting)

    def _give(self, number: int, place: _Place[W], waiting: deque[_Batch]) -> None:
        batch = self._next_for(number, waiting)
        if batch is not None:
            waiting.remove(batch)
            place.batch, place.heard = batch, max(place.heard, time.monotonic())
            place.worker.send(batch.tasks)

    def _next_for(self, number: int, waiting: deque[_Batch]) -> _Batch | None:
        for batch in waiting:
            share = self._share_of.get(batch.tasks[0].member_id)
            if share is None or share % self._workers == number:
                return batch
        return None

    def _finished(self, waiting: deque[_Batch]) -> Iterator[list[Result]]:
        """What has come in within a moment; workers that are lost are replaced."""
        expected = {
            number: place for number, place in self._places.items() if place.batch or not place.worker.has_begun
        }
        ready = self._heard_from({number: place.worker for number, place in expected.items()}, _PAUSE)
        now = time.monotonic()  # whoever takes the results may take its time
        for number, place in expected.items():
            if number in ready:
                yield from self._heard(number, place, waiting)
            elif place.batch and now - place.heard > self._timeout:
                yield from self._replace(number, f"has not been heard of for {self._timeout:g} seconds", waiting)

    def _heard(self, number: int, place: _Place[W], waiting: deque[_Batch]) -> Iterator[list[Result]]:
        try:
            message = place.worker.receive()
        except WorkerLost as loss:
            yield from self._replace(number, str(loss), waiting)
            return
        if isinstance(message, list):
            assert place.batch is not None
            for before in reversed(place.batch.losses):
                what = f"A worker was lost, and its segment was trained again: {before}"
                message = [result.interrupted(what) for result in message]
            place.batch = None
            yield message
            return
        place.heard = time.monotonic()
        if message is None:  # it has begun, and makes what trains with the first segment
            place.heard += self._BEGINNING
        else:
            self._beat(*message)

    def _replace(self, number: int, what: str, waiting: deque[_Batch]) -> Iterator[list[Result]]:
        """Have the segments of a lost worker trained again, alone or not at all where that has been tried enough."""
        place, loss = self._places.pop(number), f"worker {number} {what}"
        place.worker.close(0.0)
        if (batch := place.batch) is None:
            self._never_began(loss)
            return
        members = ", ".join(str(task.member_id) for task in batch.tasks)
        _log.warning("The %s, while it trained member %s.", loss, members)
        losses = (*batch.losses, loss)
        if len(losses) <= self._restarts:
            waiting.appendleft(_Batch(batch.tasks, losses))
        elif len(batch.tasks) > 1:
            waiting.extendleft(_Batch([task]) for task in reversed(batch.tasks))
        else:
            yield [task.failed("; ".join(losses)) for task in batch.tasks]

    def _never_began(self, loss: str) -> None:
        """A worker that had yet to begin is gone: another one is tried."""
        _log.warning("The %s, before it began.", loss)
