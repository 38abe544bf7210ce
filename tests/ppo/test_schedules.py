"""Schedules: what they are worth, and that they are data."""

from __future__ import annotations

import math
from typing import Any

import pytest
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.ppo.schedules import Cosine, Linear, Piecewise, schedule_data, schedule_from


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (0.5, [0.5, 0.5, 0.5, 0.5, 0.5]),
        ("lin_0.8", [0.8, 0.6, 0.4, 0.2, 0.0]),
        ({"kind": "constant", "val": 0.5}, [0.5, 0.5, 0.5, 0.5, 0.5]),
        ({"kind": "linear", "start": 1.0, "end": 0.5, "end_fraction": 0.5}, [1.0, 0.75, 0.5, 0.5, 0.5]),
        ({"kind": "cosine", "start": 1.0}, [1.0, 0.8535533906, 0.5, 0.1464466094, 0.0]),
        ({"kind": "cosine", "start": 2.0, "end": 1.0, "end_fraction": 0.5}, [2.0, 1.5, 1.0, 1.0, 1.0]),
        ({"kind": "piecewise", "points": [[0.25, 1.0], [0.75, 3.0]]}, [1.0, 1.0, 2.0, 3.0, 3.0]),
        ({"kind": "piecewise", "points": [[0.5, 7.0]]}, [7.0] * 5),
        (lambda progress: progress**2, [1.0, 0.5625, 0.25, 0.0625, 0.0]),
    ],
)
def test_values_at_quarters_of_training(spec: Any, values: list[float]) -> None:
    schedule = schedule_from(spec)
    assert [schedule(1 - quarter / 4) for quarter in range(5)] == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize("schedule", [Linear(1.0, 0.25), Cosine(1.0, 0.25), Piecewise([(0.0, 1.0), (1.0, 0.25)])])
def test_before_the_beginning_and_after_the_end_the_values_there_hold(schedule: Any) -> None:
    """SB3's last rollout may end beyond the total, where the remaining progress is below 0."""
    assert schedule(-0.01) == 0.25
    assert schedule(1.0) == 1.0


@pytest.mark.parametrize(
    "schedule",
    [3e-4, Linear(1e-3, 1e-4, 0.5), Cosine(1e-3, 1e-5), Piecewise([(0.0, 1.0), (0.5, 0.3), (1.0, 0.1)])],
)
def test_a_schedule_is_data_and_comes_back_equal_from_it(schedule: Any) -> None:
    data = schedule_data(schedule)
    again = schedule_from(data)  # type: ignore[arg-type]
    original = schedule_from(schedule)
    assert schedule_data(again) == data
    assert [again(p / 7) for p in range(8)] == [original(p / 7) for p in range(8)]


def test_sb3s_own_schedules_are_data_too_and_functions_are_not() -> None:
    linear = LinearSchedule(1.0, 0.1, 0.5)
    assert schedule_data(FloatSchedule(linear)) == {"kind": "linear", "start": 1.0, "end": 0.1, "end_fraction": 0.5}
    assert schedule_data(FloatSchedule(FloatSchedule(0.3))) == schedule_data(ConstantSchedule(0.3)) == 0.3
    assert schedule_data("lin_2") == {"kind": "linear", "start": 2.0, "end": 0.0, "end_fraction": 1.0}
    assert schedule_data(math.sqrt) is None


@pytest.mark.parametrize("spec", ["fast", "lin_", "lin_nan", None, True, [1.0]])
def test_anything_else_is_refused_with_its_name(spec: Any) -> None:
    with pytest.raises(ArgumentError, match="learning_rate="):
        schedule_from(spec, "learning_rate")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"kind": "cosin", "start": 1.0}, "Did you mean 'cosine'"),
        ({"kind": "linear", "begin": 1.0}, "unknown key"),
        ({"kind": "cosine", "start": 1.0, "end_fraction": 0.0}, "end_fraction"),
        ({"kind": "linear", "start": 1.0, "end_fraction": 1.5}, "end_fraction"),
        ({"kind": "piecewise", "points": [[0.5, 1.0], [0.5, 2.0]]}, "shares rise"),
        ({"kind": "piecewise", "points": [[0.5, 1.0], [1.5, 2.0]]}, "shares rise"),
        ({"kind": "piecewise", "points": []}, "shares rise"),
        ({"start": 1.0}, "'kind'"),
    ],
)
def test_a_mapping_that_makes_no_schedule_is_refused_and_says_why(spec: Any, complaint: str) -> None:
    with pytest.raises((ConfigError, ArgumentError), match=complaint):
        schedule_from(spec)


def test_a_piecewise_schedule_is_exact_at_its_points() -> None:
    schedule = Piecewise([(0.0, 0.0), (0.05, 3e-4), (1.0, 0.0)])
    assert (schedule(1.0), schedule(0.0)) == (0.0, 0.0)
    assert min(schedule(step / 200) for step in range(201)) == 0.0
