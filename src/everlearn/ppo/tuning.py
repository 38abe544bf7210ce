"""Assigning hyper-parameters at any time, and by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everlearn.core.errors import ArgumentError, OrderError, suggestion
from everlearn.core.hyperparameter_names import argument_name
from everlearn.ppo.hyperparameters import FIXED, HYPERPARAMETERS, SCHEDULED
from everlearn.ppo.kl import KLSpec
from everlearn.ppo.learning import RolloutLearner
from everlearn.ppo.options import PARTS
from everlearn.ppo.schedules import schedule_data


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
                ``"optimizer_kwargs.sigma"``, ``"vgs_kwargs.min_scale"``, ``"kl_penalty.target"``. Names of populations,
                as ``"optimizer.sigma"`` and ``"entropy_coef"``, are the same.
            value: Its new value; a schedule as a number, ``"lin_x"``, a mapping or a function.

        Raises:
            ArgumentError: If there is none of this name, its part is off, or the value is outside its range.
        """
        self._require_set_up()
        name = argument_name(name)
        part, _, option = name.partition(".")
        if name in HYPERPARAMETERS:
            setattr(self, name, value)
        elif option and part in PARTS:
            self._change_option(part, option, value)
        else:
            raise ArgumentError(
                f"'{name}' is no hyper-parameter that may change: it is unknown or part of the architecture."
                f"{suggestion(name, self.get_hyperparameters())}"
            )

    def set_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Change those that differ from what is in force.

        The others stay untouched, and so does what a change would undo, such as the factor on the learning rate that a
        divergence has left. Sizes are judged together, when all the others are in force.

        Args:
            values: By the names of ``set_hyperparameter``.

        Raises:
            ArgumentError: As ``set_hyperparameter``; some may have changed then.
        """
        present = self.get_hyperparameters()
        named = {argument_name(name): value for name, value in values.items()}
        different = {
            name: value
            for name, value in named.items()
            if name not in present or present[name] != _as_in_force(name, value)
        }
        for name, value in different.items():
            if name in _SIZES:
                vars(self)[name] = HYPERPARAMETERS[name].checked(name, value)
            else:
                self.set_hyperparameter(name, value)
        if _SIZES & different.keys():
            self.batch_size = self.batch_size

    def get_hyperparameters(self) -> dict[str, Any]:
        """All that may be changed, by the names of ``set_hyperparameter``, as plain data.

        A schedule is a number or a ``{"kind": ...}`` mapping; a function without a kind is itself.
        """
        self._require_set_up()
        values = {name: getattr(self, name) for name in HYPERPARAMETERS}
        values["learning_rate"] = self.lr_schedule
        if self.variance_gradient_scaler is not None:
            live = ("beta", "alpha", "warmup_steps")
            values |= {f"vgs_{name}": getattr(self.variance_gradient_scaler, name) for name in live}
        for name in SCHEDULED:
            data = schedule_data(values[name]) if values[name] is not None else None
            values[name] = values[name] if data is None else data
        for part, (options_of, _) in PARTS.items():
            options = options_of(self)
            values |= {} if options is None else {f"{part}.{name}": value for name, value in options.values().items()}
        return values

    def _change_option(self, part: str, option: str, value: Any) -> None:
        options_of, when_off = PARTS[part]
        options = options_of(self)
        if options is None:
            raise ArgumentError(f"{part}.{option}: {when_off}")
        options.change(f"{part}.{option}", option, value)

    def _require_set_up(self) -> None:
        if not self._is_set_up():
            raise OrderError("The model is not built yet. Call _setup_model() first.")


_SIZES = {"batch_size", "n_steps"}


def _as_in_force(name: str, value: Any) -> Any:
    """A value as ``get_hyperparameters`` would have it."""
    value = HYPERPARAMETERS[name].checked(name, value) if name in HYPERPARAMETERS else value
    data = schedule_data(value) if name in SCHEDULED and value is not None else None
    return value if data is None else data
