"""Variance gradient scaling as functions of tensors: the scaler's part of a traced update step."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import final

import torch
from torch import Tensor

from everlearn.core.flat import TracedLayout
from everlearn.gradients.factors import FACTOR_RULES, scaling_factors
from everlearn.gradients.statistics import (
    advance_weights_,
    is_measured,
    largest_norm,
    magnitudes,
    move_averages_,
    noise_and_signal,
    observe_,
    sums,
    sums_of_squares,
    unresolved_signal,
)
from everlearn.gradients.variance_scaling import VarianceGradientScaler

Tensors = Mapping[str, Tensor]


@final
class FunctionalScaler:
    """The rules of a scaler over named gradients, bound to its structure (names, scope, mode), not to values.

    Args:
        scaler: Where names, options and state come from.
    """

    def __init__(self, scaler: VarianceGradientScaler) -> None:
        self._scaler = scaler
        history = scaler.history
        self.names = history.names
        self._sizes = history.sizes
        self._layout = TracedLayout(scaler.parameters)
        self._rule = FACTOR_RULES[scaler.mode]
        self._same_scope = scaler.same_scope()
        self._together = bool((history.c == history.c[0]).all() & (history.q == history.q[0]).all())

    def structure(self) -> Hashable:
        """What a trace of it depends on, besides the forms of the tensors."""
        scaler = self._scaler
        return scaler.mode, scaler.scope, tuple(scaler.groups), tuple(self.names), self._together

    def state(self) -> dict[str, Tensor]:
        """The scaler's own statistics, live."""
        return self._scaler.history.vectors()

    def hyper(self) -> dict[str, Tensor]:
        """The numbers now in force, 0-d."""
        scaler = self._scaler
        numbers = {
            "alpha": scaler.alpha,
            "beta": scaler.beta,
            "eps": scaler.eps,
            "min_scale": scaler.min_scale,
            "warmup_steps": scaler.warmup_steps,
        }
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    def gather(self, grads: Tensors) -> Tensor:
        """The gradients of one step in one vector, as ``factors`` and ``observe_`` take them."""
        return self._layout.gather([grads[name] for name in self.names], self._scaler.history.mean.dtype)

    def factors(self, state: Tensors, hyper: Tensors, gradient: Tensor) -> Tensor:
        """The factor of every tensor at this step, (n,); 1 where the raw gradients cannot be measured."""
        scatter = sums(self._layout.views(state["ss"]))
        squares = sums_of_squares(self._layout.views(state["mean"]))
        noise, signal = noise_and_signal(scatter, squares, state["c"], state["q"])
        _, norm = self._magnitudes(gradient)
        warm = state["step_count"] >= hyper["warmup_steps"]
        return scaling_factors(
            noise,
            signal,
            unresolved_signal(noise, state["c"], state["q"]),
            is_measured(state["c"], state["q"]) & warm & self._measurable(norm),
            self._sizes,
            rule=self._rule,
            same_scope=self._same_scope,
            alpha=hyper["alpha"],
            min_scale=hyper["min_scale"],
            tiny=hyper["eps"],
        )

    def observe_(self, state: Tensors, hyper: Tensors, gradient: Tensor, active: Tensor) -> None:
        """Take in raw gradients and count the step, in place; what cannot be measured is only counted as skipped.

        Args:
            state: As from ``state()``.
            hyper: As from ``hyper()``.
            gradient: As from ``gather()``.
            active: 0-d boolean; False leaves every bit as it is.
        """
        before = {name: tensor.clone() for name, tensor in state.items()}
        observed = self._magnitudes(gradient)
        measurable = self._measurable(observed[1])
        self._take_in_(state, hyper["beta"], gradient, observed)
        for name, old in before.items():
            state[name].copy_(torch.where(active & measurable, state[name], old))
        state["skipped_steps"].add_(active & ~measurable)

    def _take_in_(self, state: Tensors, beta: Tensor, gradient: Tensor, observed: tuple[Tensor, Tensor]) -> None:
        advance_weights_(state["c"], state["q"], beta)
        ratio = (1 - beta) / state["c"]
        spread = ratio[0] if self._together else self._layout.expand(ratio.to(gradient.dtype))
        observe_(state["mean"], state["ss"], gradient, spread, 1 - beta, beta)
        averages = (state["grad_mean_ema"], state["grad_norm_ema"])
        move_averages_(averages, state["magnitude_weight"], observed, beta)
        state["step_count"].add_(1)

    def _magnitudes(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return magnitudes([gradient], self._sizes.sum())

    def _measurable(self, norm: Tensor) -> Tensor:
        """Whether gradients of this norm are finite and not too large to be squared, 0-d."""
        return norm <= largest_norm(self._scaler.history.mean.dtype)
