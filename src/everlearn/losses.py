"""The policy's side of PPO's loss: pure functions of tensors, in Stable-Baselines3's order of operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def clipped_surrogate_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_range: float | Tensor
) -> tuple[Tensor, Tensor]:
    """``-mean(min(A*rho, A*clip(rho, 1 - c, 1 + c)))``, ``rho = exp(log_prob - old_log_prob)``.

    Schulman et al. 2017, equation 7.

    Args:
        log_prob: Of the actions taken, under the current policy, (batch,).
        old_log_prob: Of the same actions, under the policy that took them, (batch,).
        advantages: ``A``, (batch,).
        clip_range: ``c``, a number or 0-d.

    Returns:
        The loss, 0-d, and the probability ratio ``rho``, (batch,).
    """
    ratio = torch.exp(log_prob - old_log_prob)
    clipped = torch.clamp(ratio, 1 - clip_range, 1 + clip_range)  # type: ignore[arg-type]  # either overload fits
    return -torch.min(advantages * ratio, advantages * clipped).mean(), ratio


def clip_fraction(ratio: Tensor, clip_range: float | Tensor) -> Tensor:
    """The share of samples whose probability ratio, (batch,), is further than ``clip_range`` from 1; 0-d."""
    return torch.mean((torch.abs(ratio - 1) > clip_range).float())


def normalize_advantages(advantages: Tensor) -> Tensor:
    """``(A - mean)/(std + 1e-8)``, (batch,); a single advantage, which has no scale, stays as it is."""
    if len(advantages) == 1:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def entropy_loss(entropy: Tensor | None, log_prob: Tensor) -> Tensor:
    """``-mean(entropy)``, 0-d; without a closed form, ``-log_prob`` of the samples estimates it.

    Args:
        entropy: Of the current action distributions, (batch,), or None.
        log_prob: Of the actions taken, (batch,).
    """
    return -torch.mean(-log_prob if entropy is None else entropy)


def approximate_kl(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """``mean((rho - 1) - ln rho)``, 0-d: the estimate k3 of KL(old || new), unbiased and never negative.

    Schulman 2020, "Approximating KL divergence". Arguments as in ``clipped_surrogate_loss``.
    """
    log_ratio = log_prob - old_log_prob
    return torch.mean((torch.exp(log_ratio) - 1) - log_ratio)


def kl_diagonal_gaussian(mean_old: Tensor, log_std_old: Tensor, mean_new: Tensor, log_std_new: Tensor) -> Tensor:
    """KL(old || new) of Gaussians with independent dimensions, (batch,).

    Args:
        mean_old: (batch, dimensions).
        log_std_old: Logarithm of the standard deviation, (batch, dimensions) or (dimensions,).
        mean_new: (batch, dimensions).
        log_std_new: (batch, dimensions) or (dimensions,).
    """
    log_ratio = log_std_old - log_std_new
    distance = (mean_old - mean_new) * torch.exp(-log_std_new)
    # expm1 keeps the digits of a small divergence, where exp(x) - 1 would cancel them
    return 0.5 * (torch.expm1(2 * log_ratio) - 2 * log_ratio + distance.square()).sum(-1)


def kl_categorical(logits_old: Tensor, logits_new: Tensor) -> Tensor:
    """KL(old || new) of categorical distributions, (batch,), from logits, (batch, categories).

    A category that was impossible (a logit of minus infinity, as masks of actions give) adds nothing.
    """
    log_old, log_new = logits_old.log_softmax(-1), logits_new.log_softmax(-1)
    old = log_old.exp()
    return (old * torch.where(old > 0, log_old - log_new, 0.0)).sum(-1)


def kl_bernoulli(logits_old: Tensor, logits_new: Tensor) -> Tensor:
    """KL(old || new) of independent Bernoulli variables, (batch,), from logits, (batch, variables)."""
    on = logits_old.sigmoid() * (logsigmoid(logits_old) - logsigmoid(logits_new))
    off = (-logits_old).sigmoid() * (logsigmoid(-logits_old) - logsigmoid(-logits_new))
    return (on + off).sum(-1)
