"""Spaces as plain data and back, so that a file can hold them: bounds are arrays, nothing is named but their kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from everlearn.core.errors import StateError


def space_state(space: spaces.Space[Any], path: str = "space") -> dict[str, Any]:
    """The plain data of a space.

    Raises:
        StateError: For a kind of space that files do not hold.
    """
    match space:
        case spaces.Box():
            return {"kind": "Box", "low": space.low, "high": space.high}
        case spaces.Discrete():
            return {
                "kind": "Discrete",
                "n": int(space.n),
                "start": int(space.start),
                "dtype": np.dtype(space.dtype).name,
            }
        case spaces.MultiDiscrete():
            return {"kind": "MultiDiscrete", "nvec": space.nvec, "start": space.start}
        case spaces.MultiBinary():
            return {
                "kind": "MultiBinary",
                "n": space.n if isinstance(space.n, int) else [int(size) for size in space.n],
            }
        case spaces.Dict():
            return {"kind": "Dict", "spaces": {key: space_state(one, f"{path}.{key}") for key, one in space.items()}}
        case spaces.Tuple():
            return {"kind": "Tuple", "spaces": [space_state(one, f"{path}.{i}") for i, one in enumerate(space)]}
    raise StateError(f"'{path}' is a {type(space).__name__}, which a file cannot hold. It holds {', '.join(_MAKERS)}.")


def space_from(state: Mapping[str, Any]) -> spaces.Space[Any]:
    """The space that ``space_state`` has made plain.

    Raises:
        StateError: If the data are none of a space.
    """
    kind = state.get("kind") if isinstance(state, Mapping) else None
    if kind not in _MAKERS:
        raise StateError(f"There is no space of the kind {kind!r}. There are {', '.join(_MAKERS)}.")
    try:
        return _MAKERS[kind](state)
    except (AssertionError, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise StateError(f"The data of a {kind} space make none ({type(error).__name__}: {error}).") from error


def _box(state: Mapping[str, Any]) -> spaces.Space[Any]:
    low, high = state["low"], state["high"]
    return spaces.Box(low, high, low.shape, low.dtype)


def _discrete(state: Mapping[str, Any]) -> spaces.Space[Any]:
    name = state.get("dtype", "int64")  # files of before have none
    if name not in _INTEGERS:
        raise ValueError(f"dtype {name!r} is none of {', '.join(_INTEGERS)}")
    return spaces.Discrete(state["n"], start=state["start"], dtype=_INTEGERS[name])


def _multi_discrete(state: Mapping[str, Any]) -> spaces.Space[Any]:
    nvec: np.ndarray = state["nvec"]
    return spaces.MultiDiscrete(nvec, dtype=nvec.dtype.type, start=state["start"])


_INTEGERS = {
    np.dtype(kind).name: kind
    for kind in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
}
"""By name: the types that the values of a discrete space may have."""

_MAKERS: dict[str, Callable[[Mapping[str, Any]], spaces.Space[Any]]] = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": _multi_discrete,
    "MultiBinary": lambda state: spaces.MultiBinary(state["n"]),
    "Dict": lambda state: spaces.Dict({key: space_from(one) for key, one in state["spaces"].items()}),
    "Tuple": lambda state: spaces.Tuple([space_from(one) for one in state["spaces"]]),
}
