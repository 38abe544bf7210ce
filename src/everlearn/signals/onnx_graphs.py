"""What is exported to ONNX: from what an environment or a table gives to what is done, as one torch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from torch import Tensor, nn

from everlearn.core.errors import StateError
from everlearn.environments.statistics import normalised, require_shapes
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.signals.decision import POSITION, QUANTILES, SCORE, Decision, reward_unit
from everlearn.signals.onnx_decision import inputs_of, outputs_of

_ROWS = 3
"""Of the example that a graph is traced with; 1 would be taken for a shape of its own."""
_ACTIONS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


@final
class MarketGraph(nn.Module):
    """From bars, (rows, window, features), in float64, and the account to scores, positions and quantiles.

    Args:
        spec: How bars are standardised.
        decision: What is decided on them.
    """

    def __init__(self, spec: FeatureSpec, decision: Decision) -> None:
        super().__init__()
        self.spec, self.decision = spec, decision
        device = decision.policy.device
        shapes = [(spec.window, len(spec.features)), (len(spec.account),)]
        examples = [torch.zeros(_ROWS, *shapes[0], dtype=torch.float64), torch.zeros(_ROWS, *shapes[1])]
        self.inputs = {name: each.to(device) for name, each in zip(inputs_of(spec), examples, strict=False)}
        self.outputs = tuple(outputs_of(decision.levels))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The decisions, as a table's windows are decided on."""
        decision: Any = self.decision  # which takes tensors for arrays
        bars, *account = given
        seen = torch.cat([self.spec.standardised(bars).to(torch.float32).flatten(1), *account], dim=1)
        decisions: Tensor = decision(decision.prepared(seen))
        columns = decisions[:, SCORE], decisions[:, POSITION], decisions[:, QUANTILES:]
        return columns[: len(self.outputs)]


@final
class PolicyGraph(nn.Module):
    """From observations as the environment inside a normaliser gives them to deterministic actions and values.

    Actions are as ``predict`` gives them: clipped to their bounds, or scaled to them where the policy squashes. Values
    are in rewards of the environment. Images come as the policy's observation space has them, channels first.

    Args:
        policy: An actor-critic policy.
        statistics: State of the normaliser that was around the environment in training; None if there was none.

    Raises:
        StateError: If observations or actions are of a kind that is not exported, or the statistics do not fit.
    """

    outputs = ("action", "value")

    def __init__(self, policy: SB3ActorCriticPolicy, statistics: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        require_exportable(policy, statistics)
        self.policy, self.statistics = policy, statistics
        self.keys, parts = observation_parts(policy.observation_space)
        self.inputs = {name: _example(space, policy.device) for name, space in parts.items()}
        self._unit = reward_unit(statistics)
        if isinstance(policy.action_space, spaces.Box):
            for name in ("low", "high"):
                bound = torch.as_tensor(getattr(policy.action_space, name), device=policy.device)
                self.register_buffer(f"_{name}", bound)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Actions, (rows, *shape), and values, (rows,)."""
        policy: Any = self.policy
        seen: Any = given[0] if self.keys is None else dict(zip(self.keys, given, strict=True))
        if self.statistics is not None:
            seen = normalised(seen, self.statistics)
        actions = policy.get_distribution(seen).mode().reshape(-1, *policy.action_space.shape)
        return self._within_bounds(actions), policy.predict_values(seen).flatten() * self._unit

    def _within_bounds(self, actions: Tensor) -> Tensor:
        """As SB3's ``predict`` does."""
        if not isinstance(self.policy.action_space, spaces.Box):
            return actions
        low: Any = self._low
        high: Any = self._high
        if self.policy.squash_output:
            scaled: Tensor = low + (0.5 * (actions + 1.0) * (high - low))
            return scaled
        return torch.clamp(actions, low, high)


def observation_parts(space: spaces.Space[Any]) -> tuple[tuple[str, ...] | None, dict[str, spaces.Space[Any]]]:
    """The keys of dictionary observations, None for others; and the space of each input by its name."""
    if not isinstance(space, spaces.Dict):
        return None, {"observations": space}
    return tuple(space.spaces), {f"observations.{key}": each for key, each in space.spaces.items()}


def require_exportable(policy: SB3ActorCriticPolicy, statistics: Mapping[str, Any] | None) -> None:
    """Refuse kinds of spaces that were never tried, and statistics of other observations.

    Raises:
        StateError: Naming them.
    """
    for space in observation_parts(policy.observation_space)[1].values():
        if not isinstance(space, spaces.Box):
            raise StateError(f"The observations are {space}: ONNX files take Box, and dictionaries of Box.")
    if not isinstance(policy.action_space, _ACTIONS):
        kinds = ", ".join(kind.__name__ for kind in _ACTIONS)
        raise StateError(f"The actions are {policy.action_space}: ONNX files give {kinds}.")
    if statistics is not None:
        remedy = "A normaliser within other wrappers cannot be exported: put it around them, and train again."
        require_shapes(statistics, policy.observation_space, remedy)


def _example(space: spaces.Space[Any], device: torch.device) -> Tensor:
    return torch.as_tensor(np.zeros((_ROWS, *(space.shape or ())), space.dtype), device=device)
