"""From several critics to the one number per sample that is used as the value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from everlearn.core.errors import require_in_range
from everlearn.core.registry import Registry
from everlearn.values.head import ValueDistribution, lower_tail_mean


class Reduction(ABC):
    """How the predictions of several critics for the same samples become one value."""

    @abstractmethod
    def __call__(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The value, (batch,), of one distribution per critic."""


reductions: Registry[Reduction] = Registry("critic reduction")


def critic_means(distributions: Sequence[ValueDistribution]) -> Tensor:
    """What each critic expects, (batch, n_critics)."""
    return torch.stack([distribution.mean for distribution in distributions], dim=-1)


def disagreement(distributions: Sequence[ValueDistribution]) -> Tensor:
    """The standard deviation of the critics' means, (batch,); 0 for one critic."""
    return critic_means(distributions).std(dim=-1, correction=0)


@reductions.register("mean")
@final
@dataclass(frozen=True)
class MeanReduction(Reduction):
    """The mean of the critics' means: less variance, no bias."""

    def __call__(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The mean over critics, (batch,)."""
        return critic_means(distributions).mean(-1)


@reductions.register("min")
@final
@dataclass(frozen=True)
class MinReduction(Reduction):
    """The lowest of the critics' means: pessimism, which bootstrapping compounds."""

    def __call__(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The minimum over critics, (batch,)."""
        return critic_means(distributions).amin(-1)


@reductions.register("lcb")
@final
@dataclass(frozen=True)
class LowerConfidenceBound(Reduction):
    """``mean - c*std`` over the critics' means; for two critics and ``c = 1`` it is their minimum.

    Args:
        c: How many standard deviations below the mean; 0 is the mean.
    """

    c: float = 1.0

    def __post_init__(self) -> None:
        require_in_range("c", self.c, 0.0, open_high=True)

    def __call__(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The bound, (batch,)."""
        return critic_means(distributions).mean(-1) - self.c * disagreement(distributions)


@reductions.register("truncated")
@final
@dataclass(frozen=True)
class TruncatedReduction(Reduction):
    """The mean of all critics' mass pooled, without its highest ``fraction`` (Kuznetsov et al. 2020, TQC).

    For n critics of 32 quantiles the default drops the 2*n highest of the 32*n pooled quantiles.

    Args:
        fraction: Share of the pooled mass that is dropped, in [0, 1).
    """

    fraction: float = 1 / 16

    def __post_init__(self) -> None:
        require_in_range("fraction", self.fraction, 0.0, 1.0, open_high=True)

    def __call__(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The truncated mean, (batch,)."""
        positions, probabilities = zip(*(each.atoms() for each in distributions), strict=True)
        pooled = torch.cat(probabilities, dim=-1) / len(distributions)
        return lower_tail_mean(torch.cat(positions, dim=-1), pooled, 1.0 - self.fraction)
