"""Probabilities of fixed atoms, fitted by cross-entropy (C51, two-hot, HL-Gauss)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, require_in_range, suggestion
from everlearn.values.head import ValueDistribution, ValueHead, heads, require_one_per_sample
from everlearn.values.projection import (
    categorical_projection,
    gaussian_histogram,
    interpolation_weights,
    symexp,
    symlog,
    two_hot,
)

_PROBABILITY_FLOOR = 1e-8  # keeps the logarithm of a projected probability, and its gradient, finite
_TAIL_POWER = 3.0  # how fast probability falls with the distance in bins outside of the old support

# Name to the coordinate in which atoms are evenly spaced, and its inverse.
_COORDINATES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "linear": (lambda values: values, lambda coordinates: coordinates),
    "symlog": (symlog, symexp),
}
_TARGETS = ("two_hot", "hl_gauss")


@final
@dataclass(frozen=True, eq=False)
class CategoricalDistribution(ValueDistribution):
    """Mass on the atoms of a head.

    Args:
        log_probabilities: (batch, n_atoms).
        head: Gives the atoms and the targets.
    """

    log_probabilities: Tensor
    head: CategoricalHead

    @property
    def probabilities(self) -> Tensor:
        """The mass of each atom, (batch, n_atoms)."""
        return self.log_probabilities.exp()

    @property
    def mean(self) -> Tensor:
        """The mean of the atoms, (batch,)."""
        return (self.probabilities * self.head.support(self.log_probabilities)).sum(-1)

    @property
    def tail_resolution(self) -> float:
        """0: an atom is divided where the tail ends inside of it."""
        return 0.0

    def atoms(self) -> tuple[Tensor, Tensor]:
        """The head's atoms for every sample, and their probabilities."""
        probabilities = self.probabilities
        return self.head.support(probabilities).expand_as(probabilities), probabilities

    def shift(self, delta: Tensor) -> CategoricalDistribution:
        """The atoms moved by ``delta``, (batch,), and projected back; mass stays inside of the support."""
        support = self.head.support(self.log_probabilities)
        moved = categorical_projection(self.probabilities, support + delta.unsqueeze(-1), support)
        return CategoricalDistribution(moved.clamp(min=_PROBABILITY_FLOOR).log(), self.head)

    def recentre(self, mean: Tensor) -> CategoricalDistribution:
        """The atoms moved by the distance to ``mean``, (batch,), and projected back."""
        return self.shift(mean - self.mean)

    def loss(self, returns: Tensor) -> Tensor:
        """The cross-entropy to the targets that the head makes of ``returns``, (batch,)."""
        require_one_per_sample("returns", returns, self.log_probabilities.shape[0])
        return -(self.head.targets(returns) * self.log_probabilities).sum(-1)


@heads.register("categorical")
@final
@dataclass(frozen=True)
class CategoricalHead(ValueHead):
    """Each output of the network is the logit of one atom; atoms reach from ``v_min`` to ``v_max``.

    Args:
        n_atoms: How many.
        v_min: Lowest atom, in units of the return scale (in reward units without one).
        v_max: Highest atom. Returns outside count as the nearest end.
        target: "two_hot" (Bellemare et al. 2017) or "hl_gauss" (Farebrother et al. 2024).
        bins: "linear" for even spacing, "symlog" for atoms that lie closer near zero (Hafner et al. 2023).
        sigma_ratio: Standard deviation of the "hl_gauss" target in bin widths.
    """

    n_atoms: int = 51
    v_min: float = -5.0
    v_max: float = 5.0
    target: Literal["two_hot", "hl_gauss"] = "two_hot"
    bins: Literal["linear", "symlog"] = "linear"
    sigma_ratio: float = 0.75

    def __post_init__(self) -> None:
        require_in_range("n_atoms", self.n_atoms, 2)
        require_in_range("v_min", self.v_min, -math.inf, open_low=True, open_high=True)
        require_in_range("v_max", self.v_max, self.v_min, open_low=True, open_high=True)
        require_in_range("sigma_ratio", self.sigma_ratio, 0.0, open_low=True, open_high=True)
        _require_known("target", self.target, _TARGETS)
        _require_known("bins", self.bins, _COORDINATES)

    @property
    def n_outputs(self) -> int:
        """One for each atom."""
        return self.n_atoms

    def distribution(self, outputs: Tensor) -> CategoricalDistribution:
        """The distributions with the logits ``outputs``, (batch, n_atoms)."""
        return CategoricalDistribution(outputs.log_softmax(-1), self)

    def support(self, like: Tensor) -> Tensor:
        """The atoms, (n_atoms,), ascending, with the device and dtype of ``like``."""
        _, inverse = _COORDINATES[self.bins]
        return inverse(self._grid(like))

    def targets(self, returns: Tensor) -> Tensor:
        """The probabilities, (batch, n_atoms), that a sampled return, (batch,), asks for."""
        if self.target == "two_hot":
            return two_hot(returns, self.support(returns))
        forward, _ = _COORDINATES[self.bins]
        return gaussian_histogram(forward(returns), self._grid(returns), self.sigma_ratio)

    @torch.no_grad()
    def rescale_(self, linear: nn.Linear, old_mean: Tensor, old_std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
        """Read the old log-density where the new atoms lie: predictions stay to within about one bin.

        The map is linear in the logits, so that it can be written into the layer; a distribution narrower
        than a bin snaps to the nearest atom. Outside of the old support, where there was no mass, probability
        falls with the third power of the distance; extrapolated logits would put mass there. See
        ``ValueHead.rescale_``.
        """
        support = self.support(linear.weight)
        (width,) = torch.gradient(support)
        ratio = new_std / old_std
        positions = support * ratio + (new_mean - old_mean) / old_std
        outside = (positions - positions.clamp(support[0], support[-1])).abs() / (width * ratio)
        weights = interpolation_weights(positions, support)
        log_density = weights @ (linear.bias - width.log())
        linear.weight.copy_(weights @ linear.weight)
        linear.bias.copy_(log_density + width.log() - _TAIL_POWER * outside.log1p())

    def _grid(self, like: Tensor) -> Tensor:
        """The atoms in the coordinate in which they are evenly spaced, (n_atoms,)."""
        forward, _ = _COORDINATES[self.bins]
        ramp = torch.arange(self.n_atoms, device=like.device, dtype=like.dtype) / (self.n_atoms - 1)
        low, high = (forward(torch.full_like(ramp[0], end)) for end in (self.v_min, self.v_max))
        return low * (1.0 - ramp) + high * ramp


def _require_known(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ArgumentError(f"{name}={value!r} is unknown.{suggestion(value, known)}")
