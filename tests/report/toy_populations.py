"""Populations of toys that have taken environment steps and logged something, for everything that shows populations."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from everlearn.population.config import PBTConfig
from everlearn.population.executors import Beat, Inline, SegmentRunner
from everlearn.population.segments import Result, Task
from everlearn.population.space import HyperparamConfig
from everlearn.population.trainer import PopulationTrainer, Watcher
from everlearn.testing.populations import RATE, ToyRunner, toy_trainer

SPACE = (
    RATE,
    HyperparamConfig("ent_coef", 1e-4, 0.1, is_log_scale=True),
    HyperparamConfig("gamma", 0.9, 0.9999, scale="one_minus"),
    HyperparamConfig("batch_size", 16, 256, divides=256),
)
STEPS = 64
"""Environment steps of an update."""


class LoggingRunner(SegmentRunner):
    """Toys with a record for each update and environment steps; a lost worker where ``interruptions`` says so."""

    def __init__(self, misfortunes: dict[str, str], interruptions: Sequence[str], directory: Path) -> None:
        self._toys, self._interruptions = ToyRunner(directory, misfortunes=misfortunes), interruptions

    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        return [self._logged(task, result) for task, result in zip(tasks, self._toys.run(tasks, beat), strict=True)]

    def _logged(self, task: Task, result: Result) -> Result:
        if f"{task.member_id}:{task.generation}" in self._interruptions:
            result = result.interrupted("A worker was lost: worker 0 was killed")
        if result.error is not None:
            return replace(result, error=f"Traceback (most recent call last):\n  File ...\n{result.error}")
        steps = range(task.step + 1, task.step + task.updates + 1)
        records = tuple(
            {"step": STEPS * step, "critics/disagreement": 0.5 / step, "train/loss": float("nan")} for step in steps
        )
        if result.checkpoint is not None:
            checkpoint = replace(result.checkpoint, parts=("policy", "vgs_state"))
            result = replace(result, checkpoint=checkpoint)
        return replace(result, env_steps=STEPS * task.updates, seconds=0.25 * task.updates, records=records)


def rules(size: int = 6, **other: Any) -> PBTConfig:
    """With an interval of two updates."""
    return PBTConfig(
        size, **{"perturbation_interval": 2, "hyperparams": SPACE, "checkpoint_dir": None, "burn_in": 0, **other}
    )


def trained(
    directory: Path,
    config: PBTConfig,
    updates: int = 10,
    misfortunes: dict[str, str] | None = None,
    *,
    watcher: Watcher | None = None,
    beat: Beat = lambda member_id, updates: None,
    stopped: Callable[[], bool] = lambda: False,
    interruptions: Sequence[str] = (),
) -> PopulationTrainer:
    """A population of toys that was trained until it was stopped, or to its end; one that is there goes on."""
    trainer = toy_trainer(directory, config, updates)
    make = partial(LoggingRunner, misfortunes or {}, interruptions)
    trainer.run(Inline(make, directory, beat), stopped, watcher)
    return trainer
