"""Assigning hyper-parameters at any time, and by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from everlearn.core.errors import ArgumentError, suggestion
from everlearn.gradients import VarianceGradientScaler
from everlearn.ppo.hyperparameters import FIXED, HYPERPARAMETERS
from everlearn.ppo.kl import KLSpec, kl_controls
from everlearn.ppo.learning import RolloutLearner
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.schedules import schedule_data

SCALER_OPTIONS = ("eps", "min_scale")


class TunableLearner(RolloutLearner):
    """A learner whose hyper-parameters may be assigned at any time: they are checked, and who holds a copy follows."""

    vgs_beta: float
    vgs_alpha: float
    vgs_warmup_steps: int
    optimizer_kwargs: dict[str, Any] | None
    vgs_kwargs: dict[str, Any]
    kl_penalty: KLSpec | None
    _learning_rate_was_set = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIXED and self._is_set_up():
            raise ArgumentError(
                f"{name} cannot change once the model is built. {FIXED[name]}, or build another model and give it what "
                "this one has learned with set_parameters()."
            )
        rule = HYPERPARAMETERS.get(name)
        if rule is None:
            super().__setattr__(name, value)
            return
        value = rule.checked(name, value)
        if self._is_set_up():
            rule.fits(self, value)
        super().__setattr__(name, value)
        if self._is_set_up():
            rule.follow(self)

    def _is_set_up(self) -> bool:
        return "rollout_buffer" in vars(self)

    def set_hyperparameter(self, name: str, value: Any) -> None:
        """Change a hyper-parameter; it is in force from the next update on (``n_steps``: the next rollout).

        Args:
            name: An argument (``"gamma"``, ``"vgs_alpha"``), or an option of a part by its path in the configuration:
                ``"optimizer_kwargs.sigma"``, ``"vgs_kwargs.min_scale"``, ``"kl_penalty.target"``.
            value: Its new value; a schedule as a number, ``"lin_x"``, a mapping or a function.

        Raises:
            ArgumentError: If there is none of this name, its part is off, or the value is outside its range.
        """
        part, _, option = name.partition(".")
        if name in HYPERPARAMETERS:
            setattr(self, name, value)
        elif part == "optimizer_kwargs" and option == "lr":
            self.learning_rate = value
        elif option and part in _PARTS:
            _PARTS[part](self, name, option, value)
        else:
            raise ArgumentError(
                f"'{name}' is no hyper-parameter that may change: it is unknown or part of the architecture."
                f"{suggestion(name, self.get_hyperparameters())}"
            )

    def get_hyperparameters(self) -> dict[str, Any]:
        """All that may be changed, by the names of ``set_hyperparameter``, as plain data.

        A schedule is a number or a ``{"kind": ...}`` mapping; a function without a kind is itself.
        """
        values = {name: getattr(self, name) for name in HYPERPARAMETERS}
        for name, value in values.items():
            if isinstance(value, Mapping | str) or callable(value):
                data = schedule_data(value)
                values[name] = value if data is None else data
        group = self.policy.optimizer.defaults
        values |= {f"optimizer_kwargs.{name}": group[name] for name in _numbers(group) if name != "lr"}
        if self.variance_gradient_scaler is not None:
            scaler = self.variance_gradient_scaler
            values |= {f"vgs_kwargs.{name}": getattr(scaler, name) for name in SCALER_OPTIONS}
        if self.kl_controller is not None:
            values |= {f"kl_penalty.{name}": getattr(self.kl_controller, name) for name in self.kl_controller.options}
        return values


def _numbers(options: Mapping[str, Any]) -> list[str]:
    """Names of the options that are numbers, or tuples of them such as ``betas``."""
    return [
        name
        for name, value in options.items()
        if (isinstance(value, float | int) and not isinstance(value, bool)) or isinstance(value, tuple)
    ]


def _set_optimizer_option(model: TunableLearner, name: str, option: str, value: Any) -> None:
    """In every group that does not override it, as the groups of weights without decay and noise do."""
    optimizer = model.policy.optimizer
    _require_option(name, option, _numbers(optimizer.defaults))
    _tried(name, lambda: type(optimizer)([torch.nn.Parameter(torch.zeros(1))], **{option: value}))
    own: list[dict[str, Any]] = [{} for _ in optimizer.param_groups]
    if isinstance(model.policy, ActorCriticPolicy) and len(optimizer.param_groups) > 1:
        own = model.policy.parameter_groups()
    for group, overrides in zip(optimizer.param_groups, own, strict=True):
        if option not in overrides:
            group[option] = value
    optimizer.defaults[option] = value
    vars(model)["optimizer_kwargs"] = {**(model.optimizer_kwargs or {}), option: value}


def _set_scaler_option(model: TunableLearner, name: str, option: str, value: Any) -> None:
    scaler = model.variance_gradient_scaler
    if scaler is None:
        raise ArgumentError(f"{name}: variance gradient scaling is off. Build the model with it on.")
    _require_option(name, option, SCALER_OPTIONS)
    _tried(name, lambda: VarianceGradientScaler([torch.nn.Parameter(torch.zeros(1))], **{option: value}))
    setattr(scaler, option, value)
    vars(model)["vgs_kwargs"] = {**model.vgs_kwargs, option: value}


def _set_kl_option(model: TunableLearner, name: str, option: str, value: Any) -> None:
    control = model.kl_controller
    if control is None:
        raise ArgumentError(f"{name}: there is no KL control. Build the model with kl_penalty.")
    _require_option(name, option, control.options)
    options = {known: getattr(control, known) for known in control.options}
    options[option] = value
    _tried(name, lambda: type(control)(**options))
    setattr(control, option, value)
    kind = kl_controls.name_of(type(control))
    vars(model)["kl_penalty"] = type(control)(**options) if kind is None else {"kind": kind, **options}


_PARTS: dict[str, Callable[[TunableLearner, str, str, Any], None]] = {
    "optimizer_kwargs": _set_optimizer_option,
    "vgs_kwargs": _set_scaler_option,
    "kl_penalty": _set_kl_option,
}


def _require_option(name: str, option: str, known: Any) -> None:
    if option not in known:
        raise ArgumentError(f"{name}: there is no such number to change.{suggestion(option, known)}")


def _tried(name: str, build: Callable[[], object]) -> None:
    """Let a constructor that knows the range of the value judge it."""
    try:
        build()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: {error}") from error
