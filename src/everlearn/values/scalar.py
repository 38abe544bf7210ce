"""One number per sample: the value function of ordinary PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from everlearn.values.head import (
    ValueDistribution,
    ValueHead,
    heads,
    require_one_per_sample,
    rescale_affine_,
)


@final
@dataclass(frozen=True, eq=False)
class ScalarDistribution(ValueDistribution):
    """All mass of each distribution on one point.

    Args:
        values: (batch,).
    """

    values: Tensor

    @property
    def mean(self) -> Tensor:
        """The point, (batch,)."""
        return self.values

    @property
    def tail_resolution(self) -> float:
        """0: every tail of a point is the point."""
        return 0.0

    def atoms(self) -> tuple[Tensor, Tensor]:
        """One point of probability 1 per sample, both (batch, 1)."""
        positions = self.values.unsqueeze(-1)
        return positions, torch.ones_like(positions)

    def shift(self, delta: Tensor) -> ScalarDistribution:
        """The points moved by ``delta``, (batch,)."""
        return ScalarDistribution(self.values + delta)

    def recentre(self, mean: Tensor) -> ScalarDistribution:
        """The points at ``mean``, (batch,), to the bit."""
        return ScalarDistribution(mean)

    def loss(self, returns: Tensor) -> Tensor:
        """The squared error, (batch,); no factor 1/2, as in Stable-Baselines3."""
        require_one_per_sample("returns", returns, self.values.shape[0])
        return mse_loss(self.values, returns, reduction="none")


@heads.register("scalar")
@final
@dataclass(frozen=True)
class ScalarHead(ValueHead):
    """The one output of the network is the value."""

    @property
    def n_outputs(self) -> int:
        """One."""
        return 1

    def distribution(self, outputs: Tensor) -> ScalarDistribution:
        """Points at ``outputs``, (batch, 1)."""
        return ScalarDistribution(outputs.squeeze(-1))

    def rescale_(self, linear: nn.Linear, old_mean: Tensor, old_std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
        """Keep predictions in reward units exactly; see ``ValueHead.rescale_``."""
        rescale_affine_(linear, old_mean, old_std, new_mean, new_std)
