"""How far the distribution of actions has moved: its parameters as one tensor, and the exact divergence from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal

from everlearn import losses


@singledispatch
def action_parameters(distribution: Any) -> Tensor | None:
    """The parameters of a batch of action distributions, (batch, k); None where the divergence has no closed form.

    Args:
        distribution: A torch distribution as SB3's policies hold it: a diagonal Gaussian (before any squashing, which
            leaves the divergence as it is), a categorical one or a list of them, or Bernoulli.
    """
    return None


@singledispatch
def action_kl(distribution: Any, old: Tensor) -> Tensor:
    """KL(old || distribution), (batch,).

    Args:
        distribution: The current one, of a kind whose ``action_parameters`` is not None.
        old: ``action_parameters`` of the old one, (batch, k).
    """
    raise TypeError(f"KL to {type(distribution).__name__} has no closed form; its action_parameters() is None.")


@action_parameters.register
def _(distribution: Normal) -> Tensor:
    return torch.cat([distribution.mean, distribution.stddev.log()], dim=1)


@action_kl.register
def _(distribution: Normal, old: Tensor) -> Tensor:
    mean, log_std = old.chunk(2, dim=1)
    return losses.kl_diagonal_gaussian(mean, log_std, distribution.mean, distribution.stddev.log())


@action_parameters.register
def _(distribution: Categorical) -> Tensor:
    return distribution.logits


@action_kl.register
def _(distribution: Categorical, old: Tensor) -> Tensor:
    return losses.kl_categorical(old, distribution.logits)


@action_parameters.register
def _(distribution: Bernoulli) -> Tensor:
    return distribution.logits


@action_kl.register
def _(distribution: Bernoulli, old: Tensor) -> Tensor:
    return losses.kl_bernoulli(old, distribution.logits)


@action_parameters.register(list)
def _(distribution: Sequence[Categorical]) -> Tensor:
    return torch.cat([part.logits for part in distribution], dim=1)


@action_kl.register(list)
def _(distribution: Sequence[Categorical], old: Tensor) -> Tensor:
    parts = old.split([part.logits.shape[1] for part in distribution], dim=1)
    return torch.stack(
        [losses.kl_categorical(before, now.logits) for before, now in zip(parts, distribution, strict=True)]
    ).sum(0)
