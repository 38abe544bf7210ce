"""An optimizer's step as a function of tensors: no attribute, no python number, no generator is read while it runs.

What a step is made of (names, groups, options that are not numbers) is fixed when the object is made; everything else
comes in as tensors and is changed in place, so that the step can be traced, compiled and mapped over members.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.optim import rules
from everlearn.optim.averages import advance_weights_
from everlearn.optim.block import Block, Hyper, Scalar
from everlearn.optim.directions import AdamDirection, Direction, GradientDirection
from everlearn.optim.scopes import largest_utility, scope_etas
from everlearn.optim.utility_optimizer import UtilityOptimizer

Tensors = Mapping[str, Tensor]
States = Mapping[str, Tensors]


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
        self.params = {names[param]: param for group in optimizer.param_groups for param in group["params"]}
        self._optimizer = optimizer
        self._groups = [[names[param] for param in group["params"]] for group in optimizer.param_groups]
        self._options = [self.options(group) for group in optimizer.param_groups]

    @abstractmethod
    def options(self, group: Mapping[str, Any]) -> Hyper:
        """A group's hyper-parameters under the rules' names, numbers as floats."""

    @abstractmethod
    def weights_(self, state: Tensors, hyper: Hyper, dtype: torch.dtype) -> dict[str, Scalar]:
        """Count a step in ``state`` and return the running weights of its averages."""

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The optimizer's own state tensors by parameter name; the step changes them in place."""
        return {name: dict(self._optimizer.state[param]) for name, param in self.params.items()}

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

    def noisy(self) -> list[str]:
        """The parameters that take noise."""
        pairs = zip(self._groups, self._options, strict=True)
        return [name for names, options in pairs if options["sigma"] > 0 for name in names]

    def step_(
        self,
        params: Tensors,
        grads: Tensors,
        state: States,
        hyper: Sequence[Tensors],
        noise: Tensors,
        factors: Tensors,
    ) -> None:
        """Update ``params`` and ``state`` in place.

        Args:
            params: By name.
            grads: By name.
            state: As from ``state()``.
            hyper: As from ``hyper()``.
            noise: Standard normal numbers by name, for the parameters that take noise.
            factors: Factors of a variance gradient scaler, 0-d, by name; empty for none.
        """
        blocks: list[tuple[Block, Hyper]] = []
        for names, options, numbers in zip(self._groups, self._options, hyper, strict=True):
            merged: Hyper = {**options, **numbers}
            for name in names:
                block = self._block(params[name], grads[name], state[name], merged, factors.get(name))
                block.noise = noise.get(name)
                rules.observe_(block, self.direction, merged)
                blocks.append((block, merged))
        etas = scope_etas(blocks, [largest_utility(block, hyper) for block, hyper in blocks])
        for (block, merged), eta in zip(blocks, etas, strict=True):
            rules.observe_update_rms_(block, self.direction, merged)
            rules.move_(block, self.direction, merged, eta, rules.noise_std(block, merged))
        self._store(blocks, params)

    def _block(self, param: Tensor, grad: Tensor, state: Tensors, hyper: Hyper, factor: Tensor | None) -> Block:
        dtype = state["avg_utility"].dtype if "avg_utility" in state else param.dtype
        block = Block(param.to(dtype), grad.to(dtype), state, self.weights_(state, hyper, dtype))
        if hyper["adaptive_noise"]:
            block.update_rms = state["update_rms"]
        if factor is not None and self.factor_acts_on == "gradient":
            block.grad_scale = factor.to(dtype)
        elif factor is not None:
            block.step_scale = factor.to(dtype)
        return block

    def _store(self, blocks: Sequence[tuple[Block, Hyper]], params: Tensors) -> None:
        """Round the weights of low precision that were moved in the precision of the state."""
        names = (name for group in self._groups for name in group)
        for name, (block, _) in zip(names, blocks, strict=True):
            if block.param.dtype != params[name].dtype:
                params[name].copy_(block.param)


