"""What a critic predicts: a head turns the outputs of a network into a distribution of returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self, final

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.core.registry import Registry


class ValueDistribution(ABC):
    """A batch of predicted return distributions; every method is pure, differentiable and traceable.

    Numbers are in the unit in which the head predicts. Shapes, here and in all heads: ``(batch,)`` for one
    number per sample, ``(batch, n_outputs)`` for what the network puts out, ``(batch, n_critics)`` where
    critics stand side by side.
    """

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expected return, (batch,): the one number that rollouts, advantages and logs see."""

    @property
    @abstractmethod
    def tail_resolution(self) -> float:
        """The smallest share of probability that the representation can tell apart; 0 where any can."""

    @abstractmethod
    def atoms(self) -> tuple[Tensor, Tensor]:
        """The distributions as weighted points: positions and probabilities, both (batch, n)."""

    @abstractmethod
    def shift(self, delta: Tensor) -> Self:
        """The same distributions moved by ``delta``, (batch,)."""

    @abstractmethod
    def recentre(self, mean: Tensor) -> Self:
        """The same distributions moved to the given ``mean``, (batch,)."""

    @abstractmethod
    def loss(self, returns: Tensor) -> Tensor:
        """The misfit to one sampled return each, (batch,); its expectation is lowest at the truth.

        Args:
            returns: (batch,), in the head's unit.

        Raises:
            ArgumentError: If ``returns`` is not of shape (batch,).
        """

    @final
    @property
    def spread(self) -> Tensor:
        """The standard deviation of each distribution, (batch,); a metric, not made for gradients."""
        positions, probabilities = self.atoms()
        mean = (probabilities * positions).sum(-1, keepdim=True)
        return (probabilities * (positions - mean).square()).sum(-1).sqrt()

    @final
    def cvar(self, alpha: float) -> Tensor:
        """The mean of the worst share ``alpha`` of returns, (batch,); ``cvar(1)`` is the mean.

        Args:
            alpha: Share of probability, from ``tail_resolution`` (or above 0) to 1.

        Raises:
            ArgumentError: If ``alpha`` is outside of this range.
        """
        resolution = self.tail_resolution
        require_in_range("alpha", alpha, resolution, 1.0, open_low=resolution == 0.0)
        return lower_tail_mean(*self.atoms(), alpha)


class ValueHead(ABC):
    """How the outputs of a critic's last linear layer are read; it has no parameters and never changes."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """How many outputs the last linear layer of a critic has."""

    @abstractmethod
    def distribution(self, outputs: Tensor) -> ValueDistribution:
        """The distributions that ``outputs``, (batch, n_outputs), stand for."""

    @abstractmethod
    def rescale_(self, linear: nn.Linear, old_mean: Tensor, old_std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
        """Change a critic's last layer in place so that its predictions in reward units survive a new unit.

        Args:
            linear: The last layer, with ``n_outputs`` outputs.
            old_mean: Where the unit's zero was, in reward units, 0-d.
            old_std: How long the unit was, 0-d.
            new_mean: Where its zero is now, 0-d.
            new_std: How long it is now, 0-d.
        """


heads: Registry[ValueHead] = Registry("value head")


def lower_tail_mean(positions: Tensor, probabilities: Tensor, alpha: float) -> Tensor:
    """``sum_i x_(i) * clip(alpha - P_(i), 0, p_(i)) / alpha``: the mean of the lowest ``alpha`` of the mass.

    ``x_(i)`` are the sorted positions and ``P_(i)`` the mass below each: the exact integral of the step
    quantile function (Rockafellar and Uryasev 2002, proposition 8).

    Args:
        positions: (batch, n), in any order.
        probabilities: (batch, n), each row with the sum 1.
        alpha: Share of the mass, in (0, 1].

    Returns:
        (batch,).
    """
    ordered, order = positions.sort(dim=-1)
    mass = probabilities.gather(-1, order)
    below = mass.cumsum(-1) - mass
    kept = torch.minimum((alpha - below).clamp(min=0.0), mass)
    return (ordered * kept).sum(-1) / alpha


def weighted_quantiles(positions: Tensor, probabilities: Tensor, levels: Tensor) -> Tensor:
    """``min {x : P(X <= x) >= level}`` of weighted points, for each level.

    Args:
        positions: (batch, n), in any order.
        probabilities: (batch, n), each row with the sum 1.
        levels: (n_levels,), each in (0, 1).

    Returns:
        (batch, n_levels).
    """
    ordered, order = positions.sort(dim=-1)
    mass = probabilities.gather(-1, order).cumsum(-1)
    below = (mass.unsqueeze(-1) < levels - 1e-6).sum(-2)  # rounding must not skip a point that a level falls on
    return ordered.gather(-1, below.clamp(max=positions.shape[-1] - 1))


@torch.no_grad()
def rescale_affine_(linear: nn.Linear, old_mean: Tensor, old_std: Tensor, new_mean: Tensor, new_std: Tensor) -> None:
    """``w <- w*s/s'`` and ``b <- (b*s + m - m')/s'``, in place: ``s'*(wx + b) + m'`` stays what it was.

    The output-preserving step of PopArt (van Hasselt et al. 2016, equation 9), for heads whose outputs are
    returns. Arguments as in ``ValueHead.rescale_``.
    """
    linear.weight.mul_(old_std / new_std)
    linear.bias.mul_(old_std).add_(old_mean - new_mean).div_(new_std)


def require_one_per_sample(name: str, tensor: Tensor, batch: int) -> None:
    """Raise ArgumentError unless ``tensor`` has the shape (batch,): others would broadcast in silence."""
    if tensor.shape != (batch,):
        raise ArgumentError(
            f"{name} has the shape {tuple(tensor.shape)}, expected ({batch},). Give one number per sample."
        )
