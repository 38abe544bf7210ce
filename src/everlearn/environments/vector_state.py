"""The state of environments side by side: of each simulation, and of everything around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from everlearn.core.errors import StateError
from everlearn.core.resume_level import Level, Resumability
from everlearn.core.rng import private_seed
from everlearn.environments import snapshots
from everlearn.environments.adapters import OwnMethods
from everlearn.environments.object_state import NotPlain, attributes_of, set_attributes

_OF_ALL = frozenset({"observation_space", "action_space", "num_envs", "metadata", "render_mode", "spec", "reset_infos"})
_NO_STATE = {
    VecEnvWrapper: frozenset({"venv", "class_attributes"}),
    DummyVecEnv: frozenset({"envs", "actions", "buf_obs", "buf_rews", "buf_dones", "buf_infos", "keys"}),
    SubprocVecEnv: frozenset({"remotes", "work_remotes", "processes", "waiting", "closed"}),
}
"""Attributes of vector environments that are no state: what they stand around, and what the next step overwrites."""
_own = OwnMethods()


def vector_snapshot(venv: VecEnv) -> dict[str, Any]:
    """The state of vector environments and their wrappers, as plain data and arrays.

    Returns:
        ``level``, ``reasons``, ``layers`` from the outermost on, ``environments``, one state each, and ``seed``, from
        which environments start whose generators nobody can reach.
    """
    layers, found = layers_of(venv), [Resumability(Level.EXACT)]
    states: list[dict[str, Any]] = []
    try:
        states = [{"kind": _kind(layer), "state": _layer_state(layer)} for layer in layers]
    except StateError as error:
        found.append(_only_episodes(f"{_kind(layers[0])} has no state that could be saved: {str(error).rstrip('.')}"))
    environments = _environments(layers[-1])
    if environments is None:
        found.append(_only_episodes(f"the environments in {_kind(layers[-1])} cannot be reached"))
    level, reasons = Resumability.lowest([*found, *map(snapshots.resumability, environments or [])])
    return {
        "level": str(level),
        "reasons": list(reasons),
        "layers": states,
        "environments": environments or [],
        "seed": private_seed("environments") % 2**31,
    }


def without_environments(state: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """A state whose environments have no place in a file: they start anew from its seed."""
    reasons = [*state["reasons"], f"the environments have no place in a file ({problem})"]
    return {"level": str(Level.EPISODE), "reasons": reasons, "layers": [], "environments": [], "seed": state["seed"]}


def _only_episodes(reason: str) -> Resumability:
    return Resumability(Level.EPISODE, (reason,))


def restore_vector(venv: VecEnv, state: Mapping[str, Any]) -> bool:
    """Put vector environments, made and wrapped in the same way, into a state.

    Returns:
        Whether all episodes go on; otherwise everything has to be reset, and starts from saved generators.

    Raises:
        StateError: If they are others.
    """
    layers, states = layers_of(venv), state["layers"]
    found, wanted = [_kind(layer) for layer in layers], [each["kind"] for each in states]
    if states and found != wanted:
        raise StateError(
            f"The state is of {' in '.join(reversed(wanted))}, here is {' in '.join(reversed(found))}. "
            "Restore it into vector environments that are made in the same way."
        )
    for layer, one in zip(layers, states, strict=False):
        _restore_layer(layer, one["state"])
    if not state["environments"]:
        venv.seed(state["seed"])
        return False
    if len(state["environments"]) != venv.num_envs:
        raise StateError(f"The state is of {len(state['environments'])} environments, here are {venv.num_envs}.")
    goes_on = _restored(layers[-1], state["environments"])
    return bool(states) and all(goes_on)


def layers_of(venv: VecEnv) -> list[VecEnv]:
    """The vector wrappers from the outermost on, and what holds the environments last."""
    layers = [venv]
    while isinstance(layers[-1], VecEnvWrapper):
        layers.append(layers[-1].venv)
    return layers


def _layer_state(layer: VecEnv) -> Any:
    own: Any = layer
    if _own.fits(own):
        return _own.snapshot(own)
    if not isinstance(layer, VecEnvWrapper | DummyVecEnv | SubprocVecEnv):
        raise NotPlain(f"{_kind(layer)} has no get_state() and set_state()")
    left_out = {name for kind, names in _NO_STATE.items() if isinstance(layer, kind) for name in names}
    return attributes_of(layer, left_out | _OF_ALL)


def _restore_layer(layer: VecEnv, state: Any) -> None:
    own: Any = layer
    if _own.fits(own):
        _own.restore(own, state)
    else:
        set_attributes(layer, state)


def _environments(base: VecEnv) -> list[dict[str, Any]] | None:
    """The state of each environment; None where they cannot be reached."""
    if isinstance(base, DummyVecEnv):
        return [snapshots.snapshot(env) for env in base.envs]
    if isinstance(base, SubprocVecEnv) and base.has_attr("snapshot_state"):
        return base.env_method("snapshot_state")
    return None


def _restored(base: VecEnv, states: list[dict[str, Any]]) -> list[bool]:
    if isinstance(base, DummyVecEnv):
        return [snapshots.restore(env, state) for env, state in zip(base.envs, states, strict=True)]
    return [base.env_method("restore_state", state, indices=index)[0] for index, state in enumerate(states)]


def _kind(layer: VecEnv) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"
