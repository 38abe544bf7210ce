"""The options of a model's parts that may change while it learns, under their names in the configuration."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy

from everlearn.core.errors import ArgumentError, suggestion
from everlearn.gradients import VarianceGradientScaler
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.ppo.kl import KLControl
from everlearn.ppo.policy import ActorCriticPolicy


class PartOptions(ABC):
    """Reads and changes the options of one part; each is read where the part itself reads it."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """What is in force, by name."""

    @abstractmethod
    def set(self, option: str, value: Any) -> None:
        """Put a value in force.

        Raises:
            TypeError, ValueError: If the part's constructor would not take it.
        """

    def change(self, path: str, option: str, value: Any) -> None:
        """Put a value in force, or refuse it and change nothing.

        Args:
            path: Name of the option in the configuration, for messages.
            option: Its name within the part.
            value: Its new value.

        Raises:
            ArgumentError: If there is no such option, or the value is outside its range.
        """
        known = self.values()
        if option not in known:
            raise ArgumentError(f"{path}: there is no such number to change.{suggestion(option, known)}")
        try:
            self.set(option, value)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{path}: {error}") from error


class OptimizerOptions(PartOptions):
    """Of the optimizer's groups; those that override an option, as weights without decay and noise do, keep theirs.

    Args:
        policy: The policy whose optimizer it is.
    """

    def __init__(self, policy: SB3ActorCriticPolicy) -> None:
        self._optimizer = policy.optimizer
        self._overrides: list[Mapping[str, Any]] = [{} for _ in self._optimizer.param_groups]
        if isinstance(policy, ActorCriticPolicy) and isinstance(self._optimizer, UtilityOptimizer):
            overrides: list[Mapping[str, Any]] = list(policy.parameter_groups())
            if len(overrides) == len(self._overrides):  # the policy's own; another may have taken its place
                self._overrides = overrides

    def values(self) -> dict[str, Any]:
        """What is in force, by name; the learning rate is the schedule's."""
        found = {name: self._read(name) for name in self._arguments() if name != "lr"}
        return {name: value for name, value in found.items() if _is_number(value)}

    def set(self, option: str, value: Any) -> None:
        """Put a value in force in every group that does not override it."""
        beside = _BETAS if option == "betas" else ()
        arguments = {name: self._read(name) for name in self._arguments() if name not in beside} | {option: value}
        type(self._optimizer)([torch.nn.Parameter(torch.zeros(1))], **arguments)
        entries = {option: value} if option in self._optimizer.defaults else dict(zip(_BETAS, value, strict=True))
        for group, overrides in zip(self._optimizer.param_groups, self._overrides, strict=True):
            group.update({name: entry for name, entry in entries.items() if name not in overrides})

    def _arguments(self) -> Iterator[str]:
        """Arguments of the constructor that stand in its groups; beta1 and beta2 there may be betas in the other."""
        defaults = self._optimizer.defaults
        names = set(inspect.signature(type(self._optimizer)).parameters)
        for name in names:
            if name in defaults or (name == "betas" and _BETAS[0] in defaults and _BETAS[0] not in names):
                yield name

    def _read(self, name: str) -> Any:
        if name not in self._optimizer.defaults:
            return tuple(self._read(beta) for beta in _BETAS)
        groups = zip(self._optimizer.param_groups, self._overrides, strict=True)
        own = [group[name] for group, overrides in groups if name not in overrides]
        value = own[0] if own else self._optimizer.defaults[name]
        return tuple(value) if isinstance(value, list) else value  # as a loaded state may have it


_BETAS = ("beta1", "beta2")


class ScalerOptions(PartOptions):
    """Of the scaler, but for those that are arguments of the model.

    Args:
        scaler: The scaler.
    """

    names = ("enabled", "eps", "min_scale")

    def __init__(self, scaler: VarianceGradientScaler) -> None:
        self._scaler = scaler

    def values(self) -> dict[str, Any]:
        """What is in force, by name."""
        return {name: getattr(self._scaler, name) for name in self.names}

    def set(self, option: str, value: Any) -> None:
        """Assign it."""
        if option == "enabled" and not isinstance(value, bool):
            raise ValueError(f"enabled={value!r} is neither True nor False. Give one of these.")
        VarianceGradientScaler([torch.nn.Parameter(torch.zeros(1))], **{option: value})
        setattr(self._scaler, option, value)


class KLOptions(PartOptions):
    """Of the KL control: all of its constructor's arguments.

    Args:
        control: The control.
    """

    def __init__(self, control: KLControl) -> None:
        self._control = control

    def values(self) -> dict[str, Any]:
        """What is in force, by name."""
        return {name: getattr(self._control, name) for name in self._control.options}

    def set(self, option: str, value: Any) -> None:
        """Assign it."""
        type(self._control)(**{**self.values(), option: value})
        setattr(self._control, option, value)


def _is_number(value: Any) -> bool:
    """Whether it is a number, or several as ``betas``; switches are part of how the part was built."""
    return isinstance(value, tuple) or (isinstance(value, float | int) and not isinstance(value, bool))


PARTS: dict[str, tuple[Callable[[Any], PartOptions | None], str]] = {
    "optimizer_kwargs": (lambda model: OptimizerOptions(model.policy), ""),
    "vgs_kwargs": (
        lambda model: model.variance_gradient_scaler and ScalerOptions(model.variance_gradient_scaler),
        "variance gradient scaling is off. Build the model with variance_gradient_scaling=True.",
    ),
    "kl_penalty": (
        lambda model: model.kl_controller and KLOptions(model.kl_controller),
        "there is no KL control. Build the model with kl_penalty.",
    ),
}
"""By argument of the model: the options of the part, None if it is off; and what to say then."""
