"""What an ordinary policy does with a few observations, without the cost of many small calls.

For the few rows that one step of some environments has, a forward pass spends nearly all of its time on the way to the
arithmetic. Here numpy does it, on the memory of the policy's own parameters. With two layers of 64 and 8 observations
that takes a sixth of the policy's time, and less than the same as a compiled graph, which needs a compiler besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import distributions as sb3
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import Tensor, nn

from everlearn.ppo.policy import ActorCriticPolicy, Critic
from everlearn.values import CriticEnsemble, QuantileHead, ReturnScale, ScalarHead
from everlearn.values.reduction import MeanReduction

Layer = Callable[[np.ndarray], np.ndarray]
Decision = tuple[np.ndarray, np.ndarray] | None
"""Actions and their log-probabilities, (batch,); None, and nothing drawn, where the policy could refuse."""
Decider = Callable[[np.ndarray], Decision]

SMALL = 1 << 17
"""Up to so many multiplications numpy's libraries use one thread; larger layers are torch's, with its threads."""
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


@final
class Actor:
    """Acts as a policy does: with its random draws, and to float rounding with its results.

    Parameters are read where they are, so that what changes them in place is seen at once. Where the parameters of an
    action distribution are not finite, the policy itself is asked, which says so.

    Args:
        policy: One that ``can_act_for`` allows.
        example: Observations, (batch, ...), of the only shape that it takes.
    """

    def __init__(self, policy: ActorCriticPolicy, example: np.ndarray) -> None:
        self.policy = policy
        self._shape = example.shape
        self.refresh()

    def fits(self, observations: Any) -> bool:
        """Whether it can act on observations like these, with the policy as it is now."""
        return can_act_for(self.policy, observations) and observations.shape == self._shape

    def refresh(self) -> None:
        """Collect the policy's parameters anew: those that were there may have been replaced."""
        policy, rows = self.policy, self._shape[0]
        trunk = policy.mlp_extractor
        further: Any = policy.critics
        self._actor = _chain(rows, trunk.policy_net, policy.action_net)
        self._critics = [_chain(rows, trunk.value_net, policy.value_net)]
        self._critics += [_chain(rows, critic.trunk, critic.value_net) for critic in further]
        self._decide = _DECIDERS[type(policy.action_dist)](policy, rows)
        self._value = _value_of(policy.ensemble)

    @np.errstate(all="ignore")
    def __call__(self, observations: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """``policy(observations)``: actions, reduced values (batch, 1) in reward units, log-probabilities (batch,)."""
        features = observations.astype(np.float32).reshape(self._shape[0], -1)
        parameters = _through(self._actor, features)
        finite = np.count_nonzero(np.isfinite(parameters)) == parameters.size
        decision = self._decide(parameters) if finite else None
        if decision is None:
            with torch.no_grad():
                return self.policy(torch.as_tensor(observations))  # type: ignore[no-any-return]
        actions, log_prob = decision
        actions = actions.reshape((-1, *(self.policy.action_space.shape or ())))
        values = self._value([_through(critic, features) for critic in self._critics])
        return torch.from_numpy(actions), values, torch.from_numpy(log_prob)


def actor_for(policy: Any, example_observations: Any) -> Actor | None:
    """What acts for the policy on observations like these; None where only the policy itself can."""
    return Actor(policy, example_observations) if can_act_for(policy, example_observations) else None


def can_act_for(policy: Any, observations: Any) -> bool:
    """Whether the policy is one of ours on the CPU, of well-known layers throughout, and observes vectors.

    Args:
        policy: Any policy.
        observations: As environments return them.
    """
    return (
        type(policy) is ActorCriticPolicy
        and type(policy.action_dist) in _DECIDERS
        and _are_vectors(policy, observations)
        and all(_is_plain(module) for module in policy.modules())
        and all(each.device.type == "cpu" and each.dtype == torch.float32 for each in policy.parameters())
    )


def _are_vectors(policy: ActorCriticPolicy, observations: Any) -> bool:
    space = policy.observation_space
    images = policy.normalize_images and is_image_space(space)
    fitting = isinstance(observations, np.ndarray) and observations.shape[1:] == space.shape
    return isinstance(space, spaces.Box) and not images and fitting


def _is_plain(module: nn.Module) -> bool:
    """Whether a call of the module is what its class says, and this file knows the class."""
    changed = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return type(module) in _KNOWN and not changed


# --- layers -----------------------------------------------------------------------------------------------------------


def _chain(rows: int, *modules: nn.Module) -> list[Layer]:
    """What the modules do one after the other, to so many rows."""
    layers: list[Layer] = []
    for module in modules:
        if isinstance(module, nn.Sequential):
            layers += _chain(rows, *module)
        elif isinstance(module, nn.Linear) and module.bias is not None and rows * module.weight.numel() <= SMALL:
            layers.append(_dense(module.weight.detach().numpy().T, module.bias.detach().numpy()))
        else:
            layers.append(_BY_NUMPY.get(type(module)) or _by_torch(module))
    return layers


def _dense(weight: np.ndarray, bias: np.ndarray) -> Layer:
    def layer(inputs: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = inputs @ weight
        outputs += bias
        return outputs

    return layer


def _by_torch(module: nn.Module) -> Layer:
    def layer(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            outputs: np.ndarray = module(torch.from_numpy(inputs)).numpy()
        return outputs

    return layer


def _rectified(inputs: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(inputs, 0))


def _through(layers: Sequence[Layer], values: np.ndarray) -> np.ndarray:
    for layer in layers:
        values = layer(values)
    return values


_BY_NUMPY: dict[type, Layer] = {nn.Tanh: np.tanh, nn.ReLU: _rectified}
_BY_TORCH = {nn.Linear, nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.SiLU}
_AROUND = {ActorCriticPolicy, Critic, FlattenExtractor, MlpExtractor, ReturnScale, nn.Flatten, nn.ModuleList}
_KNOWN = {*_BY_NUMPY, *_BY_TORCH, *_AROUND, nn.Sequential}


# --- values -----------------------------------------------------------------------------------------------------------


def _value_of(ensemble: CriticEnsemble) -> Callable[[list[np.ndarray]], Tensor]:
    """The reduced value, (batch, 1), of every critic's outputs."""
    if type(ensemble.head) in (ScalarHead, QuantileHead) and type(ensemble.reduction) is MeanReduction:
        return _mean_of_all(ensemble.return_scale)

    def value(outputs: list[np.ndarray]) -> Tensor:
        with torch.no_grad():
            distributions = ensemble.distributions([torch.from_numpy(each) for each in outputs])
            return ensemble.value(distributions).unsqueeze(1)

    return value


def _mean_of_all(scale: ReturnScale | None) -> Callable[[list[np.ndarray]], Tensor]:
    """The mean of all outputs of all critics, in reward units: there are as many of each."""
    std, mean = (None, None) if scale is None else (scale.std.numpy(), scale.mean.numpy())

    def value(outputs: list[np.ndarray]) -> Tensor:
        values = np.concatenate(outputs, 1)
        if values.shape[1] > 1:
            values = values.sum(1, keepdims=True) / values.shape[1]
        if std is not None:
            values *= std
            values += mean
        return torch.from_numpy(values)

    return value


# --- decisions --------------------------------------------------------------------------------------------------------


def _gaussian(policy: ActorCriticPolicy, rows: int) -> Decider:
    """``mean + std * noise``, the noise drawn as torch's ``Normal`` does."""
    log_std = policy.log_std.detach().numpy()
    noise = torch.empty(rows, len(log_std))
    draws, constant = noise.numpy(), len(log_std) * _HALF_LOG_2_PI

    def decide(mean: np.ndarray) -> Decision:
        std = np.exp(log_std)
        scale = float(np.log(std).sum())
        if not math.isfinite(scale):
            return None
        noise.normal_()
        actions = draws * std
        actions += mean
        distance = actions - mean
        distance /= std
        distance *= distance
        log_prob = distance.sum(1)
        log_prob *= -0.5
        log_prob -= scale + constant
        return actions, log_prob

    return decide


def _categorical(policy: ActorCriticPolicy, rows: int) -> Decider:
    distribution: Any = policy.action_dist
    noise = torch.empty(rows, distribution.action_dim)
    return lambda logits: _chosen(logits, noise)


def _multi_categorical(policy: ActorCriticPolicy, rows: int) -> Decider:
    """One independent choice after the other."""
    distribution: Any = policy.action_dist
    sizes = [int(size) for size in distribution.action_dims]
    ends = np.cumsum(sizes)[:-1]
    noises = [torch.empty(rows, size) for size in sizes]

    def decide(logits: np.ndarray) -> Decision:
        parts = np.split(logits, ends, axis=1)
        choices = [_chosen(part, noise) for part, noise in zip(parts, noises, strict=True)]
        actions, log_probs = zip(*choices, strict=True)
        return np.stack(actions, axis=1), np.stack(log_probs, axis=1).sum(1)

    return decide


def _chosen(logits: np.ndarray, noise: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """One choice per row as ``torch.multinomial`` draws it, the largest ``probability / exponential``, and its log."""
    relative = logits - logits.max(1, keepdims=True)
    weights = np.exp(relative)
    total = weights.sum(1, keepdims=True)
    choice = (weights / total / noise.exponential_().numpy()).argmax(1)
    return choice, relative[np.arange(len(choice)), choice] - np.log(total[:, 0])


def _bernoulli(policy: ActorCriticPolicy, rows: int) -> Decider:
    """Each switch on with probability ``1 / (1 + exp(-logit))``."""

    def decide(logits: np.ndarray) -> Decision:
        actions: np.ndarray = torch.bernoulli(torch.from_numpy(1 / (1 + np.exp(-logits)))).numpy()
        return actions, (actions * logits - np.logaddexp(0, logits)).sum(1)

    return decide


_DECIDERS: dict[type, Callable[[ActorCriticPolicy, int], Decider]] = {
    sb3.DiagGaussianDistribution: _gaussian,
    sb3.CategoricalDistribution: _categorical,
    sb3.MultiCategoricalDistribution: _multi_categorical,
    sb3.BernoulliDistribution: _bernoulli,
}
