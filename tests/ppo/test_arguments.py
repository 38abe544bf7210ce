"""Arguments: SB3's and ours, their defaults, their ranges."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import pytest
import stable_baselines3
import torch
from torch import nn

from everlearn import PPO, UPGD, AdaptiveUPGD, DistributionalPPO
from everlearn.core.errors import ArgumentError, ConfigError
from tests.ppo.updates import model_of
from tests.ppo.worlds import world

NAN = math.nan


def test_sb3s_arguments_come_first_in_sb3s_order_with_sb3s_defaults_and_ours_by_keyword_only() -> None:
    theirs = inspect.signature(stable_baselines3.PPO).parameters.values()
    ours = list(inspect.signature(PPO).parameters.values())
    assert [(p.name, p.default, p.kind) for p in ours[: len(theirs)]] == [(p.name, p.default, p.kind) for p in theirs]
    assert {parameter.kind for parameter in ours[len(theirs) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_defaults_of_ppo_are_sb3s() -> None:
    model = PPO("MlpPolicy", world("cartpole"), device="cpu")
    assert (model.value_head, model.n_critics, model.critic_reduction) == ("scalar", 1, "mean")
    assert (model.normalize_returns, model.variance_gradient_scaling) == (False, False)
    assert (model.policy.return_scale, model.variance_gradient_scaler) == (None, None)
    assert type(model.policy.optimizer) is torch.optim.Adam
    assert model.policy.optimizer.defaults["eps"] == 1e-5


def test_the_defaults_of_distributional_ppo_are_the_system_switched_on() -> None:
    model = DistributionalPPO("MlpPolicy", world("cartpole"), device="cpu")
    assert (model.policy.ensemble.head.n_outputs, model.n_critics, model.critic_reduction) == (32, 2, "mean")
    assert model.policy.return_scale is not None
    scaler = model.variance_gradient_scaler
    assert (scaler.beta, scaler.alpha, scaler.warmup_steps, scaler.mode) == (0.99, 0.1, 100, "relative")
    optimizer = model.policy.optimizer
    assert type(optimizer) is AdaptiveUPGD
    assert (optimizer.defaults["eps"], optimizer.defaults["scope"]) == (1e-5, "group")


def test_arguments_of_the_scaler_and_the_optimizer_arrive() -> None:
    model = model_of(
        vgs_beta=0.9,
        vgs_alpha=0.2,
        vgs_warmup_steps=7,
        vgs_kwargs={"min_scale": 0.3, "scope": "group"},
        optimizer_class="UPGD",
        optimizer_kwargs={"sigma": 0.02},
    )
    scaler = model.variance_gradient_scaler
    assert (scaler.beta, scaler.alpha, scaler.warmup_steps) == (0.9, 0.2, 7)
    assert (scaler.min_scale, scaler.scope, scaler.mode) == (0.3, "group", "relative")
    assert type(model.policy.optimizer) is UPGD
    assert model.policy.optimizer.defaults["sigma"] == 0.02


@pytest.mark.parametrize(
    ("argument", "in_policy"),
    [("optimizer_class", {"optimizer_class": torch.optim.Adam}), ("optimizer_kwargs", {"optimizer_kwargs": {}})],
)
def test_an_optimizer_given_twice_is_an_error(argument: str, in_policy: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{argument} is given twice: as an argument and in policy_kwargs"):
        model_of(policy_kwargs=in_policy, **{argument: {"optimizer_class": "adam", "optimizer_kwargs": {}}[argument]})


def test_an_optimizer_in_policy_kwargs_is_honoured() -> None:
    given = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}}
    optimizer = model_of(policy_kwargs=given).policy.optimizer
    assert (type(optimizer), optimizer.defaults["momentum"]) == (torch.optim.SGD, 0.5)


@pytest.mark.parametrize("name", ["value_head", "n_critics", "critic_reduction", "normalize_returns"])
def test_critics_in_policy_kwargs_are_refused_with_their_place(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}.* in policy_kwargs: give these as arguments of the algorithm"):
        model_of(policy_kwargs={name: "min" if name == "critic_reduction" else 1})


def test_the_callers_mappings_stay_as_they_are() -> None:
    given = {
        "policy_kwargs": {"net_arch": [8], "activation_fn": nn.ReLU},
        "optimizer_kwargs": {"lr": 1e-3},
        "vgs_kwargs": {"min_scale": 0.2},
        "value_head": {"kind": "quantile", "n_quantiles": 4},
    }
    before = copy.deepcopy(given)
    model = DistributionalPPO("MlpPolicy", world("cartpole"), device="cpu", n_steps=64, **given)
    model.learn(64)
    assert given == before
    assert model.policy_kwargs == before["policy_kwargs"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_range", -1.0),
        ("clip_range", 0.0),
        ("clip_range", lambda progress: NAN),
        ("gamma", 5.0),
        ("gamma", -0.1),
        ("gae_lambda", 1.1),
        ("learning_rate", -1e-3),
        ("learning_rate", lambda progress: -progress),
        ("vf_coef", -0.5),
        ("max_grad_norm", -1.0),
        ("target_kl", 0.0),
        ("n_steps", 0),
        ("batch_size", 0),
        ("n_epochs", 0),
        ("n_critics", 0),
        *((name, NAN) for name in ("learning_rate", "gamma", "gae_lambda", "clip_range", "ent_coef", "vf_coef")),
        *((name, NAN) for name in ("max_grad_norm", "target_kl")),
        ("ent_coef", math.inf),
        ("n_epochs", math.inf),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{name}(\(1.0\))?=.* is outside .* Choose a value inside this range"):
        model_of(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("vgs_beta", 1.5), ("vgs_alpha", -1.0), ("vgs_warmup_steps", -1)])
def test_numbers_of_the_scaler_are_refused_too(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name.removeprefix('vgs_')}="):
        model_of(**{name: value})


@pytest.mark.parametrize(
    "limits",
    [
        {"max_grad_norm": math.inf},
        {"gamma": 1.0, "gae_lambda": 0.0},
        {"ent_coef": -0.1},
        {"clip_range": lambda progress: 1.0 - progress, "learning_rate": lambda progress: 1.0 - progress},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(limits: dict[str, Any]) -> None:
    assert model_of(**limits).learn(32).skipped_updates == 0


@pytest.mark.parametrize("arguments", [{"batch_size": 1}, {"n_steps": 1, "batch_size": 2}, {"clip_range_vf": -0.1}])
def test_where_sb3_asserts_its_assertion_is_raised(arguments: dict[str, Any]) -> None:
    for algorithm in (stable_baselines3.PPO, PPO, DistributionalPPO):
        with pytest.raises(AssertionError):
            algorithm("MlpPolicy", world("cartpole"), device="cpu", **arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"optimizer_kwargs": {"sigmma": 0.1}}, "sigmma: unknown key. Did you mean 'sigma'"),
        ({"optimizer_class": "adaptive_ugpd"}, "Did you mean 'adaptive_upgd'"),
        ({"critic_reduction": "median"}, "There is no critic reduction 'median'"),
    ],
)
def test_misspelt_names_are_refused_with_a_suggestion(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        model_of(**arguments)
