"""Networks without a loss: tests say what the gradients are."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from everlearn.gradients import VarianceGradientScaler


def parameters_of(*shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(tuple(shape), dtype=dtype)) for shape in shapes]


def give(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.to(parameter.dtype).clone()


def feed(scaler: VarianceGradientScaler, steps: Iterable[Sequence[Tensor | None]]) -> list[float]:
    """One update per step without an optimizer; the factors that ``scale_gradients`` returned."""
    returned = []
    for gradients in steps:
        give(scaler.parameters, gradients)
        returned.append(scaler.scale_gradients())
        scaler.step()
    return returned


def random_steps(count: int, *shapes: Sequence[int], noise: float = 1.0, mean: float = 0.0) -> list[list[Tensor]]:
    return [[mean + noise * torch.randn(tuple(shape)) for shape in shapes] for _ in range(count)]
