"""What goes into a model's file: its arguments as plain data, its spaces, and the parts of its state."""

from __future__ import annotations

import inspect
import platform
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from stable_baselines3.common.save_util import recursive_getattr

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.codec import JSON, members_of
from everlearn.checkpoint.errors import TooLarge
from everlearn.checkpoint.files import Buffer
from everlearn.core.errors import ArgumentError, StateError, suggestion
from everlearn.core.finite import require_finite_state
from everlearn.core.resume_level import Level, Resumability
from everlearn.core.stateful import Role
from everlearn.environments.space_state import space_state
from everlearn.environments.statistics import require_consistent
from everlearn.environments.vector_state import without_environments
from everlearn.ppo.hyperparameters import SCHEDULED
from everlearn.ppo.loop_state import callback_resumability, not_restored, without_callbacks
from everlearn.ppo.model_file import (
    ATTRIBUTES,
    CONFIG,
    INFORMATION,
    LIBRARIES,
    MEMBER_OF,
    PARTS,
    RUNTIME_ARGUMENTS,
    SIMULATORS,
    SPACES,
)
from everlearn.ppo.optimizer_state import state_by_name
from everlearn.ppo.persistence import PersistentLearner
from everlearn.ppo.policy import unwrapped
from everlearn.ppo.schedules import schedule_data
from everlearn.ppo.state import COUNTERS, OBSERVATIONS, PROGRESS, EpisodeStatistics, is_opaque, learned_parts
from everlearn.ppo.vocabulary import described, opaque


def contents(
    model: PersistentLearner, roles: Collection[Role], left_out: Collection[str] = ()
) -> tuple[dict[str, Buffer], dict[str, Any]]:
    """The members of a model's file, and what its manifest says of it.

    Args:
        model: What to save.
        roles: Of the parts of its state that are wanted.
        left_out: Arguments to leave to their defaults.

    Raises:
        NonFiniteError: If something learned, or a statistic, is not finite.
        StateError: If a state has something in it that no file can hold.
    """
    left_out = set(left_out) - {"policy"}  # SB3 leaves out an attribute of that name, which is not the argument
    config = {name: value for name, value in configuration(model).items() if name not in left_out}
    space = {"observation_space": model.observation_space, "action_space": model.action_space}
    plain = {name: space_state(one, name) for name, one in space.items()}
    members: dict[str, Buffer] = {CONFIG + JSON: strict_json.dumps(config), **members_of(SPACES, plain)}
    parts = states(model, roles)
    in_force = parts["hyperparameters"]
    parts["hyperparameters"] = {name: in_force[name] for name in in_force if name.partition(".")[0] not in left_out}
    for name, state in parts.items():
        try:
            members |= members_of(MEMBER_OF.get(name, name), state)
        except (StateError, TooLarge) as error:
            if name not in _REDUCED:
                raise
            parts[name] = _REDUCED[name](state, str(error))
            members |= members_of(name, parts[name])
    members[INFORMATION] = strict_json.dumps(information(model, config))
    further = [name for name in parts if name not in PARTS]
    kind = "checkpoint" if Role.RANDOM in roles else "model"
    return members, {**about(model, kind, parts), "further_parts": further}


_REDUCED: dict[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "environments": without_environments,
    "callbacks": without_callbacks,
}
"""What remains of parts for which no file has room: nothing of a user's keeps what was learned from being saved."""


def states(model: PersistentLearner, roles: Collection[Role]) -> dict[str, Any]:
    """The states of the parts that have one of some roles, as files hold them; each is taken out once.

    In a checkpoint that is written while a rollout is collected, what is not learned is as it was before the rollout.

    Raises:
        NonFiniteError: If something learned, or a statistic, is not finite.
        StateError: If a part of a subclass, or the normaliser, is none that a file could give back.
    """
    policy, tree = unwrapped(model.policy), model.state_tree().subset({*roles, Role.LEARNED})
    kept = (model._at_clean_point or {}) if Role.RANDOM in roles else {}
    learned = {"policy": policy.state_dict(), "policy.optimizer": state_by_name(policy.optimizer, policy)}
    further = [name for name in model._get_torch_save_params()[0] if name not in learned]  # a subclass's among them
    _require_free(name for name in further if name not in learned_parts(model))
    learned |= {name: unwrapped(recursive_getattr(model, name)).state_dict() for name in further}
    normaliser = kept.get("normaliser", model.normaliser_state)
    learned |= {} if normaliser is None else {"normaliser": normaliser}
    require_finite_state(learned)
    if normaliser is not None:
        require_consistent(normaliser)
    others = (name for name in tree if name not in learned)
    return learned | {name: kept[name] if name in kept else tree[name].state_dict() for name in others}


def _require_free(names: Iterable[str]) -> None:
    """Refuse parts of a subclass under names that mean something else in a file."""
    taken = {CONFIG, SPACES, INFORMATION, *PARTS, *MEMBER_OF.values()}
    for name in names:
        if name in taken:
            raise StateError(f"'{name}' of _get_torch_save_params() has another meaning in files. Call it otherwise.")


