"""Hyper-parameters that may change while a model learns: what each may be, and who follows when it changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.ppo.construction import check_batch_size
from everlearn.ppo.schedules import schedule_data, schedule_from

if TYPE_CHECKING:
    from everlearn.ppo.tuning import TunableLearner


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
class Switch(Hyperparameter):
    """True or False, and nothing that merely counts as one of them."""

    def checked(self, name: str, value: Any) -> bool:
        """The value as the model keeps it.

        Raises:
            ArgumentError: If it is neither.
        """
        if not isinstance(value, bool | np.bool_):
            raise ArgumentError(f"{name}={value!r} is neither True nor False. Give one of these.")
        return bool(value)


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
            ArgumentError: If it is no schedule, or leaves its range: at any time where it is data, at the beginning
                where it is a function.
        """
        if value is None and self.optional:
            return None
        schedule = schedule_from(value, name)
        assert self.range is not None
        if isinstance(value, float | int):
            self.range.check(name, value)
        else:  # a schedule may start or end at 0
            within = self.range._replace(open_low=False)
            for progress in TRIED_PROGRESS if schedule_data(schedule) is not None else (1.0,):
                within.check(f"{name}({progress})", schedule(progress))
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
    model.divergence_guard.lr_factor = 1.0  # what the user sets now is meant as it is
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


def _fits_early_stopping(model: TunableLearner, value: float | None) -> None:
    if model.kl_controller is not None:
        model.kl_controller.require_no_other(value)


HYPERPARAMETERS: dict[str, Hyperparameter] = {
    "learning_rate": ScheduledHyperparameter(Range(0), follow=_follow_learning_rate, keeps_given=True),
    "n_steps": Hyperparameter(Range(1, whole=True), fits=_fits_sizes("n_steps")),
    "batch_size": Hyperparameter(Range(1, whole=True), fits=_fits_sizes("batch_size")),
    "n_epochs": Hyperparameter(Range(1, whole=True)),
    "gamma": Hyperparameter(Range(0, 1, open_high=False), follow=_follow_discount),
    "gae_lambda": Hyperparameter(Range(0, 1, open_high=False), follow=_follow_gae_lambda),
    "clip_range": ScheduledHyperparameter(Range(0, open_low=True)),
    "clip_range_vf": ValueClipRange(Range(0, open_low=True), optional=True),
    "normalize_advantage": Switch(fits=_fits_sizes("normalize_advantage")),
    "ent_coef": Hyperparameter(Range()),
    "vf_coef": Hyperparameter(Range(0)),
    "max_grad_norm": Hyperparameter(Range(0, open_high=False)),
    "target_kl": Hyperparameter(Range(0, open_low=True), optional=True, fits=_fits_early_stopping),
    "vgs_beta": Hyperparameter(Range(0, 1, open_low=True), follow=_follow_scaler("beta")),
    "vgs_alpha": Hyperparameter(Range(0), follow=_follow_scaler("alpha")),
    "vgs_warmup_steps": Hyperparameter(Range(0, whole=True), follow=_follow_scaler("warmup_steps")),
}
"""By attribute of the model. Any of them may be assigned at any time and is in force from the next update on."""
SCHEDULED = tuple(name for name, rule in HYPERPARAMETERS.items() if isinstance(rule, ScheduledHyperparameter))
TRIED_PROGRESS = tuple(step / 200 for step in range(201))
FIXED: dict[str, str] = {
    **dict.fromkeys(
        ("value_head", "n_critics", "critic_reduction", "normalize_returns", "optimizer_class", "divergence"),
        "Leave it",
    ),
    "variance_gradient_scaling": 'Switch it by model.set_hyperparameter("vgs_kwargs.enabled", False)',
    **{
        part: f'Change one number by model.set_hyperparameter("{part}.NAME", value)'
        for part in ("optimizer_kwargs", "vgs_kwargs", "kl_penalty")
    },
}
"""Arguments that a built model does not read again, and what to do instead of assigning them."""
