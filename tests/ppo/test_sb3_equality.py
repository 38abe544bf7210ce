"""B26: with everlearn's additions off, PPO is Stable-Baselines3's PPO."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import Tensor, nn
from torch.testing import assert_close

from everlearn import PPO, DistributionalPPO
from everlearn.core.errors import ArgumentError
from everlearn.ppo.policy import ActorCriticPolicy as EverlearnPolicy
from tests.ppo.worlds import world


class OwnPolicy(ActorCriticPolicy):
    """A user's policy with an architecture of its own."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = MlpExtractor(self.features_dim, {"pi": [16], "vf": [24]}, nn.ReLU, self.device)


class Forgetful(FlattenExtractor):
    """Drops features while it learns, and not while it acts."""

    def forward(self, observations: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(observations), 0.5, self.training)


SHORT = {"n_steps": 16, "batch_size": 8, "n_epochs": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cartpole": ("cartpole", {"n_steps": 64, "batch_size": 32}),
    "pendulum": ("pendulum", {"n_steps": 256}),
    "clip_range_vf": ("pendulum", {"clip_range_vf": 0.1, "learning_rate": 1e-2}),
    "target_kl": ("pendulum", {"target_kl": 1e-3, "learning_rate": 1e-3, "batch_size": 8}),
    "truncated minibatch": ("cartpole", {"batch_size": 48}),
    "gSDE": ("pendulum", {"use_sde": True, "sde_sample_freq": 4}),
    "squashed gSDE": ("pendulum", {"use_sde": True, "policy_kwargs": {"squash_output": True}, "ent_coef": 0.01}),
    "numbers": ("cartpole", {"ent_coef": 0.02, "vf_coef": 0.7, "max_grad_norm": 0.1, "gamma": 0.9, "gae_lambda": 0.8}),
    "n_epochs": ("cartpole", {"n_epochs": 3}),
    "schedules": ("pendulum", {"learning_rate": lambda p: 1e-2 * p, "clip_range": lambda p: 0.2 * p + 0.01}),
    "schedule of clip_range_vf": ("pendulum", {"clip_range_vf": lambda p: p, "learning_rate": 1e-2}),
    "raw advantages": ("cartpole", {"normalize_advantage": False}),
    "RMSprop": ("cartpole", {"policy_kwargs": {"optimizer_class": torch.optim.RMSprop}}),
    "architecture": ("cartpole", {"policy_kwargs": {"net_arch": [32], "activation_fn": nn.ReLU, "ortho_init": False}}),
    "dropout": ("cartpole", {"policy_kwargs": {"features_extractor_class": Forgetful}}),
    "own policy": ("cartpole", {"policy": OwnPolicy, "clip_range_vf": 0.1}),
    "images": ("images", {"policy": "CnnPolicy", **SHORT}),
    "two extractors": (
        "images",
        {"policy": "CnnPolicy", "policy_kwargs": {"share_features_extractor": False}, **SHORT},
    ),
    "dictionaries": ("dictionaries", {"policy": "MultiInputPolicy", **SHORT}),
    "one number": ("numbers", {}),
    "several numbers": ("several numbers", {}),
    "switches": ("switches", {}),
}


@dataclass
class Result:
    """A trained model, and the global generators after it."""

    model: Any
    torch_state: torch.Tensor = field(default_factory=torch.get_rng_state)
    numpy_state: Any = field(default_factory=lambda: np.random.get_state()[1].tolist())
    python_state: Any = field(default_factory=random.getstate)


