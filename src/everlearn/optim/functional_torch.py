"""The steps of torch's own optimizers as functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.optim.block import Hyper, Scalar
from everlearn.optim.directions import AdamDirection, GradientDirection
from everlearn.optim.functional_step import FunctionalOptimizer, Piece, States, Tensors


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
        variants = ("momentum", "nesterov", "dampening", "maximize", "amsgrad", "fused", "capturable", "differentiable")
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

    def pieces(self) -> list[Piece]:
        """Every parameter by itself, whose state has tensors of its own."""
        groups = enumerate(self._optimizer.param_groups)
        names = [(number, self._names[param]) for number, group in groups for param in group["params"]]
        return [Piece((name,), number, None, name) for number, name in names]

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The state of each parameter, by its name."""
        return {name: dict(self._optimizer.state[param]) for name, param in self.params.items()}

    def step_(
        self,
        params: Tensors,
        gradients: Sequence[Tensor],
        state: States,
        hyper: Sequence[Tensors],
        noise: Tensor,
        factors: Tensors,
    ) -> None:
        """torch's step; factors scale the step as a whole, decay included: ``p <- old + f * (p - old)``."""
        before = {name: param.clone() for name, param in params.items()}
        super().step_(params, gradients, state, hyper, noise, {})
        if self.factor_acts_on == "step":
            for name, factor in factors.items():
                params[name].copy_(before[name] + factor.to(before[name].dtype) * (params[name] - before[name]))

    def count_(self, state: Tensors, hyper: Hyper, dtype: torch.dtype) -> dict[str, Scalar]:
        """``1 - beta^step``, as torch corrects averages; by ``exp``, which no compiler repeats for every element."""
        if not self.direction.averages:
            return {}
        state["step"].add_(1)
        step = state["step"].double()
        decays = zip(self.direction.averages, self.direction.decays(hyper), strict=True)
        return {name: (1 - torch.exp(step * torch.as_tensor(decay).log())).to(dtype) for name, decay in decays}
