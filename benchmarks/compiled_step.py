"""An optimizer's functional step as one compiled graph, to be timed beside its eager one."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from everlearn.core.graphs import compiled
from everlearn.optim.functional import functional


class CompiledStep:
    """A step of an optimizer by a graph: parameters, gradients and state stay where they are and are changed there.

    Gradients come in one by one, as the eager step finds them, and those of a block are joined in the graph. The noise
    is drawn outside it, from the optimizer's own stream.

    Args:
        optimizer: One that has a functional step, over parameters with gradients.

    Attributes:
        seconds: It took to compile.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        start = time.perf_counter()
        held = [param for group in optimizer.param_groups for param in group["params"]]
        self._step = functional(optimizer, {param: str(index) for index, param in enumerate(held)})
        params = {name: param.detach() for name, param in self._step.params.items()}
        gradients = {name: param.grad for name, param in self._step.params.items()}
        tree = (params, gradients, self._step.state(), self._step.hyper())
        self._live, self._spec = pytree.tree_flatten(tree)
        with self._step.kept_noise():
            example = [*self._live, self._step.draw_noise()]
        self._graph: Callable[..., list[Tensor]] = compiled(self._traced, example)
        self.seconds = time.perf_counter() - start

    @torch.no_grad()
    def __call__(self) -> None:
        """Take a step."""
        self._graph(*self._live, self._step.draw_noise())

    def _traced(self, *tensors: Tensor) -> list[Tensor]:
        *live, noise = tensors
        params, gradients, state, hyper = pytree.tree_unflatten(live, self._spec)
        self._step.step_(params, self._step.joined(gradients), state, hyper, noise, {})
        return [torch.zeros(())]
