"""The unit of returns: heads predict in standard deviations around the mean of recent returns."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from everlearn.core.errors import NonFiniteError, require_in_range

_CONSTANT = 1e-6  # relative to the mean, a standard deviation below this is rounding and not a scale


@final
class ReturnScale(nn.Module):
    """``(return - mean)/std`` with running moments; the unit moves only in ``refresh_``.

    Per rollout each moment becomes ``beta*moment + (1 - beta)*rollout's``; a running weight treated alike
    divides them, which removes the start at zero. Unit and moments are buffers: they go wherever the weights go that
    predict in this unit.

    Args:
        beta: Decay of the moments per rollout, in [0, 1).
    """

    mean: Tensor
    std: Tensor
    first_moment: Tensor
    second_moment: Tensor
    weight: Tensor

    def __init__(self, beta: float = 0.9) -> None:
        super().__init__()
        require_in_range("beta", beta, 0.0, 1.0, open_high=True)
        self.beta = beta
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        for name in ("first_moment", "second_moment", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def normalize(self, returns: Tensor) -> Tensor:
        """Reward units to the head's unit, elementwise."""
        return (returns - self.mean) / self.std

    def denormalize(self, values: Tensor) -> Tensor:
        """The head's unit to reward units, elementwise."""
        return values * self.std + self.mean

    @torch.no_grad()
    def observe(self, returns: Tensor) -> None:
        """Fold the returns of one rollout, (n,), into the running moments; the unit stays as it is.

        Raises:
            NonFiniteError: If a return is not finite, or there is none; nothing has changed then.
        """
        returns = returns.to(torch.float64)
        first, second = returns.mean(), returns.square().mean()
        if not torch.isfinite(first + second):
            raise NonFiniteError(
                "The returns of a rollout are empty or contain a NaN or an infinity, so the return scale "
                "stays as it was. Look for non-finite rewards or values."
            )
        self.first_moment.mul_(self.beta).add_((1.0 - self.beta) * first)
        self.second_moment.mul_(self.beta).add_((1.0 - self.beta) * second)
        self.weight.mul_(self.beta).add_(1.0 - self.beta)

    @torch.no_grad()
    def refresh_(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Move the unit to the running moments; constant returns give a standard deviation of 1.

        Returns:
            ``old_mean, old_std, new_mean, new_std``, 0-d, the arguments of ``ValueHead.rescale_``. The unit
            stays as it is where nothing was observed.
        """
        old_mean, old_std = self.mean.clone(), self.std.clone()
        if self.weight > 0:
            mean = self.first_moment / self.weight
            std = (self.second_moment / self.weight - mean.square()).clamp(min=0.0).sqrt()
            constant = std <= _CONSTANT * mean.abs().clamp(min=1.0)
            self.mean.copy_(mean)
            self.std.copy_(torch.where(constant, 1.0, std))
        return old_mean, old_std, self.mean.clone(), self.std.clone()
