"""What a normaliser's saved state has to be, which observations it is for, and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from everlearn.core.errors import NonFiniteError, StateError, require_in_range

_SWITCHES, _NUMBERS = ("norm_obs", "norm_reward"), ("gamma", "epsilon", "clip_obs", "clip_reward")
SETTINGS = (*_SWITCHES, *_NUMBERS, "norm_obs_keys")
_RETURNS = "the returns"


def require_consistent(state: Mapping[str, Any]) -> None:
    """Refuse what no normaliser has saved, whatever observations it is for.

    Raises:
        StateError: If settings or statistics are missing, contradict each other, or are of another kind.
        ArgumentError: If a setting is outside its range.
        NonFiniteError: If a statistic is not finite.
    """
    settings = state["settings"]
    if set(settings) != set(SETTINGS) or not {"obs_rms", "ret_rms", "returns"} <= set(state):
        raise StateError(f"The normaliser's state lacks settings or statistics: it has {sorted(state)}.")
    _check_settings(settings)
    named = settings["norm_obs_keys"]
    expected = set() if not settings["norm_obs"] else {""} if named is None else set(named)
    if set(state["obs_rms"]) != expected:
        found = sorted(state["obs_rms"])
        raise StateError(f"The normaliser's statistics are of {found}; its settings say {sorted(expected)}.")
    for key, statistics in {**state["obs_rms"], _RETURNS: state["ret_rms"]}.items():
        _check_statistics(key, statistics)
    if shapes_of({_RETURNS: state["ret_rms"]}) != {_RETURNS: ()}:
        raise StateError(f"The normaliser's mean of {_RETURNS} is no single number.")
    if state["returns"].dim() != 1:
        raise StateError("The normaliser's running returns are not one number for each environment.")
    if not bool(torch.isfinite(state["returns"]).all()):
        raise NonFiniteError("The normaliser's running returns are not finite.")


def plain_setting(name: str, value: Any) -> Any:
    """A setting as files hold it: a number of numpy's as python's, 0 and 1 as False and True, keys as a list."""
    value = value.item() if isinstance(value, np.generic) else value
    if name in _SWITCHES and value in (0, 1):
        return bool(value)
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name in _NUMBERS:
        if type(settings[name]) not in (int, float):
            raise StateError(f"The normaliser's {name} is {settings[name]!r}, which is no number.")
    for name in _SWITCHES:
        if not isinstance(settings[name], bool):
            raise StateError(f"The normaliser's {name} is {settings[name]!r}, neither True nor False.")
    for name in ("gamma", "epsilon"):
        require_in_range(f"the normaliser's {name}", settings[name], 0)
    for name in ("clip_obs", "clip_reward"):  # infinity clips nothing
        if not settings[name] >= 0:
            raise StateError(f"The normaliser's {name} is {settings[name]!r}; it has to be 0 or more, or infinity.")


def _check_statistics(key: str, statistics: Mapping[str, Any]) -> None:
    if statistics["mean"].shape != statistics["var"].shape:
        mean, var = tuple(statistics["mean"].shape), tuple(statistics["var"].shape)
        raise StateError(f"The normaliser's mean of '{key}' has the shape {mean}, its var {var}.")
    for name in ("mean", "var"):
        if not bool(torch.isfinite(statistics[name]).all()):
            raise NonFiniteError(f"The normaliser's {name} of '{key}' is not finite.")
    if not (isinstance(statistics["count"], float) and 0 <= statistics["count"] < np.inf):
        raise StateError(f"The normaliser's count of '{key}' is {statistics['count']!r}, no number of samples.")


def shapes_of(statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape by key of the observations that statistics are for; a plain observation has the key ''."""
    return {key: tuple(each["mean"].shape) for key, each in statistics.items()}


def require_shapes(state: Mapping[str, Any], space: spaces.Space[Any], remedy: str) -> None:
    """Refuse statistics of other observations than those of a space.

    Args:
        state: As from ``Normaliser.state_dict()``.
        space: What the observations to be normalised are in.
        remedy: What to do about it, for the message.

    Raises:
        StateError: If a key is not in the space, or has another shape there.
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    for key, shape in shapes_of(state["obs_rms"]).items():
        if key not in parts or parts[key].shape != shape:
            raise StateError(f"The normaliser's mean of '{key}' has the shape {shape}; observations: {space}. {remedy}")


def normalised(observations: Any, state: Mapping[str, Any]) -> Any:
    """``clip((observation - mean) / sqrt(var + epsilon))`` with the statistics of a state, as a ``Normaliser`` does.

    Args:
        observations: An array or a tensor, (..., *shape), or a dictionary of such.
        state: As from ``Normaliser.state_dict()``.

    Raises:
        StateError: If the statistics are of other observations.
    """
    statistics, settings = state["obs_rms"], state["settings"]
    if not statistics:
        return observations
    parts = observations if isinstance(observations, Mapping) else {"": _as_array(observations)}
    found = {key: np.shape(parts[key]) for key in statistics if key in parts}
    for key, shape in shapes_of(statistics).items():
        if key not in found or found[key][len(found[key]) - len(shape) :] != shape:
            raise StateError(
                f"The normaliser's statistics are for observations {shapes_of(statistics)}; these have {found}. Give "
                "observations as the environment inside the normaliser gives them, before any wrapper around it."
            )
    made = {key: _normalised(part, statistics[key], settings) for key, part in parts.items() if key in statistics}
    return {**parts, **made} if isinstance(observations, Mapping) else made[""]


def _as_array(observations: Any) -> Any:
    """As they are if that is a tensor; else as an array."""
    return observations if isinstance(observations, Tensor) else np.asarray(observations)


def _normalised(observations: Any, statistics: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Of an array an array, of a tensor a tensor, in float32; what is computed on the way is in float64."""
    of_tensors, clip = isinstance(observations, Tensor), settings["clip_obs"]
    constants = (statistics["mean"], torch.sqrt(statistics["var"] + settings["epsilon"]))
    mean, deviation = (each.to(observations.device) if of_tensors else each.numpy() for each in constants)
    scaled = ((observations - mean) / deviation).clip(-clip, clip)
    return scaled.to(torch.float32) if of_tensors else np.asarray(scaled, np.float32)
