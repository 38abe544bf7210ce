"""What a model's file holds: its arguments, its spaces, and the parts of its state."""

from __future__ import annotations

import inspect
import platform
import time
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from torch import Tensor

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.archive import Archive, read_archive
from everlearn.checkpoint.codec import JSON, TENSORS, members_of, state_of
from everlearn.checkpoint.errors import Corrupt, Mismatch, TooLarge, Unsupported
from everlearn.checkpoint.files import Buffer
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place, source_at
from everlearn.core.errors import ArgumentError, suggestion
from everlearn.core.stateful import Role
from everlearn.environments.space_state import space_from, space_state
from everlearn.ppo.hyperparameters import SCHEDULED
from everlearn.ppo.optimizer_state import state_by_name, state_by_number
from everlearn.ppo.schedules import schedule_data
from everlearn.ppo.vocabulary import described, opaque

if TYPE_CHECKING:
    from everlearn.ppo.persistence import PersistentLearner

CONFIG, SPACES, INFORMATION = "config", "spaces", "data"
MODEL_KINDS = ("model", "checkpoint")
MODEL_ROLES = (Role.LEARNED, Role.HYPER, Role.LOOP)
"""Of the parts in a model's file."""
MEMBER_OF = {"policy.optimizer": "optimizer", "vgs_state": "vgs", "kl_penalty_state": "kl_control"}
"""The members of parts that are not called as the part is."""
PARTS = (
    *("policy", "policy.optimizer", "vgs_state", "kl_penalty_state", "normaliser"),
    *("hyperparameters", "progress", "divergence", "counters", "observations", "episodes", "probe", "generators"),
)
"""All that a file may hold."""
LEARNED = PARTS[:4]
"""Those that ``get_parameters`` returns."""
RUNTIME_ARGUMENTS = ("policy", "env", "device", "_init_setup_model")
"""Arguments that are no part of the configuration: they belong to the moment."""
ATTRIBUTES = {"policy": "policy_class", "stats_window_size": "_stats_window_size"}
"""Arguments that a model keeps under another name."""
LIBRARIES = ("everlearn", "torch", "stable-baselines3", "gymnasium", "numpy")


# --- writing ----------------------------------------------------------------------------------------------------------


def contents(
    model: PersistentLearner, roles: Collection[Role], left_out: Collection[str] = ()
) -> tuple[dict[str, Buffer], dict[str, Any]]:
    """The members of a model's file, and what its manifest says of it.

    Args:
        model: What to save.
        roles: Of the parts of its state that are wanted.
        left_out: Arguments to leave to their defaults.

    Raises:
        StateError: If a state has something in it that no file can hold.
    """
    config = {name: value for name, value in configuration(model).items() if name not in left_out}
    space = {"observation_space": model.observation_space, "action_space": model.action_space}
    plain = {name: space_state(one, name) for name, one in space.items()}
    members: dict[str, Buffer] = {CONFIG + JSON: strict_json.dumps(config), **members_of(SPACES, plain)}
    for name, state in states(model, roles).items():
        members |= members_of(MEMBER_OF.get(name, name), state)
    members[INFORMATION] = strict_json.dumps(information(model, config))
    return members, about(model, "checkpoint" if Role.RANDOM in roles else "model")


def states(model: PersistentLearner, roles: Collection[Role]) -> dict[str, Any]:
    """The states of the parts that have one of some roles, as files hold them."""
    tree = model.state_tree().subset(roles)
    parts = {name: tree[name].state_dict() for name in tree}
    policy = getattr(model.policy, "_orig_mod", model.policy)  # within what torch.compile puts around it
    parts |= {"policy": policy.state_dict(), "policy.optimizer": state_by_name(policy.optimizer, policy)}
    normaliser = model.normaliser_state
    return parts if normaliser is None else {**parts, "normaliser": normaliser}


def configuration(model: PersistentLearner) -> dict[str, Any]:
    """The arguments from which an equal model is built, as plain data; what has no name is opaque."""
    arguments = {"policy": described(model.policy_class), "n_envs": model.n_envs}
    for name in constructor_arguments(type(model)):
        attribute = ATTRIBUTES.get(name, name)
        if hasattr(model, attribute):
            value = getattr(model, attribute)
            arguments[name] = _schedule(model, value) if name in SCHEDULED else described(value)
    return {**arguments, "switched_off": list(model.switched_off)}


def constructor_arguments(kind: type[PersistentLearner]) -> list[str]:
    """The names of a class's arguments, those of its bases included, without those of the moment."""
    names: dict[str, None] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= dict.fromkeys(each.name for each in parameters if each.kind not in _VARIADIC)
            if not any(each.kind in _VARIADIC for each in parameters):
                break
    return [name for name in names if name not in ("self", *RUNTIME_ARGUMENTS)]


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


def about(model: PersistentLearner, kind: str) -> dict[str, Any]:
    """What the file is, who wrote it, and from where a resumed training would go on."""
    return {
        "kind": kind,
        "algorithm": type(model).__name__,
        "step": int(model.num_timesteps),
        "performance": None,
        "resume": {"level": "weights", "reasons": ["environments are not part of the file"]},
        "parent": model.parent_content,
        **origin(model.device),
    }


