"""What a member says of itself, checked: its performance, its step, and what others may take over."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from everlearn.core.errors import ArgumentError
from everlearn.population.parameter_files import EVERLEARN, POLICY, POLICY_ONLY


class Given(NamedTuple):
    """Parameters and what they are.

    Attributes:
        parameters: The state of each part by its name, or tensors by name.
        checkpoint_format: ``everlearn_v3`` or ``v1_policy_only``.
    """

    parameters: Mapping[str, Any]
    checkpoint_format: str


def performance_number(performance: Any) -> float | None:
    """The performance as a float, which may be not finite.

    Raises:
        ArgumentError: If it is no single number.
    """
    if performance is None:
        return None
    try:
        return float(performance)
    except (TypeError, ValueError, RuntimeError):  # the last is torch's, for tensors of several numbers
        raise ArgumentError(f"performance={performance!r} is no number. Give the mean return, or None.") from None


def step_number(step: Any) -> int:
    """The step as a whole number from 0 on.

    Raises:
        ArgumentError: If it is none.
    """
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise ArgumentError(f"step={step!r} is no count of training updates. Give a whole number from 0 on.")
    return number


def parameters_given(
    model_parameters: Mapping[str, Any] | None, model_state_dict: Mapping[str, Any] | None, are_kept: bool
) -> Given | None:
    """What others may take over; None if nothing was given.

    Args:
        model_parameters: All parameters.
        model_state_dict: The policy's weights alone, which is deprecated.
        are_kept: Whether there is a place for them.

    Raises:
        ArgumentError: If both were given, or there is no place.
    """
    if model_parameters is None and model_state_dict is None:
        return None
    if not are_kept:
        raise ArgumentError("checkpoint_dir is None: there is no place for parameters. Leave them out, or name one.")
    if model_state_dict is None:
        return Given(model_parameters or {}, EVERLEARN)
    if model_parameters is not None:
        raise ArgumentError("model_parameters and model_state_dict were given. Give the first, which has all of it.")
    warnings.warn(
        "model_state_dict has the weights alone: an exploit then loses the state of optimizer, variance scaling and KL "
        "control. Give model_parameters=model.get_parameters().",
        DeprecationWarning,
        stacklevel=3,
    )
    return Given({POLICY: model_state_dict}, POLICY_ONLY)
