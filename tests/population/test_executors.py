"""Executors: the same population whoever trains it, and workers that are killed, hang or cannot begin."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from everlearn.population.executors import Executor, Inline, Processes
from everlearn.population.segments import Task
from everlearn.population.trainer import PopulationTrainer
from everlearn.testing.populations import ExecutorConformance, ToyRunner, history, toy_rules, toy_trainer

SHARES = ((0, 1, 2), (3, 4, 5))


class TestInline(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Inline(make_runner, directory)


class TestProcesses(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Processes(make_runner, directory, 2)


class TestShares(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Processes(make_runner, directory, 2, shares=[members[:3], members[3:]])


def run(
    directory: Path, shares: Sequence[Sequence[int]], misfortunes: dict[str, str], updates: int = 6, **options
) -> PopulationTrainer:
    trainer = toy_trainer(directory, toy_rules(), updates)
    make = partial(ToyRunner, misfortunes=misfortunes)
    with closing(Processes(make, directory, 2, shares, **options)) as executor:
        assert trainer.run(executor, lambda: False)
    return trainer


@pytest.mark.parametrize(("shares", "hung"), [((), ""), (SHARES, "2:2")])
def test_row_22_a_worker_that_is_lost_costs_a_segment_and_no_member(tmp_path: Path, shares, hung: str) -> None:
    undisturbed = toy_trainer(tmp_path / "a", toy_rules(), 6)
    undisturbed.run(Inline(ToyRunner, tmp_path / "a"), lambda: False)
    found = run(tmp_path / "b", shares, {"4:1": "kill", hung: "hang"}, timeout=2.0)
    assert history(found) == history(undisturbed)
    lost = [incident for incident in found.population.ledger.incidents if "A worker was lost" in incident.what]
    killed = [incident.member_id for incident in lost if "was ended by SIGKILL" in incident.what]
    silent = [incident.member_id for incident in lost if "has not been heard of for 2 seconds" in incident.what]
    assert (sorted(killed), sorted(silent)) == (([3, 4, 5], [0, 1, 2]) if shares else ([4], []))


def test_row_22_a_member_whose_workers_die_again_and_again_is_replaced(tmp_path: Path) -> None:
    found = run(tmp_path, SHARES, {"4:1": "kill", "5:1": "kill"}, restarts=0)
    events = {event.member_id: event for event in found.population.ledger.events if event.generation == 2}
    assert {member for member, event in events.items() if event.performance is None} == {5}
    assert events[5].source_id is not None
    (failure,) = (each.what for each in found.population.ledger.incidents if "It has failed" in each.what)
    assert "was ended by SIGKILL" in failure


def test_what_was_given_up_half_way_is_nobodys_result_later(tmp_path: Path) -> None:
    tasks = [Task(member, 0, 0, 1, member, {"rate": 0.1}) for member in range(3)]
    with closing(Processes(partial(ToyRunner, misfortunes={"1:0": "hang"}), tmp_path, 2, timeout=3.0)) as executor:
        given_up = executor.run_segments(tasks[:2], lambda: False)
        assert [result.member_id for result in next(given_up)] == [0]
        results = [result.member_id for batch in executor.run_segments(tasks[2:], lambda: False) for result in batch]
        assert results == [2]


def test_a_worker_begins_quickly() -> None:
    """Without torch, where what it trains needs none."""
    program = (
        "import sys, everlearn.population.trainer, everlearn.population.executors, everlearn.testing.toy_runner;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pydantic', 'pytest')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
