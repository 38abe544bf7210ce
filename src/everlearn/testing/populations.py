"""A member that trains in no time, and what every executor has to do with it.

Subclass ``ExecutorConformance`` in a test module of yours::

    class TestMyExecutor(ExecutorConformance):
        def make_executor(self, make_runner, members):
            return MyExecutor(make_runner)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everlearn.checkpoint.files import write_file
from everlearn.population.config import PBTConfig
from everlearn.population.executors import Beat, Executor, Inline, MakeRunner, SegmentRunner
from everlearn.population.members import MemberId
from everlearn.population.segments import Checkpoint, Result, Task
from everlearn.population.space import HyperparamConfig
from everlearn.population.store import PopulationStore
from everlearn.population.trainer import PopulationTrainer


class ToyRunner(SegmentRunner):
    """Trains members whose state is a number and a generator: it climbs the faster, the nearer ``rate`` is to 0.1.

    Args:
        directory: Where the states are.
        seconds: That an update takes.
        misfortunes: By member and generation, as ``"3:1"``: ``raise``, ``nan``, ``kill`` or ``hang``; the last two
            happen once.
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
        self._suffer(task)
        rate = float(task.hyperparams["rate"])
        for update in range(task.updates):
            height += 1.0 / (1.0 + abs(math.log10(rate / 0.1))) + 0.1 * float(generator.normal())
            time.sleep(self._seconds)
            beat(task.member_id, update + 1)
        nan = self._misfortunes.get(f"{task.member_id}:{task.generation}") == "nan"
        checkpoint = self._saved(task, height, generator)
        step = task.step + task.updates
        return Result(task.member_id, task.generation, step, math.nan if nan else height, checkpoint=checkpoint)

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
        content = (self._directory / checkpoint.name).read_bytes()
        if hashlib.sha256(content).hexdigest() != checkpoint.sha256:
            raise ValueError(f"{checkpoint.name} is damaged")
        return json.loads(content)

    def _saved(self, task: Task, height: float, generator: np.random.Generator) -> Checkpoint:
        content = json.dumps({"height": height, "generator": generator.bit_generator.state}).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"member-{task.member_id}-generation-{task.generation}-{sha256[:16]}.json"
        write_file(self._directory / name, [content])
        return Checkpoint(name, sha256, sha256, ("policy",))

    def _suffer(self, task: Task) -> None:
        what = self._misfortunes.get(f"{task.member_id}:{task.generation}")
        once = self._directory / f"suffered-{task.member_id}-{task.generation}"
        if what == "raise":
            raise ValueError("a misfortune")
        if what in ("kill", "hang") and not once.exists():
            once.touch()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)


RATE = HyperparamConfig("rate", 1e-3, 1.0, is_log_scale=True)


def toy_rules(size: int = 6, **rules: Any) -> PBTConfig:
    """The rules of a population of toys."""
    return PBTConfig(size, perturbation_interval=2, hyperparams=[RATE], checkpoint_dir=None, **rules)


def file_problem(directory: Path, checkpoint: Checkpoint) -> str | None:
    """Why a toy's state cannot be taken over."""
    try:
        content = (directory / checkpoint.name).read_bytes()
    except OSError as error:
        return str(error.strerror)
    return None if hashlib.sha256(content).hexdigest() == checkpoint.sha256 else "it is damaged"


def toy_trainer(directory: Path, rules: PBTConfig, updates: int = 10, seed: int = 0) -> PopulationTrainer:
    """A population of toys in a directory, new or as its journal has it."""
    directory.mkdir(parents=True, exist_ok=True)
    store = PopulationStore(directory / "population.sqlite")
    return PopulationTrainer(rules, store, updates, partial(file_problem, directory), seed)


def history(trainer: PopulationTrainer) -> list[tuple[Any, ...]]:
    """What was decided, and every score at the end: what has to be the same whoever trained."""
    events = [
        (event.member_id, event.generation, event.step, event.performance, event.source_id, dict(event.hyperparams))
        for event in trainer.population.ledger.events
    ]
    return [*events, *((member.member_id, member.step, member.performance) for member in trainer.population.members)]


class ExecutorConformance:
    """What every executor does."""

    def make_executor(self, make_runner: MakeRunner, members: Sequence[MemberId]) -> Executor:
        """The executor under test, with two workers where it has such."""
        raise NotImplementedError

    def trained(
        self, directory: Path, rules: PBTConfig, misfortunes: dict[str, str] | None = None
    ) -> PopulationTrainer:
        """A population of toys, trained by it to its end."""
        trainer = toy_trainer(directory, rules)
        make = partial(ToyRunner, directory, misfortunes=misfortunes)
        executor = self.make_executor(make, [member.member_id for member in trainer.population.members])
        try:
            assert trainer.run(executor, lambda: False)
        finally:
            executor.close()
        return trainer

    @pytest.fixture
    def expected(self, tmp_path: Path) -> list[tuple[Any, ...]]:
        """What the plainest of them comes to."""
        trainer = toy_trainer(tmp_path / "inline", toy_rules())
        trainer.run(Inline(partial(ToyRunner, tmp_path / "inline")), lambda: False)
        return history(trainer)

    def test_it_comes_to_the_same_decisions_and_scores(self, tmp_path: Path, expected: Any) -> None:
        """From the same seed, whoever trains."""
        assert history(self.trained(tmp_path / "own", toy_rules())) == expected

    def test_a_member_that_fails_takes_over_a_healthy_one_and_harms_nobody(self, tmp_path: Path) -> None:
        """It is part of the population afterwards."""
        trainer = self.trained(tmp_path, toy_rules(), {"1:0": "raise"})
        events = [event for event in trainer.population.ledger.events if event.member_id == 1]
        assert events[1].source_id is not None
        assert events[1].performance is None
        assert trainer.population.ledger.member(1).performance is not None

    def test_it_stops_where_it_is_told_to(self, tmp_path: Path) -> None:
        """And goes on later."""
        trainer = toy_trainer(tmp_path, toy_rules())
        executor = self.make_executor(
            partial(ToyRunner, tmp_path), [member.member_id for member in trainer.population.members]
        )
        assert not trainer.run(executor, lambda: True)
        executor.close()
        again = toy_trainer(tmp_path, toy_rules())
        executor = self.make_executor(
            partial(ToyRunner, tmp_path), [member.member_id for member in again.population.members]
        )
        assert again.run(executor, lambda: False)
        executor.close()
