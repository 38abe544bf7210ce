"""Kills at random times: one directory in which writer after writer is killed, and looked at each time."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from everlearn.checkpoint.archive import read_archive
from everlearn.checkpoint.errors import CheckpointError
from everlearn.checkpoint.files import DRAFT, sweep
from everlearn.checkpoint.store import CheckpointStore
from tools.crash.writer import CHECKPOINTS, MODEL, READY, RETENTION, Writer, performance_of, save_forever, step_of

LONGEST = 0.030
"""Seconds a writer may live at most."""
Fork = multiprocessing.get_context("fork")


@dataclass
class Victims:
    """Writers in one directory, one after the other.

    Args:
        directory: Where; empty at first.
        writer: What they do.
    """

    directory: Path
    writer: Writer = save_forever
    next_step: int = 1
    saves: int = 0
    swept: int = 0
    acknowledged: dict[str, int] = field(default_factory=dict)
    best: float = 0.0

    def kill_one(self, generator: random.Random) -> list[str]:
        """Start a writer, kill it, and look.

        Returns:
            What is lost or damaged.
        """
        heard, said = os.pipe()
        process = Fork.Process(target=self.writer, args=(self.directory, self.next_step, said))
        process.start()
        os.close(said)
        with os.fdopen(heard) as lines:
            ready = lines.readline()
            time.sleep(generator.uniform(0, LONGEST))
            process.kill()
            process.join()
            acknowledged = [line.split() for line in lines]
        if ready.encode() != READY or process.exitcode != -signal.SIGKILL:
            return [f"the writer did not start, or ended by itself ({process.exitcode})"]
        self._remember(acknowledged)
        return self._lost()

    def _remember(self, acknowledged: list[list[str]]) -> None:
        self.saves += len(acknowledged)
        for file, step in acknowledged:
            self.acknowledged[file] = int(step)
            if file == "store":
                self.best = max(self.best, performance_of(int(step)))

    def _lost(self) -> list[str]:
        store = CheckpointStore(self.directory / CHECKPOINTS, RETENTION)
        problems = self._model_lost() + self._store_lost(store)
        drafts = [path for path in self.directory.rglob(f"{DRAFT}*") if path.is_file()]
        self.swept += len([*sweep(self.directory), *store.sweep()])
        left = [path.name for path in drafts if path.exists()]
        steps = [checkpoint.step for checkpoint in store.checkpoints()]
        self.next_step = max([self.next_step, *self.acknowledged.values(), *steps]) + 1
        return [*problems, *(f"{name} is left over" for name in left)]

    def _model_lost(self) -> list[str]:
        path = self.directory / MODEL
        if "model" not in self.acknowledged and not path.exists():
            return []
        try:
            step = step_of(read_archive(path))
        except (CheckpointError, FileNotFoundError) as error:
            return [f"the model is lost: {error}"]
        return _too_old("model", step, self.acknowledged.get("model", 0))

    def _store_lost(self, store: CheckpointStore) -> list[str]:
        if not store.checkpoints() and "store" not in self.acknowledged:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning says that a damaged file was passed over
            try:
                latest, best = store.latest(), store.best()
            except (CheckpointError, UserWarning) as error:
                return [f"a checkpoint is lost: {error}"]
        problems = _too_old("checkpoint", step_of(latest.archive), self.acknowledged.get("store", 0))
        if (best.checkpoint.performance or 0.0) < self.best:
            problems.append(f"the best checkpoint is lost: {best.checkpoint.performance} instead of {self.best}")
        return problems


def _too_old(what: str, step: int | None, acknowledged: int) -> list[str]:
    if step is None:
        return [f"the {what} holds something else than was saved"]
    return [f"the {what} is of step {step}, {acknowledged} was acknowledged"] if step < acknowledged else []
