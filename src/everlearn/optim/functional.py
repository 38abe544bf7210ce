"""An optimizer's step as a function of tensors, for any optimizer that has one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.optim.functional_family import FunctionalUtilityOptimizer
from everlearn.optim.functional_step import FunctionalOptimizer
from everlearn.optim.functional_torch import FunctionalTorchOptimizer
from everlearn.optim.utility_optimizer import UtilityOptimizer


def functional(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> FunctionalOptimizer:
    """The functional step of an optimizer.

    Raises:
        ArgumentError: If it has none; the eager step remains.
    """
    if "step" in vars(optimizer):
        raise ArgumentError(f"The step of this {type(optimizer).__name__} has been replaced. Use the eager one.")
    own = inspect.unwrap(type(optimizer).step) is inspect.unwrap(UtilityOptimizer.step)  # torch wraps it for each class
    if isinstance(optimizer, UtilityOptimizer) and own:
        return FunctionalUtilityOptimizer(optimizer, names)
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        return FunctionalTorchOptimizer(optimizer, names)
    raise ArgumentError(f"{type(optimizer).__name__} has no functional step. Use the eager one.")
