"""What is noise and what is signal in a gradient: stateless rules, right under ``make_fx`` and ``vmap``.

Notation, for the gradients ``g`` of one tensor over time: ``mean`` and ``ss`` are the weighted mean and the
weighted sum of squared deviations, elementwise; the k-th of t observations has the weight
``w_k = (1 - b_k) * b_(k+1) * ... * b_t``, and ``c = sum(w)``, ``q = sum(w^2)``. ``N`` is the noise (the
variance summed over the elements) and ``S`` the signal (the squared norm of the expected gradient).

Scalars are python floats or 0-d tensors. Quantities of n tensors are stacked, (n,). The eager scaler calls
the elementwise rules once, on one vector that holds all parameters, a traced step once per parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Scalar = float | Tensor


def largest_norm(dtype: torch.dtype) -> float:
    """The largest norm of gradients whose squared deviations from one another stay finite in ``dtype``."""
    return math.sqrt(torch.finfo(dtype).max) / 2


def advance_weights_(c: Tensor, q: Tensor, decay: Scalar) -> None:
    """``c <- b*c + a`` and ``q <- b^2*q + a^2`` with ``a = 1 - b``, in place; ``b = 1`` changes nothing.

    Args:
        c: Sum of the weights of all observations, zero before the first, any shape.
        q: Sum of their squares.
        decay: ``b``, which may change between calls.
    """
    fresh = 1 - decay
    c.mul_(decay).add_(fresh)
    q.mul_(decay * decay).add_(fresh * fresh)


def move_mean_(mean: Tensor, observation: Tensor, weight_ratio: Scalar) -> Tensor:
    """``d = x - mean; mean <- mean + (a/c)*d``, in place; returns ``d``."""
    deviation = observation - mean
    mean.add_(deviation * weight_ratio)
    return deviation


def observe_(mean: Tensor, ss: Tensor, gradient: Tensor, weight_ratio: Scalar, fresh: Scalar, decay: Scalar) -> None:
    """``d = g - mean; mean <- mean + (a/c)*d; ss <- b*ss + a*d*(g - mean)``, in place.

    Gradients that never change leave ``ss`` at exactly 0. With ``(weight_ratio, fresh, decay) = (0, 0, 1)``
    and a finite gradient nothing changes.

    Args:
        mean: Weighted mean of the gradients so far, any shape.
        ss: Weighted sum of their squared deviations, the same shape.
        gradient: The new gradient, finite, the same shape.
        weight_ratio: ``a/c`` with the new ``c``: exactly 1 at the first observation.
        fresh: ``a = 1 - b``, the weight of the new gradient.
        decay: ``b``, by which the weights of earlier ones shrink.

    Source: West 1979, with weights that decay.
    """
    deviation = move_mean_(mean, gradient, weight_ratio)
    ss.mul_(decay).add_(fresh * deviation * (gradient - mean))


def magnitudes(gradients: Sequence[Tensor], count: Scalar) -> tuple[Tensor, Tensor]:
    """Mean absolute value over ``count`` elements, and norm, of all gradients together, 0-d.

    In float64: a running float32 sum of millions of absolute values loses the small ones, 0.4 % of the whole.
    """
    sums = torch.stack([torch.linalg.vector_norm(gradient, 1, dtype=torch.float64) for gradient in gradients])
    norms = torch.stack([torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients])
    return sums.sum() / count, torch.linalg.vector_norm(norms)


def move_averages_(averages: Sequence[Tensor], weight: Tensor, observations: Sequence[Tensor], decay: Scalar) -> None:
    """Running means from the first observation on: ``w <- b*w + a; mean += (a/w)*(x - mean)``, in place.

    Args:
        averages: Running means, of any shapes.
        weight: Sum of the weights of all observations, which the averages share, 0-d.
        observations: One new value for each average.
        decay: ``b``.
    """
    weight.mul_(decay).add_(1 - decay)
    weight_ratio = (1 - decay) / weight
    for average, observation in zip(averages, observations, strict=True):
        move_mean_(average, observation, weight_ratio)


def is_measured(c: Tensor, q: Tensor) -> Tensor:
    """Whether at least two gradients were seen, so that there is a variance: ``c^2 > q``, booleans (n,)."""
    return c * c > q


def sums(tensors: Sequence[Tensor]) -> Tensor:
    """The sum over the elements of each tensor in float64, (n,)."""
    return torch.stack([tensor.sum(dtype=torch.float64) for tensor in tensors])


def sums_of_squares(tensors: Sequence[Tensor]) -> Tensor:
    """The sum over the squared elements of each tensor in float64, (n,)."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]
    return torch.stack(norms).square()


def noise_and_signal(sum_ss: Tensor, sum_mean_squared: Tensor, c: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """``N = sum(ss)/c / (1 - q/c^2)`` and ``S = sum(mean^2) - (q/c^2)*N``; both 0 before two gradients.

    Both are unbiased for independent gradients, so S may be negative where there is no signal.

    Args:
        sum_ss: Sum of ``ss`` over the elements of each tensor, (n,).
        sum_mean_squared: Sum of ``mean^2`` over the elements of each tensor, (n,).
        c: Sums of weights, (n,).
        q: Sums of squared weights, (n,).

    Returns:
        Noise and signal, both (n,), in squared units of the gradient.

    Source: Balles & Hennig 2018 (variance from exponential averages); McCandlish et al. 2018, appendix A.
    """
    squared = c * c
    measured = is_measured(c, q)
    noise = torch.where(measured, sum_ss * c / (squared - q), 0.0)
    signal = torch.where(measured, sum_mean_squared - q / squared * noise, 0.0)
    return noise, signal


def unresolved_signal(noise: Tensor, c: Tensor, q: Tensor) -> Tensor:
    """``(q/c^2) * N``, (n,): the squared norm that the mean of pure noise has; a smaller signal is not seen."""
    return torch.where(c > 0, q / (c * c), 0.0) * noise


def half_batch_noise_and_signal(gradient_a: Tensor, gradient_b: Tensor) -> tuple[Tensor, Tensor]:
    """``N = |gA - gB|^2 / 4`` and ``S = <gA, gB>``, unbiased where two independent half-batches are at hand.

    Args:
        gradient_a: Gradient of the mean loss of one half, any shape.
        gradient_b: Gradient of the mean loss of the other half.

    Returns:
        Noise and signal of the whole batch's gradient ``(gA + gB) / 2``, 0-d tensors.
    """
    return (gradient_a - gradient_b).square().sum() / 4, (gradient_a * gradient_b).sum()


def noise_to_signal(noise: Tensor, signal: Tensor, tiny: Scalar) -> Tensor:
    """``r = N / max(S, tiny*N)``, 0 where there is no noise; multiplying all gradients leaves it as it is.

    Args:
        noise: ``N``, (n,).
        signal: ``S``, (n,), of any sign.
        tiny: Bounds r by ``1/tiny``; it has no unit.
    """
    return torch.where(noise > 0, noise / torch.maximum(signal, tiny * noise), 0.0)
