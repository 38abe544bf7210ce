"""Variance gradient scaling: steps shrink where gradients are noise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from everlearn.core.errors import ArgumentError, OrderError, require_in_range, suggestion
from everlearn.gradients.diagnostics import scaling_diagnostics
from everlearn.gradients.factors import FACTOR_RULES, SCOPES, scaling_factors, scope_matrix, weighted_mean
from everlearn.gradients.history import GradientHistory, Observation
from everlearn.gradients.parameters import Parameters, read_parameters
from everlearn.gradients.placement import OnGradient, Placement, TakesFactors, placement_for, require_holds
from everlearn.gradients.statistics import largest_norm, unresolved_signal


@final
class VarianceGradientScaler:
    """Scales each parameter's gradient or step by ``f = max(1 / (1 + alpha * N/S), min_scale)``.

    ``N`` is the variance of the gradient over time and ``S`` the squared norm of its expectation, both summed
    over the scope. The factor of a step follows from the gradients before it; it is exactly 1 in warm-up,
    when disabled, and for a parameter whose gradient was seen less than twice. The order of one update is::

        loss.backward()
        scaler.scale_gradients()
        torch.nn.utils.clip_grad_norm_(...)
        optimizer.step()
        scaler.step()

    Used alone, the scaler multiplies gradients; after ``attach`` it acts where the optimizer cannot cancel
    it. Learning rates are never touched. ``enabled``, ``beta``, ``alpha``, ``warmup_steps``, ``eps`` and
    ``min_scale`` may be assigned between steps.

    Args:
        parameters: ``parameters()``, ``named_parameters()`` (names then key the state) or optimizer groups.
        enabled: Off, gradients, steps and statistics are left alone.
        beta: Decay of the statistics per step, in (0, 1).
        alpha: Strength, 0 for none; in relative mode the exponent.
        warmup_steps: Number of observed steps before any scaling.
        eps: Relative floor of the signal: N/S is at most 1/eps.
        min_scale: Smallest factor, in (0, 1]; in relative mode its reciprocal is the largest.
        scope: What is measured together: every ``"tensor"``, every ``"group"``, or all, ``"global"``.
        mode: ``"noise"`` shrinks noisy steps; ``"relative"`` redistributes, ``f = (phi / phi_mean)^alpha``
            with ``phi = S / (S + N)``.

    Raises:
        ArgumentError: For an argument outside its range, and for parameters on several devices.

    Source: the step size of McCandlish et al. 2018 (section 2.2), measured as in Balles & Hennig 2018.
    """

    def __init__(
        self,
        parameters: Parameters,
        enabled: bool = True,
        beta: float = 0.99,
        alpha: float = 0.1,
        warmup_steps: int = 100,
        eps: float = 1e-8,
        *,
        min_scale: float = 0.1,
        scope: Literal["tensor", "group", "global"] = "tensor",
        mode: Literal["noise", "relative"] = "noise",
    ) -> None:
        require_in_range("beta", beta, 0, 1, open_low=True, open_high=True)
        require_in_range("alpha", alpha, 0, open_high=True)
        require_in_range("warmup_steps", warmup_steps, 0, open_high=True)
        require_in_range("eps", eps, 0, open_low=True, open_high=True)
        require_in_range("min_scale", min_scale, 0, 1, open_low=True)
        _require_known(scope, mode, warmup_steps)
        self.enabled = enabled
        self.beta = beta
        self.alpha = alpha
        self.warmup_steps = warmup_steps
        self.eps = eps
        self.min_scale = min_scale
        self.scope = scope
        self.mode = mode
        given = read_parameters(parameters)
        if scope == "group" and given.groups is None:
            raise ArgumentError('scope="group" needs groups. Pass optimizer.param_groups, or mappings with "params".')
        self.parameters = given.tensors
        self.history = GradientHistory(given.names, given.tensors)
        self._groups = given.groups or [0] * len(given.tensors)
        self._pending: Observation | None = None
        self._placement: Placement = OnGradient()

    @torch.no_grad()
    def scale_gradients(self) -> float:
        """Measure the gradients and let the factors act; the measurement is pending until ``step()``.

        Gradients that are not finite, or too large to be squared, stay as they are and are counted in
        ``skipped_steps``; nothing is pending then.

        Returns:
            The mean factor, weighted by the number of elements.

        Raises:
            OrderError: If a measurement is still pending, or there are no parameters.
        """
        if not self.enabled:
            return 1.0
        self._require_ready()
        gradients = [parameter.grad for parameter in self.parameters]
        if all(gradient is None for gradient in gradients):
            return 1.0
        observation = self.history.copy_of(gradients)
        factors = self.factors()
        mean_factor = weighted_mean(factors, self.history.sizes)
        norm, applied = torch.stack([observation.norm.to(mean_factor.dtype), mean_factor]).tolist()
        if not norm <= largest_norm(observation.gradient.dtype):  # NaN, too
            self.history.skipped_steps += 1
            return 1.0
        self._pending = observation
        self._placement.apply(self.parameters, factors)
        return float(applied)

    @torch.no_grad()
    def step(self) -> None:
        """Commit the pending measurement, after ``optimizer.step()``; without one, do nothing."""
        if self._pending is not None:
            self.history.observe(self._pending, self.beta)
            self._pending = None

    def _require_ready(self) -> None:
        if not self.parameters:
            raise OrderError(
                "This scaler is a copy, and copies hold no parameters. Call update_parameters(...) before "
                "scale_gradients()."
            )
        if self._pending is not None:
            raise OrderError(
                "scale_gradients() was called twice without step() between. Call step() after each optimizer.step()."
            )

    @torch.no_grad()
    def factors(self) -> Tensor:
        """The factor of each parameter at the next step, (n,), from what was committed so far."""
        if not self.enabled:
            return torch.ones_like(self.history.c)
        noise, signal = self.history.noise_and_signal()
        return scaling_factors(
            noise,
            signal,
            unresolved_signal(noise, self.history.c, self.history.q),
            self.history.is_measured() & self._is_warm(),
            self.history.sizes,
            rule=FACTOR_RULES[self.mode],
            same_scope=self.same_scope(),
            alpha=self.alpha,
            min_scale=self.min_scale,
            tiny=self.eps,
        )

    def get_scaling_factor(self) -> float:
        """The mean factor at the next step, weighted by the number of elements."""
        return float(weighted_mean(self.factors(), self.history.sizes))

    def get_scaling_factors(self) -> dict[str, float]:
        """The factor of each parameter at the next step, by name."""
        return dict(zip(self.history.names, self.factors().tolist(), strict=True))

    @property
    def groups(self) -> list[int]:
        """The number of the group of each parameter."""
        return self._groups

    def same_scope(self) -> Tensor | None:
        """(n, n), 1 where two parameters are measured together; None where each is alone."""
        return scope_matrix(self.scope, self._groups, like=self.history.c)

    def _is_warm(self) -> Tensor:
        return self.history.step_count >= self.warmup_steps

    def attach(self, optimizer: Optimizer | TakesFactors) -> None:
        """Act where this optimizer lets factors take effect; one that was attached before is let go.

        Optimizers of everlearn take the factors themselves; SGD-type ones have their gradients scaled; of any
        other the whole step is scaled, ``p <- old + f * (p - old)``.

        Raises:
            ArgumentError: If the optimizer needs a closure, or does not hold the scaler's parameters.
        """
        if optimizer is self._placement.optimizer:
            return
        if isinstance(optimizer, Optimizer) and self.parameters:
            require_holds(optimizer, dict(zip(self.history.names, self.parameters, strict=True)))
        placement = placement_for(optimizer)
        self.detach()
        self._placement = placement

    def detach(self) -> None:
        """Let go of the optimizer; the scaler multiplies gradients from now on."""
        self._placement.remove()
        self._placement = OnGradient()

    def update_parameters(self, parameters: Parameters) -> None:
        """Follow new parameters: statistics stay where all shapes agree, else they and the counter are reset.

        Where all shapes agree, names and groups that do not come with the new parameters stay too.

        Raises:
            ArgumentError: As from the constructor; the scaler is then unchanged.
        """
        given, lost = read_parameters(parameters), self.step_count
        fits = self.history.fits(given.tensors)
        self.history = self.history.moved_to(given.tensors, given.names)
        self._groups = given.groups or (self._groups if fits else [0] * len(given.tensors))
        self.parameters = given.tensors
        self._pending = None
        if lost and not fits:
            self.history.resets += 1
            warnings.warn(
                f"Variance gradient scaling: shapes of parameters have changed, so the statistics of {lost} "
                "steps are lost and warm-up begins again.",
                UserWarning,
                stacklevel=2,
            )

    def reset_statistics(self) -> None:
        """Forget all gradients, pending ones and the counter of steps included."""
        self._pending = None
        self.history.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot of the statistics, not of the configuration: tensors by name of parameter."""
        return self.history.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore the statistics of a snapshot, or raise and stay as before; a pending measurement is dropped.

        Args:
            state_dict: As from ``state_dict()``, on any device.
            strict: Whether names must agree; if not, what is missing stays and what is unknown is ignored.

        Raises:
            StateError: If names disagree or a shape differs.
        """
        self.history.load_state_dict(state_dict, strict)
        self._pending = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles have configuration and statistics, but neither parameters nor an optimizer."""
        return {**self.__dict__, "parameters": [], "_pending": None, "_placement": OnGradient()}

    @property
    def step_count(self) -> int:
        """Number of observed steps since the beginning or the last reset."""
        return int(self.history.step_count)

    @property
    def skipped_steps(self) -> int:
        """Number of gradients that were not finite."""
        return int(self.history.skipped_steps)

    @property
    def resets(self) -> int:
        """How often statistics were forgotten."""
        return int(self.history.resets)

    @property
    def grad_mean_ema(self) -> float | None:
        """Running mean of the mean absolute gradient; None before the first step."""
        return float(self.history.grad_mean_ema) if self.step_count else None

    @property
    def grad_var_ema(self) -> float | None:
        """Variance of a gradient element over time, the mean over elements; None before the first step."""
        noise, _ = self.history.noise_and_signal()
        return float(noise.sum() / self.history.sizes.sum()) if self.step_count else None

    @property
    def grad_norm_ema(self) -> float | None:
        """Running mean of the norm of all gradients together; None before the first step."""
        return float(self.history.grad_norm_ema) if self.step_count else None

    def diagnostics(self) -> dict[str, float]:
        """Quantities to log: factors, noise-to-signal ratio, variance before and after scaling, counts."""
        values = scaling_diagnostics(self.history, self.factors(), self._is_warm(), self.eps)
        return dict(zip(values, torch.stack([value.double() for value in values.values()]).tolist(), strict=True))


def _require_known(scope: str, mode: str, warmup_steps: float) -> None:
    if scope not in SCOPES:
        raise ArgumentError(f"scope='{scope}' is not known.{suggestion(scope, SCOPES)}")
    if mode not in FACTOR_RULES:
        raise ArgumentError(f"mode='{mode}' is not known.{suggestion(mode, FACTOR_RULES)}")
    if (scope, mode) == ("global", "relative"):
        raise ArgumentError(
            "mode='relative' moves step size between scopes, but scope='global' is a single one. Use "
            "scope='tensor' or 'group'."
        )
    if warmup_steps != int(warmup_steps):
        raise ArgumentError(f"warmup_steps={warmup_steps!r} is not a whole number. Give a number of steps.")
