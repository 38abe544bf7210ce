"""Controls of the divergence: their laws with literal numbers, their state, their names."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, ConfigError, NonFiniteError, StateError
from everlearn.ppo.kl import DoublingPenalty, KLAdaptiveLR, KLControl, KLEarlyStop, PIDPenalty, kl_control, kl_controls

divergences = st.lists(st.floats(0, 1e6), max_size=60)


def after(control: Any, *divergences: float) -> Any:
    for divergence in divergences:
        control.observe(divergence)
    return control


def test_pid_follows_its_law() -> None:
    control = PIDPenalty(target=0.01, initial=0.5, kp=0.5, ki=0.25, kd=0.1)
    assert control.coefficient == 0.5
    one, two = math.log(2), math.log(0.5)
    assert after(control, 0.02).coefficient == pytest.approx(0.5 * math.exp((0.5 + 0.25 + 0.1) * one))
    assert after(control, 0.005).coefficient == pytest.approx(
        0.5 * math.exp(0.5 * two + 0.25 * (one + two) + 0.1 * (two - one))
    )


def test_on_target_pid_stays() -> None:
    assert after(PIDPenalty(target=0.01), *[0.01] * 50).coefficient == pytest.approx(0.2)


def test_pid_counts_one_rollout_for_no_more_than_its_limit() -> None:
    assert after(PIDPenalty(error_limit=1.5), math.inf).error == 1.5
    assert after(PIDPenalty(error_limit=1.5), 0.0).error == -1.5


@pytest.mark.parametrize(("kl", "bound"), [(1.0, 100.0), (1e-9, 1e-4)])
def test_pid_leaves_either_bound_at_the_first_rollout_on_the_other_side(kl: float, bound: float) -> None:
    """No wind-up: a thousand rollouts at the bound weigh no more than reaching it."""
    control = after(PIDPenalty(), *[kl] * 1000)
    assert control.coefficient == bound
    assert after(control, 1e-4 / kl).coefficient != bound
    assert after(control, *[1e-4 / kl] * 60).coefficient == {100.0: 1e-4, 1e-4: 100.0}[bound]


@given(divergences)
def test_the_coefficient_of_a_penalty_stays_within_its_bounds(divergences: list[float]) -> None:
    for control in (PIDPenalty(minimum=0.01, maximum=10.0, kd=3.0), DoublingPenalty(minimum=0.01, maximum=10.0)):
        assert 0.01 <= after(control, *divergences).coefficient <= 10.0


def test_pid_without_integral_depends_on_the_last_rollout_alone() -> None:
    assert after(PIDPenalty(ki=0.0), 1.0, 1.0, 0.01).coefficient == pytest.approx(0.2)


def test_doubling_follows_its_law() -> None:
    control = DoublingPenalty(target=0.03, initial=1.0)
    assert after(control, 0.046).coefficient == 2.0
    assert after(control, 0.044, 0.03, 0.021).coefficient == 2.0
    assert after(control, 0.019).coefficient == 1.0


def test_doubling_recovers_from_both_bounds() -> None:
    control = DoublingPenalty(maximum=4.0, minimum=0.05)
    assert after(control, *[1.0] * 20).coefficient == 4.0
    assert after(control, 0.0).coefficient == 2.0
    assert after(control, *[0.0] * 20).coefficient == 0.05
    assert after(control, 1.0).coefficient == 0.1


def test_the_adaptive_learning_rate_follows_its_law_within_bounds() -> None:
    control = KLAdaptiveLR(target=0.01, step=2.0, minimum=0.25, maximum=4.0)
    assert (control.lr_factor, control.coefficient, control.target_kl) == (1.0, None, None)
    assert after(control, 0.021).lr_factor == 0.5
    assert after(control, 0.019, 0.006).lr_factor == 0.5
    assert after(control, *[1.0] * 9).lr_factor == 0.25
    assert after(control, *[0.0049] * 9).lr_factor == 4.0
    assert after(control, 0.03).lr_factor == 2.0


def test_early_stopping_is_a_target_and_nothing_else() -> None:
    control = after(KLEarlyStop(0.03), 5.0)
    assert (control.target_kl, control.coefficient, control.lr_factor, control.state_dict()) == (0.03, None, 1.0, {})


@pytest.mark.parametrize("name", list(kl_controls))
def test_a_state_makes_another_one_go_on_alike(name: str) -> None:
    one, other = kl_controls.build(name), kl_controls.build(name)
    after(one, 0.05, 0.03, 0.001)
    other.load_state_dict(one.state_dict())
    for control in (one, other):
        after(control, 0.002)
    assert other.state_dict() == one.state_dict()
    assert other.diagnostics() == one.diagnostics()


def test_what_every_control_remembers_is_all_that_observing_changes() -> None:
    for name in kl_controls:
        control = kl_controls.build(name)
        before = dict(vars(control))
        after(control, 1.0, 1.0, 0.005)
        changed = {key for key, value in vars(control).items() if value != before[key]}
        assert changed == set(control.memory), name


@pytest.mark.parametrize("state", [{}, {"current": torch.tensor(1.0), "more": torch.tensor(1.0)}])
def test_a_state_of_another_control_is_refused_and_nothing_changes(state: Any) -> None:
    control = after(DoublingPenalty(), 1.0)
    with pytest.raises(StateError, match="DoublingPenalty remembers"):
        control.load_state_dict(state)
    assert control.coefficient == 0.4
    control.load_state_dict(state | {"current": torch.tensor(3.0)}, strict=False)
    assert control.coefficient == 3.0


def test_a_state_that_is_not_finite_is_refused_and_nothing_changes() -> None:
    control = PIDPenalty()
    with pytest.raises(StateError, match="not finite"):
        control.load_state_dict({**control.state_dict(), "error": torch.tensor(math.nan)})
    assert control.error == 0.0


def test_a_state_out_of_bounds_is_used_within_them() -> None:
    penalty, rate = DoublingPenalty(), KLAdaptiveLR()
    penalty.load_state_dict({"current": torch.tensor(1e9)})
    rate.load_state_dict({"factor": torch.tensor(-1.0)})
    assert (penalty.coefficient, rate.lr_factor) == (100.0, 0.01)
    assert after(penalty, 0.0).coefficient == 50.0
    assert after(rate, 0.0).lr_factor == pytest.approx(0.015)


@pytest.mark.parametrize("name", list(kl_controls))
def test_nan_is_an_error_that_says_what_to_do(name: str) -> None:
    with pytest.raises(NonFiniteError, match="Lower learning_rate"):
        kl_controls.build(name).observe(math.nan)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "pid", "target": 0.0},
        {"kind": "pid", "initial": 1e3},
        {"kind": "pid", "minimum": 0.0},
        {"kind": "pid", "ki": -0.1},
        {"kind": "pid", "error_limit": 0.0},
        {"kind": "doubling", "minimum": 2.0, "maximum": 1.0},
        {"kind": "adaptive_lr", "step": 1.0},
        {"kind": "adaptive_lr", "maximum": 0.5},
        {"kind": "adaptive_lr", "minimum": 0.0},
        {"kind": "early_stop", "target": -1.0},
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="outside"):
        kl_control(arguments)


def test_what_stands_for_a_control() -> None:
    assert kl_control(None) is kl_control(False) is None
    assert isinstance(kl_control(True), PIDPenalty)
    assert isinstance(kl_control("Adaptive-LR"), KLAdaptiveLR)
    control = kl_control({"kind": "doubling", "target": 0.3})
    assert isinstance(control, DoublingPenalty)
    assert control.target == 0.3
    assert kl_control(control) is control
    with pytest.raises(ArgumentError, match=r"kl_penalty=0\.01: give True, one of"):
        kl_control(0.01)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Did you mean 'doubling'"):
        kl_control("dubling")


def test_one_of_your_own_is_one_class() -> None:
    class Fixed(KLControl):
        """A constant penalty."""

        coefficient = 3.0  # type: ignore[assignment]

        def _move(self, kl: float) -> None:
            """Stay."""

    assert kl_control(Fixed(0.1)).coefficient == 3.0  # type: ignore[union-attr]
