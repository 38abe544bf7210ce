"""Quantiles at equal levels, fitted by quantile regression (Dabney et al. 2018, QR-DQN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from everlearn.core.errors import require_in_range
from everlearn.values.head import (
    ValueDistribution,
    ValueHead,
    heads,
    require_one_per_sample,
    rescale_affine_,
)


def quantile_huber_loss(quantiles: Tensor, targets: Tensor, kappa: float) -> Tensor:
    """``mean_i |tau_i - 1{u_i < 0}| * H(u_i)``, ``u_i = target - q_i``, ``tau_i = (i + 1/2)/n``.

    ``H`` is the Huber function: ``u^2/2`` up to ``|u| = kappa``, ``kappa*(|u| - kappa/2)`` beyond. It is not
    divided by ``kappa`` (QR-DQN, equation 10; IQN divides).

    Args:
        quantiles: (batch, n), the i-th for the level ``tau_i``.
        targets: One sample of the return each, (batch,).
        kappa: Where the loss turns from quadratic to linear, in the unit of ``quantiles``.

    Returns:
        (batch,).
    """
    n_quantiles = quantiles.shape[-1]
    levels = (torch.arange(n_quantiles, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / n_quantiles
    error = targets.unsqueeze(-1) - quantiles
    size = error.abs()
    quadratic = size.clamp(max=kappa)
    huber = quadratic * (size - 0.5 * quadratic)
    asymmetry = (levels - (error < 0).to(levels.dtype)).abs()
    return (asymmetry * huber).mean(-1)


@final
@dataclass(frozen=True, eq=False)
class QuantileDistribution(ValueDistribution):
    """Equal mass on each of n quantiles.

    Args:
        quantiles: (batch, n); they need not be in order.
        kappa: Threshold of the Huber loss.
    """

    quantiles: Tensor
    kappa: float

    @property
    def mean(self) -> Tensor:
        """The mean of the quantiles, (batch,)."""
        return self.quantiles.mean(-1)

    @property
    def tail_resolution(self) -> float:
        """The mass of one quantile."""
        return 1.0 / self.quantiles.shape[-1]

    def atoms(self) -> tuple[Tensor, Tensor]:
        """The quantiles, each with probability 1/n."""
        return self.quantiles, torch.full_like(self.quantiles, self.tail_resolution)

    def shift(self, delta: Tensor) -> QuantileDistribution:
        """Every quantile moved by ``delta``, (batch,)."""
        return QuantileDistribution(self.quantiles + delta.unsqueeze(-1), self.kappa)

    def recentre(self, mean: Tensor) -> QuantileDistribution:
        """Every quantile moved by the same distance, so that their mean is ``mean``, (batch,)."""
        return self.shift(mean - self.mean)

    def loss(self, returns: Tensor) -> Tensor:
        """The quantile Huber loss, (batch,)."""
        require_one_per_sample("returns", returns, self.quantiles.shape[0])
        return quantile_huber_loss(self.quantiles, returns, self.kappa)


@heads.register("quantile")
@final
@dataclass(frozen=True)
class QuantileHead(ValueHead):
    """Each output of the network is a quantile, at the levels ``(i + 1/2)/n_quantiles``.

    Args:
        n_quantiles: How many.
        kappa: Threshold of the Huber loss, in units of the return scale (in reward units without one).
    """

    n_quantiles: int = 32
    kappa: float = 1.0

    def __post_init__(self) -> None:
        require_in_range("n_quantiles", self.n_quantiles, 1)
        require_in_range("kappa", self.kappa, 0.0, open_low=True)

    @property
    def n_outputs(self) -> int:
        """One for each quantile."""
        return self.n_quantiles

    def distribution(self, outputs: Tensor) -> QuantileDistribution:
        """The distributions with the quantiles ``outputs``, (batch, n_quantiles)."""
        return QuantileDistribution(outputs, self.kappa)

    def rescale_(self, linear: nn.Linear, old_mean: Tensor, old_std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
        """Keep every quantile in reward units exactly; see ``ValueHead.rescale_``."""
        rescale_affine_(linear, old_mean, old_std, new_mean, new_std)
