"""The state of one environment with everything that is wrapped around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium

from everlearn.core.errors import StateError
from everlearn.core.resume_level import Level, Resumability
from everlearn.environments.adapters import ADAPTERS, Adapter, Env, generators_of
from everlearn.environments.object_state import NotPlain, set_attributes
from everlearn.environments.recorded import Recorded

_EPISODE = "episode"


def layers_of(env: Env) -> list[Env]:
    """The wrappers from the outermost on, and the environment last; what stands in a recorder is left to it."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper) and not isinstance(layers[-1], Recorded):
        layers.append(layers[-1].env)
    return layers


def is_known(env: Env) -> bool:
    """Whether an environment's state can be taken out without repeating its actions."""
    return all(_adapter_for(layer) is not None for layer in layers_of(env))


def snapshot(env: Env) -> dict[str, Any]:
    """The state of an environment as plain data and arrays: all of it, or of a running episode the generators alone.

    Returns:
        ``level``, ``reasons``, and what ``restore`` needs; what a file can hold and a process can send.
    """
    try:
        layers = [_layer_state(layer) for layer in layers_of(env)]
    except StateError as error:
        generators = [generators_of(layer) for layer in _all_layers(env)]
        reason = f"{_described(env)} has no state that could be saved: {str(error).rstrip('.')}"
        return {"level": str(Level.EPISODE), "reasons": [reason], "generators": generators}
    repeated = any(layer["adapter"] == "recorded" for layer in layers)
    reasons = [f"{_described(env)} is rebuilt by repeating its actions"] if repeated else []
    return {"level": str(Level.REPLAY if repeated else Level.EXACT), "reasons": reasons, "layers": layers}


def restore(env: Env, state: Mapping[str, Any]) -> bool:
    """Put an environment, wrapped as it was, into a state.

    Returns:
        Whether its episode goes on; otherwise only its generators are those of the state, and it has to be reset.

    Raises:
        StateError: If it is no equal one, or repeating its actions did not lead there.
    """
    if state["level"] == Level.EPISODE:
        layers = _all_layers(env)
        if len(layers) == len(state["generators"]):
            for layer, generators in zip(layers, state["generators"], strict=True):
                set_attributes(layer, generators)
        return False
    layers, states = layers_of(env), state["layers"]
    found, wanted = [_kind(layer) for layer in layers], [layer["kind"] for layer in states]
    if found != wanted:
        raise StateError(
            f"The state is of {' in '.join(reversed(wanted))}, here is {' in '.join(reversed(found))}. "
            "Restore it into an environment that is made in the same way."
        )
    for layer, one in reversed([*zip(layers, states, strict=True)]):
        _restore_layer(layer, one)
    return True


def resumability(state: Mapping[str, Any]) -> Resumability:
    """What a state promises."""
    return Resumability(Level(state["level"]), tuple(state["reasons"]))


def _layer_state(layer: Env) -> dict[str, Any]:
    if isinstance(layer, Recorded):
        return {"kind": _kind(layer), "adapter": "recorded", "state": layer.recording()}
    adapter = _adapter_for(layer)
    if adapter is None:
        raise NotPlain("it has no get_state() and set_state(), and its actions were not recorded")
    return {"kind": _kind(layer), "adapter": adapter.name, "state": adapter.snapshot(layer)}


def _restore_layer(layer: Env, one: Mapping[str, Any]) -> None:
    if isinstance(layer, Recorded):
        layer.repeat(one["state"])
        return
    adapter = _adapter_for(layer)
    if adapter is None or adapter.name != one["adapter"]:
        raise StateError(f"{layer} was saved by other means ({one['adapter']}). Upgrade everlearn, or start anew.")
    adapter.restore(layer, one["state"])


def _adapter_for(layer: Env) -> Adapter | None:
    return next((adapter for adapter in ADAPTERS if adapter.fits(layer)), None)


def _kind(layer: Env) -> str:
    kind = type(layer)
    what = f" of {_kind(layer.env)}" if isinstance(layer, Recorded) else ""
    return f"{kind.__module__}.{kind.__qualname__}{what}"


def _all_layers(env: Env) -> list[Env]:
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _described(env: Env) -> str:
    spec = env.unwrapped.spec
    return str(spec.id) if spec is not None else type(env.unwrapped).__name__
