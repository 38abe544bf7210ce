"""The steps of the UPGD family as functions of tensors."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, final

import torch
from torch import Tensor

from everlearn.core.flat import TracedLayout
from everlearn.optim.averages import advance_weights_
from everlearn.optim.block import Hyper, Scalar
from everlearn.optim.functional_step import FunctionalOptimizer, Piece, Tensors
from everlearn.optim.shelf import Shelf, Span
from everlearn.optim.utility_optimizer import UtilityOptimizer


@final
class FunctionalUtilityOptimizer(FunctionalOptimizer):
    """A member of the UPGD family."""

    def __init__(self, optimizer: UtilityOptimizer, names: Mapping[Tensor, str]) -> None:
        self._family = optimizer
        self.direction, self.factor_acts_on = optimizer.direction, optimizer.factor_acts_on
        self._together = all(shelf.shares_weights() for shelf in optimizer.shelves().values())
        super().__init__(optimizer, names)
        noisy = [self.params[name] for piece in self._pieces if self._noisy[piece.group] for name in piece.names]
        self._noise_size = sum(param.numel() for param in noisy)
        self._noise_kind = (torch.promote_types(noisy[0].dtype, torch.float32), noisy[0].device) if noisy else None

    def options(self, group: Mapping[str, Any]) -> Hyper:
        """The group itself."""
        return self._family.hyper(group)

    def pieces(self) -> list[Piece]:
        """The spans in which the family updates its parameters."""
        pieces = []
        for key, group, _, span in self._spans():
            names = tuple(self._names[param] for param in span.params)
            layout = None if span.block.layout is None else TracedLayout(span.params)
            pieces.append(Piece(names, group, layout, key))
        return pieces

    def _spans(self) -> Iterator[tuple[str, int, Shelf, Span]]:
        """Each span with its name, its group and its shelf."""
        for (group, number), shelf in self._family.shelves().items():
            for span in shelf.plan():
                yield f"{group}.{number}.{span.first}", group, shelf, span

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The state of each span, of which the states of its parameters are views."""
        return {key: shelf.state_of(span) for key, _, shelf, span in self._spans()}

    def structure(self) -> Hashable:
        """Also whether all parameters share their running weights."""
        return super().structure(), self._together

    def count_(self, state: Tensors, hyper: Hyper, dtype: torch.dtype) -> dict[str, Scalar]:
        """Advance the running weights."""
        state["step"].add_(1)
        decays = [torch.as_tensor(decay, dtype=torch.float64) for decay in self._family.decays(hyper)]
        advance_weights_(state["ema_weights"], torch.stack(decays))
        names = ("avg_utility", *self.direction.averages, "update_rms")
        rows = state["ema_weights"].to(dtype)
        weights = rows[0] if self._together or len(rows) == 1 else rows
        return {name: weights[..., index] for index, name in enumerate(names)}

    def kept_noise(self) -> AbstractContextManager[None]:
        """The family's own stream is put back."""
        return self._family.kept_noise()

    def draw_noise(self) -> Tensor:
        """The family's own draw."""
        if self._noise_kind is None:
            return super().draw_noise()
        return self._family.draw_noise(self._noise_size, *self._noise_kind)

    def remember_step(self, factors: Tensors) -> None:
        """Hand the factors over as a scaler does, and have the family look at its parameters and state."""
        if factors:
            names = list(factors)
            self._family.scale_next_step([self.params[name] for name in names], torch.stack([*factors.values()]))
        self._family.remember_step()
