"""PPO's value clipping, for any head: how far one update may move a prediction."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from everlearn.values.head import ValueDistribution

ClipRange = float | Tensor


class ValueClipping(Protocol):
    """A loss per sample that looks at how far the prediction has moved."""

    def __call__(
        self, distribution: ValueDistribution, returns: Tensor, old_mean: Tensor, clip_range: ClipRange
    ) -> Tensor:
        """The loss, (batch,); arguments as in ``clipped_value_loss``."""
        ...


def clipped_value_loss(
    distribution: ValueDistribution, returns: Tensor, old_mean: Tensor, clip_range: ClipRange
) -> Tensor:
    """``max(loss(p), loss(p'))`` per sample, ``p'`` being the prediction brought back to the range.

    The larger of the two never rewards leaving the range (OpenAI baselines, ppo2). The target is not clipped.

    Args:
        distribution: The prediction.
        returns: (batch,).
        old_mean: Mean that the same critic predicted before the update, (batch,).
        clip_range: How far the mean may move, a number or 0-d, in the unit of ``returns``.

    Returns:
        (batch,).
    """
    clipped = clipped_prediction_loss(distribution, returns, old_mean, clip_range)
    return torch.maximum(distribution.loss(returns), clipped)


def clipped_prediction_loss(
    distribution: ValueDistribution, returns: Tensor, old_mean: Tensor, clip_range: ClipRange
) -> Tensor:
    """``loss(p')`` per sample: Stable-Baselines3's clipping, without the maximum.

    ``p'`` is ``p`` moved so that its mean is ``old_mean + clip(mean - old_mean, -c, c)``: outside of the
    range the mean has no gradient. Arguments and result as in ``clipped_value_loss``.
    """
    change = distribution.mean - old_mean
    limited = torch.clamp(change, -clip_range, clip_range)  # type: ignore[arg-type]  # either overload fits
    return distribution.recentre(old_mean + limited).loss(returns)
