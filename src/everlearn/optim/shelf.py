"""Where the UPGD family keeps its state: one vector per running average, seen by every parameter as its own tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from everlearn.core.flat import FlatLayout
from everlearn.optim.averages import advance_weights_
from everlearn.optim.block import Block, Hyper, Scalar

BUNDLE_SIZE = 2**15
"""Parameters below this size are gathered into vectors of at most this size."""
KEPT_PLANS = 16
"""Spans are kept for so many patterns of missing gradients; more would fill the memory where they are random."""


def state_dtype(param: Tensor) -> torch.dtype:
    """Utilities and moments live in float32 at least."""
    return torch.promote_types(param.dtype, torch.float32)


def is_large(param: Tensor) -> bool:
    """Whether a parameter is worth kernel calls of its own."""
    return param.numel() >= BUNDLE_SIZE


class Span:
    """Consecutive parameters of a shelf that are updated as one block.

    Args:
        first: Index of the first parameter in the shelf.
        params: The parameters.
        block: Their block. With a layout, weights and gradients are gathered into it and taken back; without one it is
            a single large parameter whose own storage the rules change.
    """

    def __init__(self, first: int, params: list[Tensor], block: Block) -> None:
        self.block = block
        self.first, self.last = first, first + len(params)
        self.params = params
        self._gathered = block.layout is not None
        if block.layout is not None:
            self._param_views, self._grad_views = block.layout.views(block.param), block.layout.views(block.grad)

    def load(self) -> None:
        """Bring weights and gradients into the block."""
        grads = [param.grad for param in self.params if param.grad is not None]
        if self._gathered:
            torch._foreach_copy_(self._param_views, self.params)
            torch._foreach_copy_(self._grad_views, grads)
        else:
            self.block.param = self.params[0].detach()
            self.block.grad = grads[0].contiguous()

    def store(self) -> None:
        """Take the new weights from the block to the parameters."""
        if self._gathered:
            torch._foreach_copy_(self.params, self._param_views)

    def pick(self, per_parameter: Tensor) -> Tensor:
        """The values of this span's parameters: (n,), or 0-d when the block is one parameter."""
        return per_parameter[self.first : self.last] if self._gathered else per_parameter[self.first]