@final
class FunctionalUtilityOptimizer(FunctionalOptimizer):
    """A member of the UPGD family."""

    def __init__(self, optimizer: UtilityOptimizer, names: Mapping[Tensor, str]) -> None:
        self._family = optimizer
        self.direction, self.factor_acts_on = optimizer.direction, optimizer.factor_acts_on
        super().__init__(optimizer, names)

    def options(self, group: Mapping[str, Any]) -> Hyper:
        """The group itself."""
        return self._family.hyper(group)

    def weights_(self, state: Tensors, hyper: Hyper, dtype: torch.dtype) -> dict[str, Scalar]:
        """Advance the running weights."""
        state["step"].add_(1)
        decays = [torch.as_tensor(decay, dtype=torch.float64) for decay in self._family.decays(hyper)]
        advance_weights_(state["ema_weights"], torch.stack(decays))
        names = ("avg_utility", *self.direction.averages, "update_rms")
        return {name: state["ema_weights"][index].to(dtype) for index, name in enumerate(names)}


@final
class FunctionalTorchOptimizer(FunctionalOptimizer):
    """torch's Adam and AdamW without variants, and plain SGD: the family's base optimizers, with torch's state.

    Raises:
        ArgumentError: If the optimizer, or one of its options, is none of these.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> None:
        self._coupled_decay = type(optimizer) is not torch.optim.AdamW
        if type(optimizer) is torch.optim.SGD:
            self.direction, self.factor_acts_on = GradientDirection(), "gradient"
        else:
            self.direction, self.factor_acts_on = AdamDirection(), "step"
        super().__init__(optimizer, names)
        for param in self.params.values():
            if not optimizer.state[param] and self.direction.averages:
                optimizer.state[param] = {"step": torch.tensor(0.0)} | {
                    average: torch.zeros_like(param) for average in self.direction.averages
                }

    def options(self, group: Mapping[str, Any]) -> Hyper:
        """A group under the rules' names, without gate and noise."""
        variants = ("momentum", "nesterov", "dampening", "maximize", "amsgrad")
        used = [key for key in variants if group.get(key)]
        if self._coupled_decay and group["weight_decay"]:
            used.append("weight_decay")
        if used:
            raise ArgumentError(
                f"{type(self._optimizer).__name__} with {used} has no functional step. Use the eager one."
            )
        betas = group.get("betas", (0.0, 0.0))
        return {
            "lr": float(group["lr"]),
            "weight_decay": float(group["weight_decay"]),
            "beta1": float(betas[0]),
            "beta2": float(betas[1]),
            "eps": float(group.get("eps", 0.0)),
            "sigma": 0.0,
            "scope": "none",
            "protect": False,
            "preset": None,
            "adaptive_noise": False,
        }

    def step_(
        self,
        params: Tensors,
        grads: Tensors,
        state: States,
        hyper: Sequence[Tensors],
        noise: Tensors,
        factors: Tensors,
    ) -> None:
        """torch's step; factors scale the step as a whole, decay included: ``p <- old + f * (p - old)``."""
        before = {name: param.clone() for name, param in params.items()}
        super().step_(params, grads, state, hyper, noise, {})
        if self.factor_acts_on == "step":
            for name, factor in factors.items():
                params[name].copy_(before[name] + factor.to(before[name].dtype) * (params[name] - before[name]))

    def weights_(self, state: Tensors, hyper: Hyper, dtype: torch.dtype) -> dict[str, Scalar]:
        """``1 - beta^step``, as torch corrects its averages."""
        if not self.direction.averages:
            return {}
        state["step"].add_(1)
        step = state["step"].double()
        decays = zip(self.direction.averages, self.direction.decays(hyper), strict=True)
        return {name: (1 - torch.as_tensor(decay) ** step).to(dtype) for name, decay in decays}


def functional(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> FunctionalOptimizer:
    """The functional step of an optimizer.

    Raises:
        ArgumentError: If it has none; the eager step remains.
    """
    if isinstance(optimizer, UtilityOptimizer):
        return FunctionalUtilityOptimizer(optimizer, names)
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        return FunctionalTorchOptimizer(optimizer, names)
    raise ArgumentError(f"{type(optimizer).__name__} has no functional step. Use the eager one.")
