"""Hyper-parameters that may change while a model learns: what each may be, and who has to follow when it changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from everlearn.core.errors import ArgumentError, require_in_range, suggestion
from everlearn.gradients import VarianceGradientScaler
from everlearn.ppo.construction import check_batch_size
from everlearn.ppo.kl import KLSpec, kl_controls
from everlearn.ppo.learning import RolloutLearner
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.schedules import schedule_data, schedule_from


class Range(NamedTuple):
    """The numbers that a hyper-parameter may be.

    Args:
        low: Lowest.
        high: Highest.
        open_low: Whether the lowest is excluded.
        open_high: Whether the highest is excluded.
        whole: Whether only whole numbers will do.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = True
    whole: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuse what is no number or outside.

        Raises:
            ArgumentError: Naming argument, value and range.
        """
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ArgumentError(f"{name}={value!r} is no number. Give one.") from None
        if self.open_high or number != self.high:  # the highest may be infinity
            require_in_range(name, number, self.low, self.high, open_low=self._is_open_low(), open_high=self.open_high)
        if self.whole and number != math.floor(number):
            raise ArgumentError(f"{name}={value!r} is not a whole number. Give one.")

    def _is_open_low(self) -> bool:
        return self.open_low or self.low == -math.inf


@dataclass(frozen=True)
class Hyperparameter:
    """What one may be and who follows it.

    Args:
        range: Its numbers; None where any value will do.
        optional: Whether it may be None.
        fits: Refuses a value that contradicts others; called before an assignment to a model that is set up.
        follow: Tells whoever holds a copy; called after an assignment to a model that is set up.
    """

    range: Range | None = None
    optional: bool = False
    fits: Callable[[TunableLearner, Any], None] = lambda model, value: None
    follow: Callable[[TunableLearner], None] = lambda model: None

    def checked(self, name: str, value: Any) -> Any:
        """The value as the model keeps it.

        Raises:
            ArgumentError: If it is outside its range.
        """
        if self.range is not None and not (value is None and self.optional):
            self.range.check(name, value)
            return int(value) if self.range.whole else value if isinstance(value, int) else float(value)
        return value


@dataclass(frozen=True)
class ScheduledHyperparameter(Hyperparameter):
    """A number or a schedule; the model keeps SB3's wrapper of it, or what was given.

    Args:
        keeps_given: Whether the model keeps what was given.
    """

    keeps_given: bool = False

    def checked(self, name: str, value: Any) -> Any:
        """The value as the model keeps it.

        Raises:
            ArgumentError: If it is no schedule, or begins outside its range.
        """
        if value is None and self.optional:
            return None
        schedule = schedule_from(value, name)
        assert self.range is not None
        if isinstance(value, float | int):
            self.range.check(name, value)
        else:  # a schedule may start at 0
            self.range._replace(open_low=False).check(f"{name}(1.0)", schedule(1.0))
        return value if self.keeps_given else schedule


@dataclass(frozen=True)
class ValueClipRange(ScheduledHyperparameter):
    """SB3's ``clip_range_vf``, with SB3's exception for a number that is not positive."""

    def checked(self, name: str, value: Any) -> Any:
        """The value as the model keeps it."""
        assert not isinstance(value, float | int) or value > 0, (
            "`clip_range_vf` must be positive, pass `None` to deactivate vf clipping"
        )
        return super().checked(name, value)


def _follow_discount(model: TunableLearner) -> None:
    model.rollout_buffer.gamma = model.gamma
    if model._vec_normalize_env is not None:
        model._vec_normalize_env.gamma = model.gamma


def _follow_gae_lambda(model: TunableLearner) -> None:
    model.rollout_buffer.gae_lambda = model.gae_lambda


def _follow_learning_rate(model: TunableLearner) -> None:
    model._learning_rate_was_set = True
    model._setup_lr_schedule()


def _follow_scaler(name: str) -> Callable[[TunableLearner], None]:
    def follow(model: TunableLearner) -> None:
        if model.variance_gradient_scaler is not None:
            setattr(model.variance_gradient_scaler, name, getattr(model, f"vgs_{name}"))

    return follow


def _fits_sizes(name: str) -> Callable[[TunableLearner, Any], None]:
    def fits(model: TunableLearner, value: Any) -> None:
        sizes = {"batch_size": model.batch_size, "n_steps": model.n_steps} | {
            "normalize_advantage": model.normalize_advantage,
            name: value,
        }
        check_batch_size(n_envs=model.n_envs, **sizes)

    return fits


HYPERPARAMETERS: dict[str, Hyperparameter] = {
    "learning_rate": ScheduledHyperparameter(Range(0), follow=_follow_learning_rate, keeps_given=True),
    "n_steps": Hyperparameter(Range(1, whole=True), fits=_fits_sizes("n_steps")),
    "batch_size": Hyperparameter(Range(1, whole=True), fits=_fits_sizes("batch_size")),
    "n_epochs": Hyperparameter(Range(1, whole=True)),
    "gamma": Hyperparameter(Range(0, 1, open_high=False), follow=_follow_discount),
    "gae_lambda": Hyperparameter(Range(0, 1, open_high=False), follow=_follow_gae_lambda),
    "clip_range": ScheduledHyperparameter(Range(0, open_low=True)),
    "clip_range_vf": ValueClipRange(Range(0, open_low=True), optional=True),
    "normalize_advantage": Hyperparameter(fits=_fits_sizes("normalize_advantage")),
    "ent_coef": Hyperparameter(Range()),
    "vf_coef": Hyperparameter(Range(0)),
    "max_grad_norm": Hyperparameter(Range(0, open_high=False)),
    "target_kl": Hyperparameter(Range(0, open_low=True), optional=True),
    "vgs_beta": Hyperparameter(Range(0, 1, open_low=True), follow=_follow_scaler("beta")),
    "vgs_alpha": Hyperparameter(Range(0), follow=_follow_scaler("alpha")),
    "vgs_warmup_steps": Hyperparameter(Range(0, whole=True), follow=_follow_scaler("warmup_steps")),
}
"""By attribute of the model. Any of them may be assigned at any time and is in force from the next update on."""
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
    model.optimizer_kwargs = {**(model.optimizer_kwargs or {}), option: value}


def _set_scaler_option(model: TunableLearner, name: str, option: str, value: Any) -> None:
    scaler = model.variance_gradient_scaler
    if scaler is None:
        raise ArgumentError(f"{name}: variance gradient scaling is off. Build the model with it on.")
    _require_option(name, option, SCALER_OPTIONS)
    _tried(name, lambda: VarianceGradientScaler([torch.nn.Parameter(torch.zeros(1))], **{option: value}))
    setattr(scaler, option, value)
    model.vgs_kwargs = {**model.vgs_kwargs, option: value}


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
    model.kl_penalty = type(control)(**options) if kind is None else {"kind": kind, **options}


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
