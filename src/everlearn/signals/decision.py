"""What a policy decides on observations, in blocks of one size: in a table, and bar by bar, to the same bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.threads import threads
from everlearn.environments.statistics import normalised
from everlearn.markets.windows import FeatureWindows
from everlearn.ppo.policy import ActorCriticPolicy

BLOCK = 1024
"""Rows that are evaluated together. The bits of a row depend on how many there are, but not on where it is among them,
nor on the others: so all go through blocks of this size, the last one padded."""
SCORE, POSITION, QUANTILES = 0, 1, 2
"""Columns of a decision; from the third on, quantiles of the value distribution."""


class Decide(Protocol):
    """What decides on observations, a block at a time."""

    levels: tuple[float, ...]
    """Of the quantiles in a decision."""
    dtype: type[np.floating[Any]]
    """Of the numbers that it looks at."""
    raw: bool
    """Whether it looks at features as they are, and standardises them itself."""

    def look(self, windows: FeatureWindows, bars: slice, account: np.ndarray | None) -> np.ndarray:
        """What it has to see of some bars, (bars, spec.size), and of the account, (bars, account features)."""
        ...

    def prepared(self, observations: np.ndarray) -> np.ndarray:
        """The same of an environment's observations, (rows, size)."""
        ...

    def block(self, seen: np.ndarray) -> np.ndarray:
        """The decisions, (BLOCK, 2 + levels), on what it saw, (BLOCK, size)."""
        ...


class Decision(nn.Module):
    """From observations, (batch, size), to decisions, (batch, 2 + levels): score, target position, value quantiles.

    The score of a continuous policy is its target position; that of a discrete one, whose actions are short, flat and
    long, is ``P(long) - P(short)``, and its position that of the likeliest.

    Args:
        policy: An actor-critic policy.
        levels: Of the quantiles; none for a policy that predicts no distribution.
        statistics: State of the normaliser that was around the environment in training; None if there was none.

    Raises:
        StateError: If its actions are no positions.
        ArgumentError: If quantiles are asked of a policy that predicts no distribution.
    """

    dtype = np.float32
    raw = False

    def __init__(
        self,
        policy: SB3ActorCriticPolicy,
        levels: Sequence[float] = (),
        statistics: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_positions(policy.action_space)
        if levels and not isinstance(policy, ActorCriticPolicy):
            raise ArgumentError(f"quantiles={tuple(levels)}: a {type(policy).__name__} predicts no distribution.")
        self.policy, self.levels, self.statistics = policy, tuple(levels), statistics
        self._unit = reward_unit(statistics)
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.float32, device=policy.device))

    def forward(self, observations: Tensor) -> Tensor:
        """Scores, positions and quantiles side by side, of observations as the policy was trained to see them."""
        distribution = self.policy.get_distribution(observations)
        if isinstance(distribution, CategoricalDistribution):
            probabilities = distribution.distribution.probs
            score = probabilities[:, 2:3] - probabilities[:, 0:1]
            position = probabilities.argmax(dim=1, keepdim=True).to(score.dtype) - 1.0
        else:
            score = position = distribution.mode().clamp(-1.0, 1.0)  # squashed actions keep to these bounds anyway
        columns = [score, position]
        if self.levels:
            policy: Any = self.policy
            predicted = policy.predict_distributions(observations)
            columns.append(policy.ensemble.quantiles(predicted, self._levels) * self._unit)
        return torch.cat(columns, dim=1)

    def look(self, windows: FeatureWindows, bars: slice, account: np.ndarray | None) -> np.ndarray:
        """Observations as the policy was trained to see them."""
        return self.prepared(windows.observations(bars, account))

    def prepared(self, observations: np.ndarray) -> np.ndarray:
        """As ``VecNormalize`` makes them, where there was one in training."""
        if self.statistics is None:
            return observations
        normalised_: np.ndarray = normalised(observations, self.statistics)
        return normalised_

    @torch.inference_mode()
    def block(self, seen: np.ndarray) -> np.ndarray:
        """The same for arrays."""
        decisions: np.ndarray = self(torch.from_numpy(seen).to(self.policy.device)).cpu().numpy()
        return decisions


def reward_unit(statistics: Mapping[str, Any] | None) -> float:
    """The length of a unit of the critics' rewards, in rewards of the environment: what a normaliser divides by."""
    if statistics is None or not statistics["settings"]["norm_reward"]:
        return 1.0
    return float(torch.sqrt(statistics["ret_rms"]["var"] + statistics["settings"]["epsilon"]))


def in_blocks(decide: Decide, seen: np.ndarray) -> np.ndarray:
    """The decisions, (rows, 2 + levels), on what was seen, (rows, size), with one thread: more would change bits.

    Args:
        decide: What decides on a block.
        seen: As it looks at bars.
    """
    rows = len(seen)
    decisions = np.empty((rows, 2 + len(decide.levels)), np.float32)
    with threads(1):
        for start in range(0, rows - rows % BLOCK, BLOCK):
            decisions[start : start + BLOCK] = decide.block(seen[start : start + BLOCK])
        if left := rows % BLOCK:
            padded = np.zeros((BLOCK, *seen.shape[1:]), seen.dtype)
            padded[:left] = seen[rows - left :]
            decisions[rows - left :] = decide.block(padded)[:left]
    return decisions


def require_positions(space: spaces.Space[Any]) -> None:
    """Refuse action spaces other than those of a ``MarketEnv``.

    Raises:
        StateError: Naming the space.
    """
    if isinstance(space, spaces.Discrete) and space.n == 3 and space.start == 0:
        return
    if isinstance(space, spaces.Box) and space.shape == (1,) and space.low.item() == -1 and space.high.item() == 1:
        return
    raise StateError(
        f"The policy's actions are {space}, and no target positions: signals need Box(-1, 1, (1,)) or Discrete(3)."
    )
