"""Several critics with one target, and one way to turn them into a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.values.clipping import ClipRange, ValueClipping, clipped_value_loss
from everlearn.values.head import ValueDistribution, ValueHead, weighted_quantiles
from everlearn.values.reduction import Reduction, critic_means, disagreement
from everlearn.values.scale import ReturnScale


@final
@dataclass(frozen=True, eq=False)
class CriticEnsemble:
    """How ``n_critics`` networks are read, reduced and fitted; the networks themselves live in the policy.

    Distributions, ``means`` and everything that enters ``loss`` are in the head's unit; ``value``,
    ``disagreement``, ``spread`` and ``cvar`` are in reward units. Without a return scale both are the same.

    Args:
        head: How the outputs of each network are read.
        reduction: How the critics become one value.
        n_critics: How many.
        return_scale: The unit in which the head predicts; None for reward units.
        value_clipping: The loss per sample where a clip range is given.
    """

    head: ValueHead
    reduction: Reduction
    n_critics: int = 1
    return_scale: ReturnScale | None = None
    value_clipping: ValueClipping = clipped_value_loss

    def __post_init__(self) -> None:
        require_in_range("n_critics", self.n_critics, 1)

    def distributions(self, outputs: Sequence[Tensor]) -> tuple[ValueDistribution, ...]:
        """What each critic predicts, from the outputs, (batch, n_outputs), of each network."""
        self._require_one_per_critic("outputs", outputs)
        return tuple(self.head.distribution(each) for each in outputs)

    def value(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The reduced value in reward units, (batch,): the one that rollouts, advantages and logs use."""
        return self._to_rewards(self.reduction(distributions))

    def means(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """What each critic expects in the head's unit, (batch, n_critics): a later loss's ``old_values``."""
        return critic_means(distributions)

    def to_units(self, returns: Tensor) -> Tensor:
        """Returns in reward units, of any shape, in the head's unit."""
        return returns if self.return_scale is None else self.return_scale.normalize(returns)

    def loss(
        self,
        distributions: Sequence[ValueDistribution],
        returns: Tensor,
        old_values: Tensor | None = None,
        clip_range: ClipRange | None = None,
    ) -> Tensor:
        """The mean over critics of each one's loss, (batch,), all fitted to the same returns.

        Args:
            distributions: What each critic predicts.
            returns: (batch,), in the head's unit.
            old_values: ``means`` before the update, (batch, n_critics); each critic is held to its own.
            clip_range: How far a critic's mean may move, in the head's unit; None for any distance.

        Raises:
            ArgumentError: If a shape does not fit, or ``clip_range`` is given without ``old_values``.
        """
        self._require_one_per_critic("distributions", distributions)
        if clip_range is None:
            losses = [each.loss(returns) for each in distributions]
        else:
            centres = self._centres(returns, old_values)
            losses = [
                self.value_clipping(each, returns, centre, clip_range)
                for each, centre in zip(distributions, centres, strict=True)
            ]
        return torch.stack(losses).mean(0)

    def disagreement(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The standard deviation of the critics' means in reward units, (batch,)."""
        return self._length(disagreement(distributions))

    def spread(self, distributions: Sequence[ValueDistribution]) -> Tensor:
        """The mean over critics of their distributions' standard deviations in reward units, (batch,)."""
        return self._length(torch.stack([each.spread for each in distributions]).mean(0))

    def cvar(self, distributions: Sequence[ValueDistribution], alpha: float) -> Tensor:
        """The mean over critics of their worst ``alpha`` of returns in reward units, (batch,)."""
        return self._to_rewards(torch.stack([each.cvar(alpha) for each in distributions]).mean(0))

    def quantiles(self, distributions: Sequence[ValueDistribution], levels: Tensor) -> Tensor:
        """Quantiles of the mixture of all critics' distributions in reward units, (batch, n_levels)."""
        atoms = [each.atoms() for each in distributions]
        positions = torch.cat([each for each, _ in atoms], -1)
        probabilities = torch.cat([each for _, each in atoms], -1) / len(atoms)
        return self._to_rewards(weighted_quantiles(positions, probabilities, levels))

    def refresh_scale_(self, value_nets: Sequence[nn.Linear]) -> None:
        """Move the unit to the running moments; what the critics predict in reward units stays."""
        if self.return_scale is None:
            return
        self._require_one_per_critic("value_nets", value_nets)
        unit = self.return_scale.refresh_()
        for value_net in value_nets:
            self.head.rescale_(value_net, *unit)

    def _to_rewards(self, values: Tensor) -> Tensor:
        return values if self.return_scale is None else self.return_scale.denormalize(values)

    def _length(self, differences: Tensor) -> Tensor:
        return differences if self.return_scale is None else differences * self.return_scale.std

    def _centres(self, returns: Tensor, old_values: Tensor | None) -> tuple[Tensor, ...]:
        """The old values of each critic, n_critics times (batch,)."""
        expected = (*returns.shape, self.n_critics)
        if old_values is None or old_values.shape != expected:
            found = None if old_values is None else tuple(old_values.shape)
            raise ArgumentError(
                f"old_values has the shape {found}, expected {expected}. Value clipping needs the `means` of "
                "all critics from before the update."
            )
        return old_values.unbind(-1)

    def _require_one_per_critic(self, name: str, given: Sequence[object]) -> None:
        if len(given) != self.n_critics:
            raise ArgumentError(f"{name} has {len(given)} entries for {self.n_critics} critics. Give one for each.")
