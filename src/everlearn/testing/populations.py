"""A population of members that train in no time, and what every executor has to do with it.

Subclass ``ExecutorConformance`` in a test module of yours::

    class TestMyExecutor(ExecutorConformance):
        def make_executor(self, make_runner, directory, members):
            return MyExecutor(make_runner, directory)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from everlearn.population.config import PBTConfig
from everlearn.population.executors import Executor, Inline, MakeRunner
from everlearn.population.files import drop_all_but, file_problem
from everlearn.population.members import MemberId
from everlearn.population.segments import plain_number
from everlearn.population.space import HyperparamConfig
from everlearn.population.store import FILE, PopulationStore
from everlearn.population.trainer import PopulationTrainer
from everlearn.testing.toy_runner import ToyRunner

__all__ = ["RATE", "ExecutorConformance", "ToyRunner", "history", "toy_rules", "toy_trainer"]

RATE = HyperparamConfig("rate", 1e-3, 1.0, is_log_scale=True)


def toy_rules(size: int = 6, **rules: Any) -> PBTConfig:
    """The rules of a population of toys."""
    return PBTConfig(size, **{"perturbation_interval": 2, "hyperparams": [RATE], "checkpoint_dir": None, **rules})


def toy_trainer(directory: Path, rules: PBTConfig, updates: int = 10, seed: int = 0) -> PopulationTrainer:
    """A population of toys in a directory, new or as its journal has it."""
    directory.mkdir(parents=True, exist_ok=True)
    store = PopulationStore(directory / FILE)
    keep = partial(drop_all_but, directory)
    trainer = PopulationTrainer(rules, store, updates, partial(file_problem, directory), seed, keep=keep)
    weakref.finalize(trainer, store.close)
    return trainer


def history(trainer: PopulationTrainer) -> list[tuple[Any, ...]]:
    """What was decided, and every score at the end: what has to be the same whoever trained."""
    events = [
        (
            event.member_id,
            event.generation,
            event.step,
            plain_number(event.performance),
            event.source_id,
            dict(event.hyperparams),
        )
        for event in trainer.population.ledger.events
    ]
    members = trainer.population.members
    return [*events, *((member.member_id, member.step, plain_number(member.performance)) for member in members)]


_MISFORTUNES = {"1:0": "raise", "2:1": "nan", "4:2": "raise"}


@cache
def _expected() -> list[tuple[Any, ...]]:
    """What the plainest of executors comes to."""
    with TemporaryDirectory() as folder:
        trainer = toy_trainer(Path(folder), toy_rules())
        trainer.run(Inline(partial(ToyRunner, misfortunes=_MISFORTUNES), Path(folder)), lambda: False)
        return history(trainer)


class ExecutorConformance:
    """What every executor does."""

    def make_executor(self, make_runner: MakeRunner, directory: Path, members: Sequence[MemberId]) -> Executor:
        """The executor under test, with two workers where it has such."""
        raise NotImplementedError

    def trained(self, directory: Path, stopped: Callable[[PopulationTrainer], bool]) -> PopulationTrainer:
        """A population of toys, trained by it to the end or until it is stopped."""
        trainer = toy_trainer(directory, toy_rules())
        make, members = partial(ToyRunner, misfortunes=_MISFORTUNES), trainer.population.members
        with closing(self.make_executor(make, directory, [member.member_id for member in members])) as executor:
            assert trainer.run(executor, lambda: stopped(trainer)) == trainer.population.is_over
        return trainer

    def test_it_comes_to_the_same_decisions_and_scores(self, tmp_path: Path) -> None:
        """From the same seed, whoever trains; a member that fails takes over a healthy one and harms nobody."""
        trainer = self.trained(tmp_path, lambda trainer: False)
        assert history(trainer) == _expected()
        began, rescued, *_ = (event for event in trainer.population.ledger.events if event.member_id == 1)
        assert (began.source_id, rescued.performance) == (None, None)
        assert rescued.source_id is not None
        assert trainer.population.ledger.member(1).performance is not None

    def test_it_stops_where_it_is_told_to_and_goes_on_later(self, tmp_path: Path) -> None:
        """What was given up is trained again, to the same end."""
        stopped = self.trained(tmp_path, lambda trainer: bool(trainer.population.results))
        assert not stopped.population.is_over
        assert history(self.trained(tmp_path, lambda trainer: False)) == _expected()
