"""Small models, the inputs of one update, and everything that an update may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor

from everlearn import PPO, DistributionalPPO
from everlearn.gradients.functional import FunctionalScaler
from everlearn.optim.functional import functional
from everlearn.ppo.action_kl import action_parameters
from everlearn.ppo.loss import Coefficients, Minibatch
from everlearn.ppo.update import EagerRunner, FunctionalStep
from everlearn.values.reduction import critic_means
from tests.ppo.worlds import world

BATCH = 12


def model_of(
    place: str = "cartpole", algorithm: type[PPO] = DistributionalPPO, policy: Any = "MlpPolicy", **arguments: Any
) -> PPO:
    """A model with small networks, the same each time."""
    net = {"net_arch": [8]} if policy == "MlpPolicy" else {}
    options = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu", **arguments}
    options["policy_kwargs"] = {**net, **arguments.get("policy_kwargs", {})}
    return algorithm(policy, world(place), **options)


def runner_of(model: PPO) -> EagerRunner:
    return EagerRunner(model.evaluator, model.policy.optimizer, model.variance_gradient_scaler)


def observations_of(space: spaces.Space[Any], rng: np.random.Generator, size: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: observations_of(part, rng, size) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Box) and space.dtype != np.uint8:
        return rng.normal(size=(size, *space.shape)).astype(np.float32)
    space.seed(int(rng.integers(2**31)))
    return np.stack([space.sample() for _ in range(size)])


def actions_of(space: spaces.Space[Any], rng: np.random.Generator, size: int) -> Tensor:
    if isinstance(space, spaces.Box):
        return torch.as_tensor(rng.uniform(-0.9, 0.9, (size, *space.shape)), dtype=torch.float32)
    space.seed(int(rng.integers(2**31)))
    actions = torch.as_tensor(np.stack([space.sample() for _ in range(size)]))
    return actions if isinstance(space, spaces.Discrete) else actions.float()  # as SB3's buffers hand them out


def minibatch_for(model: PPO, seed: int, size: int = BATCH) -> Minibatch:
    """Random samples near the model's own policy and values, so that some ratios and values are clipped.

    Where the policy's divergence is controlled, they bring the distributions of actions of a policy nearby.
    """
    rng = np.random.default_rng(seed)
    observations = obs_as_tensor(observations_of(model.observation_space, rng, size), model.device)
    actions = actions_of(model.action_space, rng, size)
    with torch.no_grad():
        evaluation = model.evaluator(observations, actions)
    means = critic_means(evaluation.distributions)
    noise = [torch.as_tensor(rng.normal(size=shape), dtype=torch.float32) for shape in ((3, size), tuple(means.shape))]
    old_log_prob = evaluation.log_prob + 0.2 * noise[0][0]
    samples = Minibatch(observations, actions, old_log_prob, noise[0][1], noise[0][2], means + 0.2 * noise[1])
    parameters = action_parameters(evaluation.action_distribution)
    if model.kl_controller is None or parameters is None:
        return samples
    nearby = parameters + 0.2 * torch.as_tensor(rng.normal(size=tuple(parameters.shape)), dtype=torch.float32)
    return samples._replace(old_action_parameters=nearby)


def with_nan_loss(minibatch: Minibatch) -> Minibatch:
    return minibatch._replace(returns=torch.full_like(minibatch.returns, torch.nan))


def with_infinite_loss(minibatch: Minibatch) -> Minibatch:
    """So far from its target that the loss overflows; the gradient of quantiles stays finite."""
    return minibatch._replace(returns=torch.full_like(minibatch.returns, 1e38))


def with_nan_gradient(minibatch: Minibatch) -> Minibatch:
    """An infinite ratio with an advantage above the mean: its clipped loss is finite, its gradient 0 * infinity."""
    best = minibatch.advantages.abs().argmax()
    advantages, old_log_prob = minibatch.advantages.clone(), minibatch.old_log_prob.clone()
    advantages[best] = advantages[best].abs()
    old_log_prob[best] -= 1000.0
    return minibatch._replace(advantages=advantages, old_log_prob=old_log_prob)


def coefficients_of(**changes: Any) -> Coefficients:
    return Coefficients(**{"clip_range": 0.2, "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 0.5, **changes})


def learned(model: PPO) -> dict[str, Any]:
    """Copies of all that an update may change, apart from counts of skipped steps."""
    optimizer, scaler = model.policy.optimizer, model.variance_gradient_scaler
    statistics = {} if scaler is None else scaler.state_dict()
    statistics.pop("skipped_steps", None)
    return {
        "parameters": {name: tensor.detach().clone() for name, tensor in model.policy.named_parameters()},
        "optimizer": {
            name: {key: tensor.clone() for key, tensor in optimizer.state[parameter].items()}
            for name, parameter in model.policy.named_parameters()
        },
        "scaler": statistics,
    }


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested mappings by dotted path."""
    flat: dict[str, Tensor] = {}
    for name, value in tree.items():
        flat |= leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def assert_identical(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def assert_close_at_scale(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> None:
    """Equal to the tolerance, relative to each element or to the tensor's largest one."""
    found, expected = leaves(found), leaves(expected)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        atol = tolerance * tensor.abs().amax().item()
        message = f"{name} differs by {(found[name] - tensor).abs().amax():.2g}"
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=atol, check_dtype=False, msg=message)


class TensorsOf:
    """A model's whole update as a function of tensors, with all that it takes.

    Args:
        model: Whose parameters and states the function changes.
    """

    def __init__(self, model: PPO) -> None:
        self.model = model
        self.optimizer = functional(model.policy.optimizer, {p: name for name, p in model.policy.named_parameters()})
        scaler = model.variance_gradient_scaler
        self.scaler = None if scaler is None else FunctionalScaler(scaler)
        self.step = FunctionalStep(model.evaluator, self.optimizer, self.scaler, model.normalize_advantage)

    def inputs(self, minibatch: Minibatch, coefficients: Coefficients, noise: Any, active: bool = True) -> tuple:
        numbers = {name: value for name, value in vars(coefficients).items() if value is not None}
        numbers.pop("normalize_advantage")
        numbers.setdefault("target_kl", float("inf"))
        return (
            {name: parameter.detach() for name, parameter in self.model.policy.named_parameters()},
            dict(self.model.policy.named_buffers()),
            self.optimizer.state(),
            {} if self.scaler is None else self.scaler.state(),
            minibatch,
            {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()},
            self.optimizer.hyper(),
            {} if self.scaler is None else self.scaler.hyper(),
            noise,
            torch.tensor(active),
        )

    def next_noise(self) -> Tensor:
        """What the optimizer will draw in its next step; its stream stays where it is."""
        with self.optimizer.kept_noise():
            return self.optimizer.draw_noise().clone()
