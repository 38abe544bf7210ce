"""Controls of the divergence: defaults, bounds of their arguments, and what happens at a threshold itself."""

from __future__ import annotations

import math
from typing import Any

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.ppo.kl import DoublingPenalty, KLAdaptiveLR, KLEarlyStop, PIDPenalty, kl_controls

DEFAULTS: dict[str, dict[str, float]] = {
    "pid": {
        "target": 0.01,
        "initial": 0.2,
        "kp": 0.3,
        "ki": 0.3,
        "kd": 0.0,
        "minimum": 1e-4,
        "maximum": 100.0,
        "error_limit": 2.0,
    },
    "doubling": {"target": 0.01, "initial": 0.2, "minimum": 1e-4, "maximum": 100.0},
    "early_stop": {"target": 0.02},
    "adaptive_lr": {"target": 0.01, "step": 1.5, "minimum": 0.01, "maximum": 10.0},
}


@pytest.mark.parametrize("name", list(kl_controls))
def test_the_defaults_are_these(name: str) -> None:
    control = kl_controls.build(name)
    assert {option: getattr(control, option) for option in control.options} == DEFAULTS[name]


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        ("pid", "minimum", math.inf),
        ("pid", "maximum", math.inf),
        ("pid", "maximum", 1e-5),
        ("pid", "initial", 101.0),
        ("pid", "kp", math.inf),
        ("pid", "kd", -0.1),
        ("pid", "error_limit", math.inf),
        ("adaptive_lr", "step", math.inf),
        ("adaptive_lr", "minimum", 1.5),
        ("adaptive_lr", "maximum", math.inf),
    ],
)
def test_an_argument_outside_its_range_is_refused_by_name(kind: str, argument: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=f"^{argument}="):
        kl_controls.build({"kind": kind, argument: value})


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("pid", {"initial": 100.0}),
        ("pid", {"minimum": 0.5, "initial": 0.5, "maximum": 0.5}),
        ("pid", {"kp": 0.0, "ki": 0.0, "error_limit": 0.5}),
        ("adaptive_lr", {"minimum": 1.0, "maximum": 1.0}),
    ],
)
def test_an_argument_at_the_end_of_its_range_is_taken(kind: str, arguments: dict[str, Any]) -> None:
    control = kl_controls.build({"kind": kind, **arguments})
    assert {name: getattr(control, name) for name in arguments} == arguments


def test_at_a_threshold_itself_nothing_moves() -> None:
    """Targets whose thresholds are exact numbers."""
    penalty, rate = DoublingPenalty(target=3.0), KLAdaptiveLR(target=2.0)
    for kl in (4.5, 2.0):
        penalty.observe(kl)
        assert penalty.coefficient == 0.2
    for kl in (4.0, 1.0):
        rate.observe(kl)
        assert rate.lr_factor == 1.0


def test_a_target_kl_beside_a_control_that_stops_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"target_kl=0\.1 and the kl_penalty KLEarlyStop both stop"):
        KLEarlyStop().require_no_other(0.1)
    KLEarlyStop().require_no_other(None)
    PIDPenalty().require_no_other(0.1)
    PIDPenalty().require_no_other(None)
