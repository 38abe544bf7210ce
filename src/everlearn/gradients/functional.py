"""Variance gradient scaling as functions of tensors: the scaler's part of a traced update step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

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
        self._names = scaler.history.names
        self._sizes = scaler.history.sizes
        self._rule = FACTOR_RULES[scaler.mode]
        self._same_scope = scaler.same_scope()

    def state(self) -> dict[str, Tensor]:
        """The scaler's own statistics, live."""
        return self._scaler.history.tensors()

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

    def factors(self, state: Tensors, hyper: Tensors, grads: Tensors) -> dict[str, Tensor]:
        """The factor of every tensor at this step, 0-d by name; 1 where the raw gradients cannot be measured."""
        scatter = sums([state[f"ss.{name}"] for name in self._names])
        squares = sums_of_squares([state[f"mean.{name}"] for name in self._names])
        noise, signal = noise_and_signal(scatter, squares, state["c"], state["q"])
        _, norm = self._magnitudes(grads)
        warm = state["step_count"] >= hyper["warmup_steps"]
        factors = scaling_factors(
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
        return dict(zip(self._names, factors.unbind(), strict=True))

    def observe_(self, state: Tensors, hyper: Tensors, grads: Tensors, active: Tensor) -> None:
        """Take in raw gradients and count the step, in place; what cannot be measured is only counted as skipped.

        Args:
            state: As from ``state()``.
            hyper: As from ``hyper()``.
            grads: By name.
            active: 0-d boolean; False leaves every bit as it is.
        """
        before = {name: tensor.clone() for name, tensor in state.items()}
        observed = self._magnitudes(grads)
        measurable = self._measurable(observed[1])
        self._take_in_(state, hyper["beta"], grads, observed)
        for name, old in before.items():
            state[name].copy_(torch.where(active & measurable, state[name], old))
        state["skipped_steps"].add_(active & ~measurable)

    def _take_in_(self, state: Tensors, beta: Tensor, grads: Tensors, observed: tuple[Tensor, Tensor]) -> None:
        advance_weights_(state["c"], state["q"], beta)
        ratios = ((1 - beta) / state["c"]).unbind()
        for name, ratio in zip(self._names, ratios, strict=True):
            observe_(state[f"mean.{name}"], state[f"ss.{name}"], grads[name], ratio, 1 - beta, beta)
        averages = (state["grad_mean_ema"], state["grad_norm_ema"])
        move_averages_(averages, state["magnitude_weight"], observed, beta)
        state["step_count"].add_(1)

    def _magnitudes(self, grads: Tensors) -> tuple[Tensor, Tensor]:
        return magnitudes([grads[name] for name in self._names], self._sizes.sum())

    def _measurable(self, norm: Tensor) -> Tensor:
        """Whether gradients of this norm are finite and not too large to be squared, 0-d."""
        return norm <= largest_norm(self._scaler.history.mean.dtype)
