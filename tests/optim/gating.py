"""How much of the base optimizer's step is taken by weights of known utility."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.testing.optimizers import held, take_step

UNIT_STEP: dict[str, Any] = {"lr": 1.0, "weight_decay": 0.0, "sigma": 0.0}
"""Weights at zero then move by minus their multiplier when the gradient is one."""


def at_zero(*shapes: Sequence[int]) -> list[nn.Parameter]:
    """Weights at zero, whose utility changes only by its decay."""
    return [nn.Parameter(torch.zeros(tuple(shape))) for shape in shapes]


def taken(optimizer: UtilityOptimizer, *utilities: Sequence[Any], weight: float = 1.0) -> list[Tensor]:
    """The multipliers of weights at zero under ``UNIT_STEP``, given a utility for each of them."""
    for param, utility in zip(held(optimizer), utilities, strict=True):
        optimizer.state[param]["avg_utility"].copy_(torch.tensor(utility))
        optimizer.state[param]["ema_weights"][0] = weight
    take_step(optimizer, [torch.ones_like(param) for param in held(optimizer)])
    return [-param.detach() for param in held(optimizer)]


def multipliers(
    kind: type[UtilityOptimizer], utilities: Sequence[float], weight: float = 1.0, **options: Any
) -> Tensor:
    """The same for one parameter."""
    optimizer = kind(at_zero((len(utilities),)), **{**UNIT_STEP, **options})
    return taken(optimizer, utilities, weight=weight)[0]
