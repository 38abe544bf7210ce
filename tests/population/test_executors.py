"""Executors: the same population whoever trains it, and workers that are killed, hang or cannot begin."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from everlearn.population.executors import Executor, Inline, Processes
from everlearn.testing.populations import ExecutorConformance, ToyRunner, history, toy_rules, toy_trainer


class TestInline(ExecutorConformance):
    def make_executor(self, make_runner, members) -> Executor:
        return Inline(make_runner)


class TestProcesses(ExecutorConformance):
    def make_executor(self, make_runner, members) -> Executor:
        return Processes(make_runner, 2)


class TestShares(ExecutorConformance):
    def make_executor(self, make_runner, members) -> Executor:
        return Processes(make_runner, 2, shares=[members[:3], members[3:]])


def run(directory: Path, shares: Sequence[Sequence[int]], misfortunes: dict[str, str], **options):
    trainer = toy_trainer(directory, toy_rules())
    executor = Processes(partial(ToyRunner, directory, misfortunes=misfortunes), 2, shares, **options)
    try:
        assert trainer.run(executor, lambda: False)
    finally:
        executor.close()
    return trainer


@pytest.mark.parametrize("shares", [(), ((0, 1, 2), (3, 4, 5))])
@pytest.mark.parametrize("what", ["kill", "hang"])
def test_row_22_a_worker_that_is_lost_costs_a_segment_and_no_member(tmp_path: Path, shares, what: str) -> None:
    expected = run(tmp_path / "a", shares, {})
    found = run(tmp_path / "b", shares, {"4:1": what}, timeout=3.0)
    assert history(found) == history(expected)
    incidents = [incident for incident in found.population.ledger.incidents if "A worker was lost" in incident.what]
    assert {incident.member_id for incident in incidents} == ({3, 4, 5} if shares else {4})
    assert ("SIGKILL" if what == "kill" else "has not been heard of") in incidents[0].what


def test_row_22_a_member_whose_workers_die_again_and_again_is_replaced(tmp_path: Path) -> None:
    found = run(tmp_path, ((0, 1, 2), (3, 4, 5)), {"4:1": "kill", "5:1": "kill"}, restarts=0)
    events = {event.member_id: event for event in found.population.ledger.events if event.generation == 2}
    assert all(events[member].performance is not None for member in (0, 1, 2, 3))
    assert len(found.population.members) == 6
