"""The process that is killed: it trains a population of toys, new or from its journal, in itself or in workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from everlearn.checkpoint.files import observed
from everlearn.checkpoint.lock import RunLock
from everlearn.population.config import PBTConfig
from everlearn.population.executors import Executor, Inline, Processes
from everlearn.population.trainer import PopulationTrainer
from everlearn.testing.populations import ToyRunner, history, toy_rules, toy_trainer
from tools.crash.writer import READY

KINDS: tuple[Mapping[str, Any], ...] = (
    {},
    {"exploit_method": "k_tournament", "mutate_all": True},
    {"exploit_method": "binary_tournament", "explore_method": "pb2", "metric_mode": "min"},
    {"exploit_method": "t_test", "burn_in": 4, "copied": "weights"},
)
"""The rules of the populations, one after the other."""
MEMBERS = "members"
_MISFORTUNES = {"1:1": "raise", "2:2": "nan", "4:3": "raise"}
_UPDATES = 10
_SECONDS = {False: 0.002, True: 0.02}
"""That an update takes, without and with workers."""


def rules_of(kind: int) -> PBTConfig:
    """The rules of a population."""
    return toy_rules(**KINDS[kind])


def population(directory: Path, kind: int) -> PopulationTrainer:
    """It, as its journal has it."""
    return toy_trainer(directory, rules_of(kind), _UPDATES)


def outcome(trainer: PopulationTrainer) -> list[Any]:
    """What has to be the same at the end: decisions, scores, and every byte of every state."""
    places = trainer.population.places.items()
    return [*history(trainer), *((member_id, place.checkpoint) for member_id, place in places)]


@cache
def undisturbed(kind: int) -> list[Any]:
    """What a population comes to that nobody kills."""
    with TemporaryDirectory() as folder:
        trainer = population(Path(folder), kind)
        trainer.run(_executor(Path(folder), has_workers=False), lambda: False)
        return outcome(trainer)


def control(directory: Path, kind: int, has_workers: bool, said: int, point: str, skipped: int) -> None:
    """Train the population to its end, or until this process kills itself before an operation.

    Args:
        directory: The population's.
        kind: By which rules.
        has_workers: Whether it is trained in processes of their own.
        said: Descriptor of a pipe on which the beginning is told.
        point: Name of the operation; an empty one for none.
        skipped: So many of that name are let through.
    """
    os.setsid()  # the workers will be of this session, by which they are found
    left = skipped

    def hook(name: str, path: Path) -> None:
        nonlocal left
        if name == point:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    with RunLock(directory), observed(hook):
        os.write(said, READY)
        trainer = population(directory, kind)
        with closing(_executor(directory, has_workers=has_workers)) as executor:
            trainer.run(executor, lambda: False)


def _executor(directory: Path, *, has_workers: bool) -> Executor:
    make = partial(ToyRunner, seconds=_SECONDS[has_workers], misfortunes=_MISFORTUNES)
    return Processes(make, directory, 2) if has_workers else Inline(make, directory)