class Shelf:
    """Parameters of one group, device and dtype, with their running averages side by side in memory.

    Args:
        params: The parameters, in the group's order.
        averages: Names of the elementwise running averages.
        saved: States to start from, one per parameter; None starts from zero.
    """

    def __init__(
        self, params: Sequence[Tensor], averages: Sequence[str], saved: Sequence[Mapping[str, Any]] | None
    ) -> None:
        self.params = list(params)
        self.averages = tuple(averages)
        self.layout = FlatLayout(self.params)
        self.device, self.dtype = self.params[0].device, state_dtype(self.params[0])
        self._made_for = self.device, self.params[0].dtype
        count = len(self.params)
        self._flat = {
            name: torch.zeros(self.layout.numel, dtype=self.dtype, device=self.device) for name in self.averages
        }
        self._update_rms = torch.zeros(count, dtype=self.dtype, device=self.device)
        self._steps = torch.zeros(count, dtype=torch.float32)
        self._weights = torch.zeros(count, len(self.averages) + 1, dtype=torch.float64)
        self._positions: tuple[tuple[int, ...], Tensor] | None = None
        self._spans: dict[tuple[bool, ...], list[Span]] = {}
        if saved is not None:
            self.fill(saved)

    def fill(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Take over saved states, one per parameter."""
        for state, values in zip(self.states(), saved, strict=True):
            for name, tensor in state.items():
                tensor.copy_(torch.as_tensor(values[name]))

    def states(self) -> list[dict[str, Tensor]]:
        """The state of every parameter, as views: step counter, running weights, averages."""
        averages = {name: self.layout.views(flat) for name, flat in self._flat.items()}
        return [
            {
                "step": self._steps[index],
                "ema_weights": self._weights[index],
                "update_rms": self._update_rms[index],
                **{name: views[index] for name, views in averages.items()},
            }
            for index in range(len(self.params))
        ]

    def state_of(self, span: Span) -> dict[str, Tensor]:
        """The state of a span's parameters together, as views: averages over all elements, counters (n, ...)."""
        rows = slice(span.first, span.last)
        counters = {"step": self._steps[rows], "ema_weights": self._weights[rows]}
        return {**counters, "update_rms": span.pick(self._update_rms), **span.block.state}

    def shares_weights(self) -> bool:
        """Whether all parameters had their gradients together, so that they have one running weight per average."""
        return bool((self._weights == self._weights[:1]).all())

    def plan(self) -> list[Span]:
        """The spans of all parameters, not loaded."""
        return self._plan([size > 0 for size in self.layout.sizes])

    def is_outdated(self) -> bool:
        """Whether the parameters have gone to another device or dtype than the shelf was made for."""
        return any((param.device, param.dtype) != self._made_for for param in self.params)

    def positions_in(self, parameters: Sequence[Tensor]) -> Tensor:
        """Where each parameter of the shelf stands in a list, (n,); its length for those that are not there."""
        identities = tuple(map(id, parameters))
        if self._positions is None or self._positions[0] != identities:
            found = {identity: index for index, identity in enumerate(identities)}
            positions = torch.tensor([found.get(id(param), len(parameters)) for param in self.params])
            self._positions = (identities, positions)
        return self._positions[1]

    def spans(self, decays: Sequence[float] | None, adaptive_noise: bool) -> list[Span]:
        """The spans of the parameters that have a gradient, loaded, their counters advanced by the decays if given."""
        present = tuple(
            size > 0 and param.grad is not None for param, size in zip(self.params, self.layout.sizes, strict=True)
        )
        if not any(present):
            return []
        if present not in self._spans:
            if len(self._spans) == KEPT_PLANS:
                self._spans.clear()
            self._spans[present] = self._plan(present)
        if decays is not None:
            self._advance(present, decays)
        rows: list[list[float]] = self._weights.tolist()
        for span in self._spans[present]:
            span.load()
            span.block.weights = self._weights_of(span, rows)
            span.block.update_rms = span.pick(self._update_rms) if adaptive_noise else None
        return self._spans[present]

    def _advance(self, present: tuple[bool, ...], decays: Sequence[float]) -> None:
        """Count the step."""
        betas = torch.tensor(decays, dtype=torch.float64)
        if all(present):
            self._steps.add_(1)
            advance_weights_(self._weights, betas)
        else:
            for index in (index for index, here in enumerate(present) if here):
                self._steps[index].add_(1)
                advance_weights_(self._weights[index], betas)

    def _weights_of(self, span: Span, rows: Sequence[Sequence[float]]) -> dict[str, Scalar]:
        """The running weights of a span's averages; floats where its parameters share them."""
        names = (*self.averages, "update_rms")
        if all(row == rows[span.first] for row in rows[span.first : span.last]):
            return dict(zip(names, rows[span.first], strict=True))
        columns = self._weights[span.first : span.last].to(dtype=self.dtype, device=self.device)
        return {name: columns[:, index] for index, name in enumerate(names)}

    def _plan(self, present: Sequence[bool]) -> list[Span]:
        """Runs of small neighbours are gathered; a large contiguous parameter of the state's dtype works in place."""
        spans, run, size = [], list[int](), 0
        for index, (param, here) in enumerate(zip(self.params, present, strict=True)):
            alone = is_large(param) and param.dtype == self.dtype and param.is_contiguous()
            if run and (not here or alone or size + param.numel() > BUNDLE_SIZE):
                spans.append(self._gathered(run[0], run[-1] + 1))
                run, size = [], 0
            if here and alone:
                spans.append(self._single(index))
            elif here:
                run, size = [*run, index], size + param.numel()
        return [*spans, self._gathered(run[0], run[-1] + 1)] if run else spans

    def _gathered(self, first: int, last: int) -> Span:
        params = self.params[first:last]
        layout = FlatLayout(params)
        start = self.layout.offsets[first]
        state = {name: flat[start : start + layout.numel] for name, flat in self._flat.items()}
        buffers = torch.empty(2, layout.numel, dtype=self.dtype, device=self.device)
        return Span(first, params, Block(buffers[0], buffers[1], state, {}, layout))

    def _single(self, index: int) -> Span:
        param = self.params[index]
        state = {name: self.layout.views(flat)[index] for name, flat in self._flat.items()}
        return Span(index, [param], Block(param.detach(), param.detach(), state, {}))


def hyper_floats(group: Mapping[str, Any]) -> Hyper:
    """A group's hyper-parameters with every number as a python float (a learning rate may be a tensor)."""
    return {
        key: float(value) if isinstance(value, (int, float, Tensor)) and not isinstance(value, bool) else value
        for key, value in group.items()
        if key != "params"
    }
