"""Schedules as data: a number, ``lin_x``, or a mapping such as ``{"kind": "cosine", "start": 3e-4}``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from everlearn.core.errors import ArgumentError, StateError, require_in_range
from everlearn.core.registry import Registry

Schedule = Callable[[float], float]
"""A function of the remaining progress, 1 at the beginning of training and 0 at its end."""
ScheduleSpec = float | str | Mapping[str, Any] | Schedule
"""What stands for a schedule: a number, ``"lin_x"``, a ``{"kind": ...}`` mapping or a function."""

schedules: Registry[Any] = Registry("schedule")
schedules.add("constant", ConstantSchedule)

_PREFIX = "lin_"


def linear_start(text: str) -> float:
    """The ``x`` of a schedule written ``lin_x``, which falls linearly from x to 0; NaN for any other text."""
    try:
        return float(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else math.nan
    except ValueError:
        return math.nan


@schedules.register("linear")
class Linear(LinearSchedule):
    """From ``start`` to ``end`` in a straight line, then ``end``: SB3's schedule with the usual end.

    Args:
        start: Value at the beginning.
        end: Value from ``end_fraction`` of training on.
        end_fraction: Share of training after which the end is reached, in (0, 1].
    """

    def __init__(self, start: float, end: float = 0.0, end_fraction: float = 1.0) -> None:
        require_in_range("end_fraction", end_fraction, 0, 1, open_low=True)
        super().__init__(start, end, end_fraction)


@schedules.register("cosine")
class Cosine:
    """``end + (start - end) * (1 + cos(pi * t)) / 2``, ``t`` the share of ``end_fraction`` that has passed.

    Args:
        start: Value at the beginning.
        end: Value from ``end_fraction`` of training on.
        end_fraction: Share of training after which the end is reached, in (0, 1].

    Source: Loshchilov & Hutter 2017, "SGDR", equation 5 without restarts.
    """

    def __init__(self, start: float, end: float = 0.0, end_fraction: float = 1.0) -> None:
        require_in_range("end_fraction", end_fraction, 0, 1, open_low=True)
        self.start = start
        self.end = end
        self.end_fraction = end_fraction

    def __call__(self, progress_remaining: float) -> float:
        """The value now."""
        passed = min(max(1 - progress_remaining, 0.0) / self.end_fraction, 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * passed)) / 2


@schedules.register("piecewise")
class Piecewise:
    """Straight lines between points; before the first and after the last point the value stays.

    Args:
        points: Pairs of the share of training that has passed, in [0, 1] and rising, and the value there.
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        shares = [share for share, _ in points]
        if not points or shares != sorted(set(shares)) or not 0 <= shares[0] <= shares[-1] <= 1:
            raise ArgumentError(
                f"points={list(points)!r}: give pairs (share of training, value) whose shares rise within [0, 1]."
            )
        self.points = [(float(share), float(value)) for share, value in points]

    def __call__(self, progress_remaining: float) -> float:
        """The value now."""
        passed = 1 - progress_remaining
        (before, value), *later = self.points
        for share, target in later:
            if passed <= share:
                gone = max(passed - before, 0.0) / (share - before)
                return value * (1 - gone) + target * gone  # exact at either end
            before, value = share, target
        return value


class LostSchedule:
    """What stands for a schedule that was a function when its model was saved: its last value, and its name.

    Args:
        function: The function's name.
        value: Its value when the model was saved.
    """

    def __init__(self, function: str, value: float) -> None:
        self.__name__ = function
        self.value = value

    def __call__(self, progress_remaining: float) -> float:
        """The last value, whatever the progress."""
        return self.value


def require_none_lost(schedules_by_argument: Mapping[str, Any]) -> None:
    """Refuse to train by a schedule that is lost.

    Raises:
        StateError: Naming the argument and the function.
    """
    for name, schedule in schedules_by_argument.items():
        function = getattr(schedule, "value_schedule", schedule)
        if isinstance(function, LostSchedule):
            raise StateError(
                f"{name} was the function '{function.__name__}' when the model was saved, which no file can hold. Load "
                f"it with custom_objects={{{name!r}: ...}}, or assign model.{name} before training."
            )


def schedule_from(spec: ScheduleSpec, name: str = "schedule") -> FloatSchedule:
    """The schedule that a specification stands for, in SB3's wrapper.

    Args:
        spec: A number, ``"lin_x"``, a ``{"kind": ...}`` mapping, or a function of the remaining progress.
        name: Of the argument, for messages.

    Raises:
        ArgumentError: If it is none of these.
        ConfigError: For an unknown kind or argument of a mapping.
    """
    if isinstance(spec, str):
        start = linear_start(spec)
        if not math.isfinite(start):
            raise ArgumentError(f"{name}={spec!r} is no schedule. Write 'lin_x' to go from x to 0, or a mapping.")
        return FloatSchedule(Linear(start))
    if isinstance(spec, Mapping):
        schedules.check(spec, name)
        return FloatSchedule(schedules.build(spec))
    if isinstance(spec, bool) or not (callable(spec) or isinstance(spec, float | int)):
        raise ArgumentError(f"{name}={spec!r} is neither a number nor a schedule. Give one of these.")
    return FloatSchedule(spec)


def schedule_data(schedule: Any) -> float | dict[str, Any] | None:
    """The plain data from which ``schedule_from`` makes an equal schedule; None for a function without a kind."""
    if isinstance(schedule, float | int):
        return float(schedule)
    if isinstance(schedule, str | Mapping):
        schedule = schedule_from(schedule)
    if isinstance(schedule, FloatSchedule):
        return schedule_data(schedule.value_schedule)
    if type(schedule) is ConstantSchedule:
        return float(schedule.val)
    kind = "linear" if type(schedule) is LinearSchedule else schedules.name_of(type(schedule))
    if kind is None:
        return None
    from everlearn.core.signatures import signature_model  # which loads pydantic

    names = signature_model(schedules[kind]).model_fields
    return {"kind": kind, **{name: getattr(schedule, name) for name in names}}
