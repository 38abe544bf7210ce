"""A member that trains in no time, in a module of its own that a new process imports quickly."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.checkpoint.files import write_file
from everlearn.population.executors.executor import Beat, SegmentRunner
from everlearn.population.files import file_problem
from everlearn.population.segments import Checkpoint, Result, Task

_SCORES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "none": None}
_SAMPLES = 5


class ToyRunner(SegmentRunner):
    """Trains members whose state is a number and a generator: it climbs the faster, the nearer ``rate`` is to 0.1.

    Args:
        directory: Where the states are.
        seconds: That an update takes.
        misfortunes: By member and generation, as ``"3:1"``: ``raise``, ``kill`` or ``hang``, of which the last two
            happen once; or a score, ``nan``, ``inf``, ``-inf`` or ``none``.
    """

    def __init__(self, directory: Path, seconds: float = 0.0, misfortunes: dict[str, str] | None = None) -> None:
        self._directory, self._seconds, self._misfortunes = directory, seconds, misfortunes or {}

    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        """One after the other."""
        return [self._attempted(task, beat) for task in tasks]

    def _attempted(self, task: Task, beat: Beat) -> Result:
        try:
            return self._trained(task, beat)
        except (ValueError, OSError) as error:
            return task.failed(f"{type(error).__name__}: {error}")

    def _trained(self, task: Task, beat: Beat) -> Result:
        height, generator = self._start(task)
        what = self._misfortunes.get(f"{task.member_id}:{task.generation}", "")
        self._suffer(task, what)
        rate = float(task.hyperparams["rate"])
        for update in range(task.updates):
            height += 1.0 / (1.0 + abs(math.log10(rate / 0.1))) + 0.1 * float(generator.normal())
            time.sleep(self._seconds)
            beat(task.member_id, update + 1)
        samples = tuple(height + 0.3 * float(each) for each in generator.normal(size=_SAMPLES))
        checkpoint = self._saved(task, height, generator)
        step, score = task.step + task.updates, _SCORES.get(what, height)
        return Result(task.member_id, task.generation, step, score, samples, checkpoint=checkpoint)

    def _start(self, task: Task) -> tuple[float, np.random.Generator]:
        generator = np.random.default_rng(task.seed)
        if task.copy is not None:
            return self._read(task.copy.checkpoint)["height"], np.random.default_rng(task.copy.seed)
        if task.checkpoint is None:
            return 0.0, generator
        state = self._read(task.checkpoint)
        generator.bit_generator.state = state["generator"]
        return state["height"], generator

    def _read(self, checkpoint: Checkpoint) -> Any:
        problem = file_problem(self._directory, checkpoint)
        if problem is not None:
            raise ValueError(problem)
        return json.loads((self._directory / checkpoint.name).read_bytes())

    def _saved(self, task: Task, height: float, generator: np.random.Generator) -> Checkpoint:
        content = json.dumps({"height": height, "generator": generator.bit_generator.state}).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"member-{task.member_id}-generation-{task.generation}-{sha256[:16]}.json"
        write_file(self._directory / name, [content])
        return Checkpoint(name, sha256, sha256, ("policy",))

    def _suffer(self, task: Task, what: str) -> None:
        once = self._directory / f"suffered-{task.member_id}-{task.generation}"
        if what == "raise":
            raise ValueError("a misfortune")
        if what in ("kill", "hang") and not once.exists():
            once.touch()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)
