"""What the rules of the UPGD family see of parameters: a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from everlearn.core.flat import FlatLayout

Scalar = float | Tensor
Hyper = Mapping[str, Any]


@dataclass(slots=True)
class Block:
    """What a rule sees of one or several parameters; all tensors of one shape, state in float32 at least.

    Args:
        param: Weights, changed in place.
        grad: Gradient as the optimizer is given it.
        state: Running averages by name: ``avg_utility`` and those of the rule.
        weights: Running weight of each average (1 - beta^t for a constant beta), which corrects its bias.
        layout: Where each parameter lies in the vector; None when the block is one parameter.
        grad_scale: Factor that was already applied to the gradient, divided out of the utility.
        step_scale: Factor for the step, one per parameter or one for all; None is 1.
        noise: Standard normal numbers; None where no noise is added.
        update_rms: Running average of the root mean square of the update, (n,) for n parameters.
        update: The update of this step where it was needed before the step itself.
    """

    param: Tensor
    grad: Tensor
    state: Mapping[str, Tensor]
    weights: Mapping[str, Scalar]
    layout: FlatLayout | None = None
    grad_scale: Scalar | None = None
    step_scale: Scalar | None = None
    noise: Tensor | None = None
    update_rms: Tensor | None = None
    update: Tensor | None = None

    def chunks(self, size: int) -> Iterator[Block]:
        """The block in pieces of ``size`` elements that fit the processor's cache; a gathered block stays whole."""
        if self.layout is not None or self.param.numel() <= size:
            yield self
            return
        for start in range(0, self.param.numel(), size):
            part = slice(start, start + size)
            yield replace(
                self,
                param=self.param.view(-1)[part],
                grad=self.grad.view(-1)[part],
                state={name: average.view(-1)[part] for name, average in self.state.items()},
                noise=None if self.noise is None else self.noise.view(-1)[part],
                update=None if self.update is None else self.update.view(-1)[part],
            )

    def views(self, flat: Tensor) -> list[Tensor]:
        """One view per parameter, in its own shape."""
        return [flat] if self.layout is None else self.layout.views(flat)

    def spread(self, per_parameter: Scalar) -> Scalar:
        """One value per parameter, brought to a shape that multiplies the block's elements."""
        if self.layout is None or not isinstance(per_parameter, Tensor) or per_parameter.dim() == 0:
            return per_parameter
        return self.layout.expand(per_parameter)

    def per_parameter(self, reduce: Callable[[Tensor], Tensor], flat: Tensor) -> Tensor:
        """``reduce`` applied to the view of each parameter: (n,), or a 0-d tensor for a block of one."""
        return reduce(flat) if self.layout is None else torch.stack([reduce(view) for view in self.views(flat)])

    def root_mean_squares(self, flat: Tensor) -> Tensor:
        """The root mean square of each parameter's view: (n,), or 0-d for a block of one."""
        if self.layout is None:
            return torch.linalg.vector_norm(flat) / flat.numel() ** 0.5  # type: ignore[no-any-return]
        return self.layout.norms(flat) / self.layout.root_sizes.to(flat.dtype)
