"""Where a scale factor acts: on the gradient, or on the step that an optimizer takes.

A factor before Adam's normalisation cancels, and one before a clip that always bites vanishes. So the step of
adaptive optimizers is scaled, and the gradient only where the step is linear in it.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from everlearn.core.errors import ArgumentError

LINEAR_OPTIMIZERS: tuple[type[Optimizer], ...] = (torch.optim.SGD, torch.optim.ASGD)
"""Foreign optimizers, with their subclasses, whose step is linear in the gradient, also with momentum."""


@runtime_checkable
class TakesFactors(Protocol):
    """An optimizer that applies scale factors itself."""

    @property
    def factor_acts_on(self) -> Literal["step", "gradient"]:
        """``"step"``: the optimizer scales its step; ``"gradient"``: it is given gradients already scaled."""
        ...

    def scale_next_step(self, parameters: Sequence[Tensor], factors: Tensor) -> None:
        """Hand over the factors, (n,) in the order of ``parameters``, that the next ``step()`` uses up."""
        ...


class Placement(ABC):
    """How factors reach the parameters.

    Args:
        optimizer: The optimizer that is attached to, None where there is none.
    """

    def __init__(self, optimizer: object | None = None) -> None:
        self.optimizer = optimizer

    @abstractmethod
    def apply(self, parameters: Sequence[Tensor], factors: Tensor) -> None:
        """Make the factors, (n,), act on the gradients now or on the next step, in place of earlier ones."""

    def remove(self) -> None:  # noqa: B027 - most placements leave nothing behind
        """Undo what the placement registered with its optimizer."""


@final
class OnGradient(Placement):
    """``g <- f * g``, now."""

    def apply(self, parameters: Sequence[Tensor], factors: Tensor) -> None:
        """Multiply every gradient by its factor, in place."""
        for parameter, factor in zip(parameters, factors.unbind(), strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


@final
class HandedOver(Placement):
    """The optimizer takes the factors and knows what to do with them."""

    def __init__(self, optimizer: TakesFactors) -> None:
        super().__init__(optimizer)
        self._taker = optimizer
        self._on_gradient = OnGradient() if optimizer.factor_acts_on == "gradient" else None

    def apply(self, parameters: Sequence[Tensor], factors: Tensor) -> None:
        """Hand the factors over; scale the gradients first where the optimizer expects them scaled."""
        if self._on_gradient is not None:
            self._on_gradient.apply(parameters, factors)
        self._taker.scale_next_step(parameters, factors)


@final
class OnStep(Placement):
    """``p <- old + f * (p - old)`` around the step of an optimizer that knows nothing of factors.

    The whole step is scaled, decay included. A tensor whose factor is exactly 1 is not touched.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._next: list[tuple[Tensor, float]] = []
        self._running: list[tuple[Tensor, float, Tensor]] = []
        self._hooks = (
            optimizer.register_step_pre_hook(self._remember),
            optimizer.register_step_post_hook(self._shorten),
        )

    def apply(self, parameters: Sequence[Tensor], factors: Tensor) -> None:
        """Keep the factors for the next step."""
        pairs = zip(parameters, factors.tolist(), strict=True)
        self._next = [(p, factor) for p, factor in pairs if factor != 1.0]

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for hook in self._hooks:
            hook.remove()

    def _remember(self, _optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        self._running = [(p, factor, p.detach().clone()) for p, factor in self._next]
        self._next = []

    @torch.no_grad()
    def _shorten(self, _optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        for parameter, factor, old in self._running:
            parameter.sub_(old).mul_(factor).add_(old)
        self._running = []


def placement_for(optimizer: Optimizer | TakesFactors) -> Placement:
    """Handed over to who takes factors, on the gradient for ``LINEAR_OPTIMIZERS``, else on the step.

    Raises:
        ArgumentError: If the optimizer evaluates gradients inside its step.
    """
    if isinstance(optimizer, TakesFactors):
        return HandedOver(optimizer)
    if _needs_closure(optimizer):
        raise ArgumentError(
            f"{type(optimizer).__name__} evaluates gradients inside its step, where they cannot be measured. "
            "Attach an optimizer that takes one gradient per step."
        )
    return OnGradient(optimizer) if isinstance(optimizer, LINEAR_OPTIMIZERS) else OnStep(optimizer)


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def require_holds(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
    """Raise ArgumentError unless the optimizer holds all trainable parameters, given by name."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, p in parameters.items() if p.requires_grad and id(p) not in held]
    if missing:
        raise ArgumentError(
            f"The optimizer does not hold the parameters {missing[:5]} of the scaler, whose steps would "
            "never be scaled. Attach the optimizer that holds them, or call update_parameters(...) first."
        )
