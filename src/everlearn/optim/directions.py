"""Directions of descent: the one thing in which the members of the UPGD family differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

from torch import Tensor

from everlearn.optim.averages import ema_, ema_of_product_
from everlearn.optim.block import Block, Hyper, Scalar


def subtract_(param: Tensor, update: Tensor, step: Scalar) -> None:
    """``w <- w - step * update``."""
    if isinstance(step, float):
        param.add_(update, alpha=-step)
    else:
        param.sub_(update * step)


def subtract_ratio_(param: Tensor, numerator: Tensor, denominator: Tensor, step: Scalar) -> None:
    """``w <- w - step * numerator / denominator``, with a float in the very operation of torch's AdamW."""
    if isinstance(step, float):
        param.addcdiv_(numerator, denominator, value=-step)
    else:
        param.sub_(numerator / denominator * step)


def subtract_product_(param: Tensor, left: Tensor, right: Tensor, step: Scalar) -> None:
    """``w <- w - step * left * right``."""
    if isinstance(step, float):
        param.addcmul_(left, right, value=-step)
    else:
        param.sub_(left * right * step)


def scaled(update: Tensor, *factors: Scalar | None) -> Tensor:
    """The update times every factor that is there."""
    for factor in factors:
        if factor is not None:
            update = update * factor
    return update


class Direction(ABC):
    """Where a weight goes before gate and noise; the one thing in which the members of the family differ."""

    averages: ClassVar[tuple[str, ...]]
    """Names of the running averages that the direction needs."""

    @abstractmethod
    def decays(self, hyper: Hyper) -> tuple[Scalar, ...]:
        """The decay of each average, in order."""

    @abstractmethod
    def observe_(self, block: Block, hyper: Hyper) -> None:
        """Take the gradient into the averages."""

    @abstractmethod
    def update(self, block: Block, hyper: Hyper) -> Tensor:
        """The update that one unit of learning rate subtracts."""

    @abstractmethod
    def descend_(self, block: Block, hyper: Hyper, step: Scalar, gate: Tensor | None) -> None:
        """Subtract step times gate times the block's step scale times the update."""


@final
class GradientDirection(Direction):
    """The gradient itself, as in SGD."""

    averages = ()

    def decays(self, hyper: Hyper) -> tuple[Scalar, ...]:
        """No averages, no decays."""
        return ()

    def observe_(self, block: Block, hyper: Hyper) -> None:
        """Nothing to remember."""

    def update(self, block: Block, hyper: Hyper) -> Tensor:
        """``g``, without a factor that a gradient scaler applied to it."""
        return block.grad if block.grad_scale is None else block.grad / block.spread(block.grad_scale)

    def descend_(self, block: Block, hyper: Hyper, step: Scalar, gate: Tensor | None) -> None:
        """``w <- w - step * gate * g``."""
        scale = None if block.step_scale is None else block.spread(block.step_scale)
        subtract_(block.param, scaled(block.grad, gate, scale), step)


@final
class AdamDirection(Direction):
    """Adam's ratio ``m^ / (sqrt(v^) + eps)`` of the ungated gradient (Kingma & Ba 2015)."""

    averages = ("exp_avg", "exp_avg_sq")

    def decays(self, hyper: Hyper) -> tuple[Scalar, ...]:
        """``beta1`` and ``beta2``."""
        return hyper["beta1"], hyper["beta2"]

    def observe_(self, block: Block, hyper: Hyper) -> None:
        """``m <- EMA(g)``, ``v <- EMA(g * g)``."""
        ema_(block.state["exp_avg"], block.grad, hyper["beta1"])
        ema_of_product_(block.state["exp_avg_sq"], block.grad, block.grad, hyper["beta2"])

    def _denominator(self, block: Block, hyper: Hyper) -> Tensor:
        weight = block.spread(block.weights["exp_avg_sq"])
        return block.state["exp_avg_sq"].sqrt().div_(weight**0.5).add_(hyper["eps"])

    def update(self, block: Block, hyper: Hyper) -> Tensor:
        """``m^ / (sqrt(v^) + eps)``."""
        return block.state["exp_avg"] / block.spread(block.weights["exp_avg"]) / self._denominator(block, hyper)

    def descend_(self, block: Block, hyper: Hyper, step: Scalar, gate: Tensor | None) -> None:
        """``w <- w - step * gate * m^ / (sqrt(v^) + eps)``."""
        scale = None if block.step_scale is None else block.spread(block.step_scale)
        if block.update is not None:
            subtract_(block.param, scaled(block.update, gate, scale), step)
            return
        numerator = scaled(block.state["exp_avg"], gate, scale)
        step = step / block.spread(block.weights["exp_avg"])
        subtract_ratio_(block.param, numerator, self._denominator(block, hyper), step)
