"""An optimizer's step as a function of tensors: no attribute, no python number, no generator is read while it runs.

What a step is made of (names, groups, options that are not numbers) is fixed when the object is made; everything else
comes in as tensors and is changed in place, so that the step can be traced, compiled and mapped over members.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from everlearn.core.flat import TracedLayout
from everlearn.optim import rules
from everlearn.optim.block import Block, Hyper, Scalar
from everlearn.optim.directions import Direction
from everlearn.optim.scopes import largest_utility, scope_etas

Tensors = Mapping[str, Tensor]
States = Mapping[str, Tensors]


class Piece(NamedTuple):
    """Neighbouring parameters of a group that are updated as one block.

    Args:
        names: Of the parameters.
        group: Number of their group.
        layout: Where each lies in the block; None for a block that is one parameter.
        key: Of their entry in the state.
    """

    names: tuple[str, ...]
    group: int
    layout: TracedLayout | None
    key: str

    def joined(self, tensors: Tensors) -> Tensor:
        """The tensors of its names as one; that of a single name as it is."""
        found = [tensors[name] for name in self.names]
        return found[0] if self.layout is None else self.layout.gather(found, found[0].dtype)

    def parts(self, joined: Tensor) -> dict[str, Tensor]:
        """Views of what ``joined`` has joined, by name."""
        views = [joined] if self.layout is None else self.layout.views(joined)
        return dict(zip(self.names, views, strict=True))


class FunctionalOptimizer(ABC):
    """The step of one optimizer over named parameters.

    Args:
        optimizer: Where groups, options and state come from.
        names: The name of every parameter of the optimizer.
    """

    direction: Direction
    factor_acts_on: Literal["step", "gradient"]
    """Where a variance gradient scaler acts: on the step, or on the gradients before they come in."""

    def __init__(self, optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> None:
        self._optimizer = optimizer
        self._names = names
        self._options = [self.options(group) for group in optimizer.param_groups]
        self._noisy = [options["sigma"] > 0 for options in self._options]
        self._pieces = self.pieces()
        by_name = {name: param for param, name in names.items()}
        self.params = {name: by_name[name] for piece in self._pieces for name in piece.names}
        """By name, in the order of the pieces."""

    @abstractmethod
    def options(self, group: Mapping[str, Any]) -> Hyper:
        """A group's hyper-parameters under the rules' names, numbers as floats."""

    @abstractmethod
    def pieces(self) -> list[Piece]:
        """What is updated together, group by group."""

    @abstractmethod
    def state(self) -> dict[str, dict[str, Tensor]]:
        """The optimizer's own state tensors, live; the step changes them in place."""

    @abstractmethod
    def count_(self, state: Tensors, hyper: Hyper, dtype: torch.dtype) -> dict[str, Scalar]:
        """Count a step in an entry of the state; returns the running weights of its averages, 0-d or (n,)."""

    def hyper(self) -> list[dict[str, Tensor]]:
        """The numbers now in force as 0-d tensors, one mapping per group."""
        return [
            {
                key: torch.tensor(value, dtype=torch.float64)
                for key, value in self.options(group).items()
                if type(value) is float
            }
            for group in self._optimizer.param_groups
        ]

    def structure(self) -> Hashable:
        """What a trace of the step depends on, besides the forms of the tensors."""
        switches = [{key: each for key, each in group.items() if type(each) is not float} for group in self._options]
        fixed = [repr(sorted((key, each) for key, each in group.items() if key != "params")) for group in switches]
        pieces = [(piece.names, piece.group, piece.key) for piece in self._pieces]
        return type(self._optimizer), repr(pieces), tuple(fixed), tuple(self._noisy)

    def joined(self, gradients: Tensors) -> list[Tensor]:
        """Gradients by name as ``step_`` takes them: one tensor for all that are updated together."""
        return [piece.joined(gradients) for piece in self._pieces]

    def kept_noise(self) -> AbstractContextManager[None]:
        """Inside, numbers are drawn that will be drawn again afterwards."""
        return nullcontext()

    def draw_noise(self) -> Tensor:
        """The next numbers of the optimizer's own stream for the parameters that take noise, side by side."""
        return torch.empty(0)

    def remember_step(self, factors: Tensors) -> None:  # noqa: B027 - most have nothing to say of their steps
        """Tell the optimizer of the last step, with its factors, so that it can say what it did."""

    def step_(
        self,
        params: Tensors,
        gradients: Sequence[Tensor],
        state: States,
        hyper: Sequence[Tensors],
        noise: Tensor,
        factors: Tensors,
    ) -> None:
        """Update ``params`` and ``state`` in place.

        Args:
            params: By name.
            gradients: As from ``joined()``.
            state: As from ``state()``.
            hyper: As from ``hyper()``.
            noise: Standard normal numbers for the parameters that take noise, as from ``draw_noise()``.
            factors: Factors of a variance gradient scaler, 0-d, by name; empty for none.
        """
        groups: list[Hyper] = [{**options, **numbers} for options, numbers in zip(self._options, hyper, strict=True)]
        blocks: list[tuple[Block, Hyper]] = []
        for piece, gradient in zip(self._pieces, gradients, strict=True):
            options, entry = groups[piece.group], state[piece.key]
            block = self._block(piece, params, gradient, entry, options)
            block.weights = self.count_(entry, options, block.param.dtype)
            if self._noisy[piece.group]:
                size = block.param.numel()
                block.noise, noise = noise[:size].view(block.param.shape), noise[size:]
            self._scale(block, piece, factors)
            rules.observe_(block, self.direction, options)
            blocks.append((block, options))
        etas = scope_etas(blocks, [largest_utility(block, options) for block, options in blocks])
        for (block, options), eta in zip(blocks, etas, strict=True):
            rules.observe_update_rms_(block, self.direction, options)
            rules.move_(block, self.direction, options, eta, rules.noise_std(block, options))
        self._store([block for block, _ in blocks], params)

    def _block(self, piece: Piece, params: Tensors, gradient: Tensor, entry: Tensors, options: Hyper) -> Block:
        """The block of a piece; a single parameter of the state's dtype is changed in place."""
        dtype = _state_dtype(entry, gradient)
        param = piece.joined(params).to(dtype)
        averages = {name: entry[name] for name in ("avg_utility", *self.direction.averages) if name in entry}
        block = Block(param, gradient.to(dtype), averages, {}, piece.layout)
        if options["adaptive_noise"]:
            block.update_rms = entry["update_rms"]
        return block

    def _scale(self, block: Block, piece: Piece, factors: Tensors) -> None:
        """Give a block the factors of its parameters."""
        if not factors:
            return
        found = [factors[name].to(block.param.dtype) for name in piece.names]
        scale = found[0] if piece.layout is None else torch.stack(found)
        if self.factor_acts_on == "gradient":
            block.grad_scale = scale
        else:
            block.step_scale = scale

    def _store(self, blocks: Sequence[Block], params: Tensors) -> None:
        """Take gathered weights, and those that were moved in a higher precision, back to the parameters."""
        for piece, block in zip(self._pieces, blocks, strict=True):
            for name, view in piece.parts(block.param).items():
                if piece.layout is not None or view.dtype != params[name].dtype:
                    params[name].copy_(view)


def _state_dtype(entry: Tensors, gradient: Tensor) -> torch.dtype:
    return entry["avg_utility"].dtype if "avg_utility" in entry else gradient.dtype
