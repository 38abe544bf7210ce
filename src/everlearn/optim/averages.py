"""Running averages in place: with python floats in the operations of torch's AdamW, with 0-d tensors traceable."""

from __future__ import annotations

from torch import Tensor

from everlearn.optim.block import Scalar


def ema_(average: Tensor, value: Tensor, beta: Scalar) -> None:
    """``average <- beta * average + (1 - beta) * value``; with a float as torch's AdamW does."""
    if isinstance(beta, float):
        average.lerp_(value, 1 - beta)
    else:
        average.mul_(beta).add_(value * (1 - beta))


def ema_of_product_(average: Tensor, left: Tensor, right: Tensor, beta: Scalar, sign: float = 1.0) -> None:
    """``average <- beta * average + (1 - beta) * sign * left * right``; with a float as torch's AdamW does."""
    if isinstance(beta, float):
        average.mul_(beta).addcmul_(left, right, value=sign * (1 - beta))
    else:
        average.mul_(beta).add_(left * right * (sign * (1 - beta)))


def advance_weights_(weights: Tensor, betas: Tensor) -> None:
    """Running weights of averages: ``c <- beta * c + (1 - beta)``; right also where beta changes on the way."""
    weights.mul_(betas).add_(1 - betas)
