"""The whole update as a function of tensors: what a trace of it does, the eager runner does."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from everlearn import PPO
from everlearn.gradients import VarianceGradientScaler
from everlearn.gradients.functional import FunctionalScaler
from everlearn.ppo.loss import Coefficients, Minibatch
from tests.ppo.updates import (
    TensorsOf,
    assert_close_at_scale,
    assert_identical,
    coefficients_of,
    learned,
    minibatch_for,
    model_of,
    runner_of,
    with_infinite_loss,
    with_nan_gradient,
    with_nan_loss,
)

TWO_HOT = {"kind": "categorical", "n_atoms": 11}
HL_GAUSS = {"kind": "categorical", "n_atoms": 11, "target": "hl_gauss"}
LOUD = {"lr": 1e-2, "sigma": 0.5}  # so that gate, factors and noise move parameters by more than the tolerance
FAST = {"lr": 1e-2}

CASES: dict[str, dict[str, Any]] = {
    "discrete, quantile, adaptive_upgd": {"optimizer_kwargs": LOUD, "kl_penalty": True},
    "continuous, two_hot, upgd": {
        "place": "pendulum",
        "value_head": TWO_HOT,
        "optimizer_class": "upgd",
        "optimizer_kwargs": {**LOUD, "lr": 0.1, "adaptive_noise": True},
        "vgs_kwargs": {"mode": "noise"},
        "kl_penalty": True,
    },
    "continuous, hl_gauss, upgdw": {
        "place": "pendulum",
        "value_head": HL_GAUSS,
        "n_critics": 1,
        "optimizer_class": "upgdw",
        "optimizer_kwargs": LOUD,
        "variance_gradient_scaling": False,
        "clip_range_vf": 0.1,
    },
    "gSDE, scalar, adam": {
        "place": "pendulum",
        "use_sde": True,
        "value_head": "scalar",
        "n_critics": 1,
        "optimizer_class": "adam",
        "optimizer_kwargs": FAST,
        "vgs_kwargs": {"mode": "noise"},
    },
    "squashed gSDE, scalar, adamw": {
        "place": "pendulum",
        "use_sde": True,
        "policy_kwargs": {"squash_output": True},
        "kl_penalty": True,
        "value_head": "scalar",
        "optimizer_class": "adamw",
        "optimizer_kwargs": {**FAST, "weight_decay": 0.1},
        "clip_range_vf": 0.1,
    },
    "images, scalar, sgd": {
        "place": "images",
        "policy": "CnnPolicy",
        "value_head": "scalar",
        "n_critics": 1,
        "optimizer_class": "sgd",
        "optimizer_kwargs": {"lr": 1.0},
    },
    "dictionaries, quantile, adaptive_upgd": {
        "place": "dictionaries",
        "policy": "MultiInputPolicy",
        "n_critics": 1,
        "policy_kwargs": {"net_arch": [8]},
        "optimizer_kwargs": {**LOUD, "scope": "row"},
        "vgs_kwargs": {"scope": "global", "mode": "noise"},
    },
    "several numbers, quantile, adaptive_upgd": {
        "place": "scripted, several numbers",
        "optimizer_kwargs": {**LOUD, "scope": "tensor", "adaptive_noise": True},
        "kl_penalty": True,
        "normalize_advantage": False,
    },
    "switches, scalar, upgd": {
        "place": "scripted, switches",
        "value_head": "scalar",
        "n_critics": 1,
        "clip_range_vf": 0.1,
        "kl_penalty": True,
        "optimizer_class": "upgd",
        "optimizer_kwargs": {**LOUD, "lr": 0.1, "preset": "official", "protect": False},
        "vgs_kwargs": {"scope": "group"},
        "vgs_alpha": 1.0,
    },
    "a user's policy, scalar, adam": {
        "algorithm": PPO,
        "policy": ActorCriticPolicy,
        "policy_kwargs": {"net_arch": [8]},
        "kl_penalty": True,
        "optimizer_kwargs": FAST,
    },
}


def case_model(case: str) -> PPO:
    return model_of(**{"vgs_warmup_steps": 2, "vgs_alpha": 0.3, **CASES[case]})


def numbers_of(model: PPO) -> Coefficients:
    clip_range_vf = None if model.clip_range_vf is None else model.clip_range_vf(1.0)
    kl_coef = None if model.kl_controller is None else 2.0
    return coefficients_of(clip_range_vf=clip_range_vf, normalize_advantage=model.normalize_advantage, kl_coef=kl_coef)


class Traced(NamedTuple):
    """The graph of a case, and the seed-equal models that it and the eager runner work on."""

    graph: GraphModule
    tensors: TensorsOf
    eager: PPO

    def update(self, minibatch: Minibatch, coefficients: Coefficients, active: bool = True) -> Any:
        noise = TensorsOf(self.eager).next_noise()
        return self.graph(*self.tensors.inputs(minibatch, coefficients, noise, active))


@pytest.fixture(scope="module", params=CASES)
def traced(request: pytest.FixtureRequest) -> Traced:
    """Traced on other parameters and other data than those it is run on."""
    shadow = TensorsOf(case_model(request.param))
    numbers = numbers_of(shadow.model)
    graph = make_fx(shadow.step)(*shadow.inputs(minibatch_for(shadow.model, 99), numbers, shadow.next_noise()))
    return Traced(graph, TensorsOf(case_model(request.param)), case_model(request.param))


def test_a_traced_update_is_the_eager_update_on_other_data(traced: Traced) -> None:
    numbers, runner, before = numbers_of(traced.eager), runner_of(traced.eager), learned(traced.eager)
    for seed in (0, 1, 0, 1, 0):  # gradients that come again have a signal, which variance scaling sees
        minibatch = minibatch_for(traced.eager, seed)
        stats, active, *_ = traced.update(minibatch, numbers)
        expected, outcome = runner.update(minibatch, numbers)
        assert (outcome, active.item(), stats.pop("skipped").item()) == ("moved", True, 0.0)
        assert stats.keys() == expected.keys()
        torch.testing.assert_close(stats, expected, rtol=1e-5, atol=1e-6, check_dtype=False)
    found, expected = learned(traced.tensors.model), learned(traced.eager)
    assert_close_at_scale(found.pop("parameters"), expected.pop("parameters"), 1e-5)
    assert_close_at_scale(found, expected, 1e-4)
    moved = {name: tensor - before["parameters"][name] for name, tensor in traced.eager.policy.named_parameters()}
    assert [name for name, distance in moved.items() if distance.abs().max() < 1e-5] == []
    if traced.eager.variance_gradient_scaler is not None:
        factors = traced.eager.variance_gradient_scaler.get_scaling_factors()
        assert set(factors.values()) != {1.0}, "variance scaling took part"


def test_an_inactive_update_changes_no_bit(traced: Traced) -> None:
    before = learned(traced.tensors.model)
    stats, active, *_ = traced.update(minibatch_for(traced.eager, 6), numbers_of(traced.eager), active=False)
    assert not active.item()
    assert stats["skipped"] == 0
    assert_identical(learned(traced.tensors.model), before)


def test_after_target_kl_the_update_changes_no_bit_and_the_next_is_inactive(traced: Traced) -> None:
    before = learned(traced.tensors.model)
    minibatch = minibatch_for(traced.eager, 7)
    numbers = numbers_of(traced.eager)
    stats, active, *_ = traced.update(minibatch, coefficients_of(**{**vars(numbers), "target_kl": 1e-6}))
    assert not active.item()
    assert stats["skipped"] == 0
    assert_identical(learned(traced.tensors.model), before)


@pytest.mark.parametrize("spoil", [with_nan_loss, with_nan_gradient])
def test_an_update_that_is_not_finite_changes_no_bit_and_is_counted(traced: Traced, spoil: Any) -> None:
    before, scaler = learned(traced.tensors.model), traced.tensors.model.variance_gradient_scaler
    counted = 0 if scaler is None else scaler.skipped_steps
    stats, active, *_ = traced.update(spoil(minibatch_for(traced.eager, 8)), numbers_of(traced.eager))
    assert (stats["skipped"].item(), active.item()) == (1.0, True)
    assert_identical(learned(traced.tensors.model), before)
    if scaler is not None:
        assert scaler.skipped_steps - counted == (spoil is with_nan_gradient), "a gradient, not a loss, was refused"


def test_a_loss_that_overflows_is_refused_although_its_gradient_is_finite() -> None:
    tensors = TensorsOf(model_of("pendulum"))
    before, minibatch = learned(tensors.model), with_infinite_loss(minibatch_for(tensors.model, 0))
    stats, *_ = tensors.step(*tensors.inputs(minibatch, coefficients_of(), tensors.next_noise()))
    assert stats["skipped"] == 1
    assert_identical(learned(tensors.model), before)


def test_gradients_too_large_to_be_squared_never_reach_the_functional_statistics() -> None:
    weight = torch.nn.Parameter(torch.zeros(10))
    eager, own = (VarianceGradientScaler([("weight", weight)], warmup_steps=1, alpha=0.5) for _ in range(2))
    tensors = FunctionalScaler(own)
    for size in (1.0, 1.0, 1.0, 4e18, 1.0):
        grads = {"weight": size * torch.randn(10)}
        weight.grad = grads["weight"].clone()
        eager.scale_gradients()
        eager.step()
        gradient = tensors.gather(grads)
        factors = tensors.factors(tensors.state(), tensors.hyper(), gradient)
        tensors.observe_(tensors.state(), tensors.hyper(), gradient, torch.tensor(True))
        torch.testing.assert_close(factors[0] * grads["weight"], weight.grad)
    torch.testing.assert_close(own.state_dict(), eager.state_dict())
    assert own.skipped_steps == 1
    assert own.get_scaling_factor() < 1.0
