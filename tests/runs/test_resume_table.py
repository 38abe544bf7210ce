"""Trainings that are killed and resumed: three cells of the table that ``make resume-table`` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.resume_table import Cell, run_cell


@pytest.mark.parametrize(
    "cell",
    [
        Cell("CartPole-v1", False, "synchronous", "PPO", False),
        Cell("Hopper-v5", True, "synchronous", "DistributionalPPO", False),
        Cell("Pendulum-v1", True, "subprocess", "PPO", False),
    ],
    ids=lambda cell: cell.name,
)
def test_a_killed_training_that_is_resumed_equals_one_that_was_not(cell: Cell, tmp_path: Path) -> None:
    assert run_cell(cell, tmp_path).different == []


@pytest.mark.slow
def test_ten_kills_in_one_training_give_the_same_end(tmp_path: Path) -> None:
    cell = Cell("CartPole-v1", True, "synchronous", "DistributionalPPO", False, iterations=14)
    result = run_cell(cell, tmp_path, kills=10)
    assert (result.different, len(result.kills)) == ([], 10)