def trained(algorithm: type, case: str, rollouts: int = 3, copies: int = 1) -> Result:
    place, options = CASES[case]
    arguments = {"policy": "MlpPolicy", "n_steps": 64, "batch_size": 32, "n_epochs": 4, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
        model = algorithm(env=world(place, copies), seed=3, device="cpu", **arguments)
    return Result(model.learn(rollouts * model.n_steps * copies))


class Pair(NamedTuple):
    """One case, trained by both."""

    theirs: Result
    ours: Result


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(trained(stable_baselines3.PPO, request.param), trained(PPO, request.param))


def assert_same_tensors(found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, Mapping):
            assert_same_tensors(found[name], value)
        else:
            assert torch.equal(found[name], value), f"{name} differs"


def test_b26_parameters_are_equal_bit_for_bit(pair: Pair) -> None:
    assert pair.theirs.model.num_timesteps == pair.ours.model.num_timesteps > 0
    assert_same_tensors(pair.ours.model.policy.state_dict(), pair.theirs.model.policy.state_dict())


def test_b26_the_optimizer_state_is_equal_bit_for_bit(pair: Pair) -> None:
    expected = pair.theirs.model.policy.optimizer.state_dict()
    found = pair.ours.model.policy.optimizer.state_dict()
    assert expected["state"], "SB3's optimizer has taken steps"
    assert_same_tensors(found["state"], expected["state"])
    assert found["param_groups"] == expected["param_groups"]


def test_b26_the_global_generators_end_where_sb3_leaves_them(pair: Pair) -> None:
    assert torch.equal(pair.ours.torch_state, pair.theirs.torch_state)
    assert pair.ours.numpy_state == pair.theirs.numpy_state
    assert pair.ours.python_state == pair.theirs.python_state


def test_b26_the_logged_values_are_sb3s(pair: Pair) -> None:
    expected, found = pair.theirs.model.logger.name_to_value, pair.ours.model.logger.name_to_value
    names = [name for name in expected if name.startswith("train/")]
    assert len(names) >= 10
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-6, nan_ok=True), name


def test_target_kl_stops_when_it_stops_sb3() -> None:
    expected, found = (trained(algorithm, "target_kl").model for algorithm in (stable_baselines3.PPO, PPO))
    assert found._n_updates == expected._n_updates < 12, "fewer than three rollouts of four epochs"


def test_b26_eight_environments_agree_after_one_rollout() -> None:
    expected, found = (trained(algorithm, "cartpole", 1, copies=8) for algorithm in (stable_baselines3.PPO, PPO))
    assert_close(found.model.policy.state_dict(), expected.model.policy.state_dict(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("policy", "place"), [("MlpPolicy", "pendulum"), ("CnnPolicy", "images"), ("MultiInputPolicy", "dictionaries")]
)
def test_with_a_scalar_head_and_one_critic_names_and_shapes_are_sb3s(policy: str, place: str) -> None:
    expected, found = (
        algorithm(policy, world(place), device="cpu").policy for algorithm in (stable_baselines3.PPO, PPO)
    )
    assert isinstance(found, EverlearnPolicy)
    shapes = [(name, tensor.shape) for name, tensor in expected.state_dict().items()]
    assert [(name, tensor.shape) for name, tensor in found.state_dict().items()] == shapes


def test_the_warning_about_a_truncated_minibatch_is_sb3s() -> None:
    messages = []
    for algorithm in (stable_baselines3.PPO, PPO):
        with pytest.warns(UserWarning, match="truncated mini-batch of size 16") as caught:
            algorithm("MlpPolicy", world("cartpole"), n_steps=64, batch_size=48, device="cpu")
        messages.append([str(warning.message) for warning in caught])
    assert messages[0] == messages[1]


def test_a_scalar_policy_of_the_users_is_refused_by_distributional_ppo_with_a_remedy() -> None:
    with pytest.raises(ArgumentError, match=r"OwnPolicy has one scalar value.*Use everlearn.PPO, or derive"):
        DistributionalPPO(OwnPolicy, world("cartpole"), device="cpu")


def test_distributional_ppo_takes_a_policy_of_the_users_when_its_critics_are_scalar() -> None:
    model = DistributionalPPO(
        OwnPolicy,
        world("cartpole"),
        n_steps=64,
        value_head="scalar",
        n_critics=1,
        normalize_returns=False,
        device="cpu",
    )
    assert model.learn(64).skipped_updates == 0
    assert model.variance_gradient_scaler.step_count > 0
