"""Segments trained by Ray actors, on all machines of a cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from everlearn.core.errors import EverlearnError
from everlearn.population.executors.executor import Beat, MakeRunner
from everlearn.population.executors.pool import Pool
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.population.segments import Result, Task

if TYPE_CHECKING:
    from everlearn.population.executors.ray_worker import RayWorker, Storage

_log = logging.getLogger(__name__)
_REMINDER = 30.0
"""Seconds for which no machine has had room for a worker after which that is said, for the first time and again."""


_BREATH = 1.0
"""Seconds from a worker that could not begin to the next."""


@dataclass(frozen=True)
class Placement:
    """What each worker needs, and where it goes; the names are Ray's.

    Attributes:
        num_cpus: Cores that are set aside for it.
        num_gpus: GPUs, or a share of one.
        memory: Bytes that are set aside for it.
        resources: Others, by the names that machines declare.
        scheduling_strategy: Spread over all machines, or, with DEFAULT, one machine filled by half before the next.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    scheduling_strategy: Literal["SPREAD", "DEFAULT"] = "SPREAD"

    def needs(self) -> dict[str, float]:
        """By the names that machines have them by."""
        needs = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": float(self.memory or 0), **self.resources}
        return {name: number for name, number in needs.items() if number}

    def options(self) -> dict[str, Any]:
        """As an actor has them. Ray restarts nothing by itself: the pool does, and enters it in the journal."""
        memory = {} if self.memory is None else {"memory": self.memory}
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "resources": dict(self.resources),
            "scheduling_strategy": self.scheduling_strategy,
            "max_restarts": 0,
            "max_task_retries": 0,
            **memory,
        }


@final
class Ray(Pool["RayWorker"]):
    """Trains by actors on a Ray cluster; machines may come and go.

    A worker that no machine has room for yet waits, and gets its work where there is room. What was at work on a
    machine that is lost is trained again on another one. No decision is Ray's: the journal's owner is this process.

    Args:
        make_runner: Makes what trains, in each actor.
        directory: Where the members' files are.
        workers: Actors at most.
        cluster: Where; closed with the executor.
        placement: What each of them needs.
        storage: ``shared``: all machines see ``directory``; ``object_store``: members' files travel through Ray;
            ``auto``: they do to workers that do not see it.
        timeout: Seconds without a sign of life after which a worker counts as hung.
        restarts: How often segments are tried again.
        patience: Seconds without a single worker after which it is given up.
        beat: Told how far each segment is.

    Raises:
        ConfigError: While it trains, if a machine has another version of everlearn, torch or numpy, or does not see
            the directory that it has to.
        EverlearnError: While it trains, if no worker ever begins.
    """

    def __init__(
        self,
        make_runner: MakeRunner,
        directory: Path,
        workers: int,
        *,
        cluster: RayCluster,
        placement: Placement | None = None,
        storage: Storage = "auto",
        timeout: float = 300.0,
        restarts: int = 2,
        patience: float = 600.0,
        beat: Beat = lambda member_id, updates: None,
    ) -> None:
        from everlearn.population.executors.ray_worker import Files, RayWorker

        super().__init__(workers, (), timeout=timeout, restarts=restarts, beat=beat)
        self._make_runner, self._cluster, self._patience = make_runner, cluster, patience
        self._placement, self._worker = placement or Placement(), RayWorker
        with ExitStack() as undo:
            undo.callback(cluster.close)
            self._files = Files(directory.resolve(), storage)
            undo.pop_all()
        self._failures: list[str] = []
        self._waits_since: float | None = None
        self._next_reminder = _REMINDER

    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        """Side by side, on all machines."""
        self._files.forget()
        self._waits_since = None
        yield from super().run_segments(tasks, stopped)

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        with ExitStack() as stack:
            stack.callback(self._cluster.close)
            stack.callback(self._files.close)
            super().close()

    def _hire(self, number: int) -> RayWorker:
        return self._worker(self._placement.options(), self._make_runner, self._files)

    def _heard_from(self, workers: Mapping[int, RayWorker], seconds: float) -> Collection[int]:
        ray, waited_for = self._cluster.ray, {number: worker.references() for number, worker in workers.items()}
        references = [each for own in waited_for.values() for each in own]
        ray.wait(references, timeout=seconds)
        ready = set(ray.wait(references, num_returns=len(references), timeout=0)[0])
        if any(worker.has_begun for worker in workers.values()):
            self._failures, self._waits_since, self._next_reminder = [], None, _REMINDER
        else:
            self._look_for_room()
        return [number for number, own in waited_for.items() if not ready.isdisjoint(own)]

    def _look_for_room(self) -> None:
        """Say it where no worker has begun for long.

        Raises:
            EverlearnError: Where none has for as long as one is waited for.
        """
        self._waits_since = self._waits_since or time.monotonic()
        waited = time.monotonic() - self._waits_since
        if waited < min(self._next_reminder, self._patience):
            return
        self._next_reminder += _REMINDER
        all_there_is = self._cluster.resources()
        needs = [f"{name} {n:g} of {all_there_is.get(name, 0):g}" for name, n in self._placement.needs().items()]
        what = (
            f"No worker has begun on the Ray cluster {self._cluster.address} for {waited:.0f} seconds. It needs "
            f"{', '.join(needs) or 'nothing'} that all machines together have."
        )
        if waited >= self._patience:
            raise EverlearnError(f"{what} Add a machine, free some, or ask for less in population.ray.")
        _log.warning("%s It is waited for.", what)

    def _never_began(self, loss: str) -> None:
        """A worker is gone before it began; where that happens again and again, nothing will come of it.

        Raises:
            EverlearnError: With what was said of each.
        """
        super()._never_began(loss)
        self._failures.append(loss)
        time.sleep(_BREATH)
        if len(self._failures) > self._restarts + self._workers:
            raise EverlearnError("Ray cannot start workers:\n  " + "\n  ".join(dict.fromkeys(self._failures)))