def configuration(model: PersistentLearner) -> dict[str, Any]:
    """The arguments from which an equal model is built, as plain data; what has no name is opaque."""
    arguments = {"policy": described(model.policy_class), "n_envs": model.n_envs}
    for name in constructor_arguments(type(model)):
        attribute = ATTRIBUTES.get(name, name)
        if hasattr(model, attribute):
            value = getattr(model, attribute)
            arguments[name] = _schedule(model, value) if name in SCHEDULED else described(value)
    return {**arguments, "switched_off": list(model.switched_off)}


@cache
def constructor_arguments(kind: type[PersistentLearner]) -> tuple[str, ...]:
    """The names of a class's arguments, those of its bases included, without those of the moment."""
    names: dict[str, None] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= dict.fromkeys(each.name for each in parameters if each.kind not in _VARIADIC)
            if not any(each.kind in _VARIADIC for each in parameters):
                break
    return tuple(name for name in names if name not in ("self", *RUNTIME_ARGUMENTS))


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _schedule(model: PersistentLearner, value: Any) -> Any:
    """A schedule as it was given where that is plain, or as data; a function as opaque, with its value of now."""
    if value is None or isinstance(value, int | float | str | Mapping):
        return value
    data = schedule_data(value)
    if data is not None:
        return data
    function = getattr(value, "value_schedule", value)  # SB3's wrapper has no name
    return {**opaque(function), "value": float(value(model._current_progress_remaining))}


def about(model: PersistentLearner, kind: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the file is, who wrote it, and from where, how exactly, a resumed training would go on."""
    level, reasons = resumability(model, parts)
    return {
        "kind": kind,
        "algorithm": type(model).__name__,
        "step": int(parts["counters"]["num_timesteps"] if "counters" in parts else model.num_timesteps),
        "performance": None,
        "resume": {"level": str(level), "reasons": list(reasons)},
        "callbacks_not_restored": not_restored(parts["callbacks"]) if "callbacks" in parts else [],
        "parent": model.parent_content,
        **origin(model.device, compiled=model.update_compiler.compiled),
    }


def resumability(model: PersistentLearner, parts: Mapping[str, Any]) -> Resumability:
    """How exactly a training could go on from these parts."""
    environments = parts.get("environments")
    if not environments:
        return Resumability(Level.WEIGHTS, ("environments are not part of the file",))
    lost = [name for name, value in parts["hyperparameters"].items() if is_opaque(value)]
    functions = Resumability(
        Level.WEIGHTS if lost else Level.EXACT, tuple(f"{name} is a function, which no file holds" for name in lost)
    )
    simulation = Resumability(Level(environments["level"]), tuple(environments["reasons"]))
    return Resumability.lowest([simulation, callback_resumability(parts["callbacks"]), functions])


def origin(device: torch.device, **how: Any) -> dict[str, Any]:
    """When, with what and on what a file is written.

    Args:
        device: Of what is in it.
        how: What else is known of how it was computed.
    """
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "libraries": libraries(),
        "runtime": {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "machine": platform.machine(),
            "system": platform.system(),
            **how,
        },
    }


@cache
def libraries() -> dict[str, str]:
    """The versions of what a file depends on."""
    simulators = [name for name in SIMULATORS if find_spec(name.replace("-", "_"))]
    return {"python": platform.python_version(), **{name: version(name) for name in (*LIBRARIES, *simulators)}}


def information(model: PersistentLearner, config: Mapping[str, Any]) -> dict[str, Any]:
    """For people and for tools that look for SB3's member ``data``; nothing is ever loaded from it."""
    return {
        "algorithm": type(model).__name__,
        "policy_class": type(model.policy).__name__,
        "observation_space": str(model.observation_space),
        "action_space": str(model.action_space),
        "num_timesteps": int(model.num_timesteps),
        **{name: value for name, value in config.items() if name not in ("policy", "switched_off")},
    }


def left_out_names(
    exclude: Iterable[str] | None, include: Iterable[str] | None, model: PersistentLearner
) -> frozenset[str]:
    """The names that are excluded and not included again, as SB3 understands them.

    Raises:
        ArgumentError: For what the model does not have, with a suggestion, and for what every file of a model holds.
    """
    if isinstance(exclude, str) or isinstance(include, str):
        raise ArgumentError(f"save: exclude={exclude!r}, include={include!r}: give lists of names, not a text.")
    excluded, included = frozenset(exclude or ()), frozenset(include or ())
    known = {*constructor_arguments(type(model)), *vars(model)}
    for name in sorted(excluded | included):
        if name not in known:
            raise ArgumentError(f"save: a {type(model).__name__} has no '{name}'.{suggestion(name, known)}")
    left_out = excluded - included
    if held := left_out.intersection(_ALWAYS):
        raise ArgumentError(f"save: exclude={sorted(held)} is part of every file of a model. Take it out of exclude.")
    return left_out


_ALWAYS = (
    *("observation_space", "action_space", "n_envs"),
    *(*PROGRESS, *COUNTERS, *OBSERVATIONS, *EpisodeStatistics.attributes),
)
"""Attributes that no file of a model can be without."""
