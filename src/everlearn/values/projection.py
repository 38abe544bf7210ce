"""Mass on fixed atoms: how it is moved, how a sampled return becomes it, how atoms are spaced."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def symlog(values: Tensor) -> Tensor:
    """``sign(x)*ln(1 + |x|)``, elementwise (Hafner et al. 2023, equation 9)."""
    return values.sign() * values.abs().log1p()


def symexp(values: Tensor) -> Tensor:
    """``sign(x)*(exp(|x|) - 1)``, elementwise: the inverse of ``symlog``."""
    return values.sign() * values.abs().expm1()


def interpolation_weights(positions: Tensor, support: Tensor) -> Tensor:
    """How much of each position belongs to each atom when it is shared linearly by its two neighbours.

    Args:
        positions: (..., m); those outside of the support count as its nearest end.
        support: (n,), ascending, n >= 2.

    Returns:
        (..., m, n), in [0, 1], each row with the sum 1.
    """
    gaps = support[1:] - support[:-1]
    passed = ((positions.unsqueeze(-1) - support[:-1]) / gaps).clamp(0.0, 1.0)
    reached, left = pad(passed, (1, 0), value=1.0), pad(passed, (0, 1), value=0.0)
    return reached - left


def categorical_projection(probabilities: Tensor, positions: Tensor, support: Tensor) -> Tensor:
    """Move mass from any positions to the atoms of a support; mass is conserved, and the mean inside of it.

    Each position gives to its two neighbours in proportion to nearness (Bellemare et al. 2017, equation 7);
    the atoms need not be evenly spaced. Dense rather than a scatter, hence deterministic on every device, and
    differentiable in probabilities and positions.

    Args:
        probabilities: (batch, m).
        positions: (batch, m).
        support: (n,), ascending.

    Returns:
        (batch, n).
    """
    return (probabilities.unsqueeze(-1) * interpolation_weights(positions, support)).sum(-2)


def two_hot(values: Tensor, support: Tensor) -> Tensor:
    """All mass of each value on its two neighbouring atoms, with the value as mean.

    Args:
        values: (batch,); those outside of the support count as its nearest end.
        support: (n,), ascending.

    Returns:
        (batch, n).
    """
    positions = values.unsqueeze(-1)
    return categorical_projection(torch.ones_like(positions), positions, support)


def gaussian_histogram(values: Tensor, centres: Tensor, sigma_ratio: float) -> Tensor:
    """The mass in each bin of a Gaussian around each value (HL-Gauss, Farebrother et al. 2024).

    Args:
        values: (batch,); those outside of the centres count as the nearest end.
        centres: (n,), evenly spaced; bins reach half a width to either side.
        sigma_ratio: Standard deviation of the Gaussian in bin widths.

    Returns:
        (batch, n), each row with the sum 1.
    """
    width = centres[1] - centres[0]
    edges = torch.cat([centres - 0.5 * width, centres[-1:] + 0.5 * width])
    distance = edges - values.clamp(centres[0], centres[-1]).unsqueeze(-1)
    cumulative = torch.erf(distance / (sigma_ratio * width * math.sqrt(2.0)))
    return (cumulative[..., 1:] - cumulative[..., :-1]) / (cumulative[..., -1:] - cumulative[..., :1])