def origin(device: torch.device) -> dict[str, Any]:
    """When, with what and on what a file is written."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "libraries": libraries(),
        "runtime": {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "machine": platform.machine(),
            "system": platform.system(),
        },
    }


@cache
def libraries() -> dict[str, str]:
    """The versions of what a file depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


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


# --- reading ----------------------------------------------------------------------------------------------------------


class ModelFile:
    """A verified archive, read as a model's file.

    Args:
        archive: The archive.
        limits: How much it may ask for.
        kinds: What it may be.

    Raises:
        Unsupported: If it is of another kind, or holds parts that this version does not know.
    """

    def __init__(self, archive: Archive, limits: Limits, kinds: Collection[str] = MODEL_KINDS) -> None:
        self.archive, self.limits, self.manifest = archive, limits, archive.manifest
        self._decoded: dict[str, Any] = {}
        kind = self.manifest.get("kind")
        if kind not in kinds:
            remedy = f"Name a file that holds one of: {', '.join(kinds)}."
            raise Unsupported(archive.file, f"it holds a {kind!r}.", remedy)
        known = {SPACES, CONFIG, *(MEMBER_OF.get(name, name) for name in PARTS)}
        for member in archive.members:
            if member != INFORMATION and member.removesuffix(JSON).removesuffix(TENSORS) not in known:
                raise Unsupported(archive.file, "this member has no place in a model.", "Upgrade everlearn.", member)

    def __contains__(self, part: str) -> bool:
        return MEMBER_OF.get(part, part) + JSON in self.archive.members

    def parts(self) -> list[str]:
        """The parts that it holds."""
        return [part for part in PARTS if part in self]

    def state(self, part: str) -> Any:
        """The state of a part.

        Raises:
            Corrupt: If it is missing or damaged.
        """
        if part not in self._decoded:
            state = state_of(self.archive, MEMBER_OF.get(part, part), self.limits)
            if not isinstance(state, Mapping):
                member = MEMBER_OF.get(part, part) + JSON
                raise Corrupt(self.archive.file, "the state is no mapping.", "Restore the file.", member)
            self._decoded[part] = state
        return self._decoded[part]

    def weights(self) -> dict[str, Tensor]:
        """The policy's weights.

        Raises:
            Corrupt: If they are missing, damaged or something else.
        """
        state = self.state("policy")
        if not all(isinstance(weight, Tensor) for weight in state.values()):
            raise Corrupt(self.archive.file, "these are no weights.", "Restore the file.", "policy" + JSON)
        return dict(state)

    def config(self) -> dict[str, Any]:
        """The arguments as plain data."""
        size = len(self.archive.members.get(CONFIG + JSON, b""))
        if size > self.limits.config_bytes:
            problem = f"the configuration has {size} bytes, {self.limits.config_bytes} are allowed."
            remedy = "If you trust the file, raise limits=Limits(config_bytes=...)."
            raise TooLarge(self.archive.file, problem, remedy, CONFIG + JSON)
        config = self.archive.json(CONFIG + JSON)
        if not isinstance(config, dict):
            raise Corrupt(self.archive.file, "the configuration is no mapping.", "Restore the file.", CONFIG + JSON)
        return config

    def spaces(self) -> dict[str, spaces.Space[Any]]:
        """The observation and action space, by the names of the model's attributes."""
        state = state_of(self.archive, SPACES, self.limits)
        if not isinstance(state, Mapping) or set(state) != {"observation_space", "action_space"}:
            raise Corrupt(self.archive.file, "the spaces are not two.", "Restore the file.", SPACES + JSON)
        return {name: space_from(one) for name, one in state.items()}


def read_model_file(
    place: Place, limits: Limits = LIMITS, sha256: str | None = None, kinds: Collection[str] = MODEL_KINDS
) -> ModelFile:
    """The file at a place, verified.

    Raises:
        CheckpointError: If it is none of these kinds, or damaged.
    """
    return ModelFile(read_archive(source_at(place), limits=limits, sha256=sha256), limits, kinds)


def learned_states(file: ModelFile, model: PersistentLearner) -> dict[str, Any]:
    """What ``set_parameters`` takes, from a file."""
    states = {part: file.state(part) for part in file.parts() if part in LEARNED}
    if "policy.optimizer" in states:
        states["policy.optimizer"] = state_by_number(states["policy.optimizer"], model.policy.optimizer, model.policy)
    return states


def require_known(names: Iterable[str], model: object, what: str) -> None:
    """Refuse names that are neither arguments nor attributes of a model.

    Raises:
        ArgumentError: With a suggestion.
    """
    known = {*constructor_arguments(type(model)), *vars(model)}  # type: ignore[arg-type]
    for name in names:
        if name not in known:
            raise ArgumentError(f"{what}: a {type(model).__name__} has no '{name}'.{suggestion(name, known)}")


def lost(path: str, what: str, file: object) -> Mismatch:
    """The error for an argument that the file could not name."""
    return Mismatch(
        file,
        f"{path} was '{what}', which has no name in a file.",
        f"Register it under a name, or bring it along: load(..., custom_objects={{{path.partition('.')[0]!r}: ...}}).",
        CONFIG + JSON,
    )
