"""A model's file: its arguments, its spaces, and the parts of its state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from gymnasium import spaces
from torch import Tensor

from everlearn.checkpoint.archive import Archive, read_archive
from everlearn.checkpoint.codec import JSON, TENSORS, state_of
from everlearn.checkpoint.errors import Corrupt, Mismatch, TooLarge, Unsupported
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place, source_at
from everlearn.core.stateful import Role
from everlearn.environments.space_state import space_from
from everlearn.ppo.optimizer_state import state_by_number
from everlearn.ppo.policy import unwrapped

if TYPE_CHECKING:
    from everlearn.ppo.persistence import PersistentLearner

CONFIG, SPACES, INFORMATION = "config", "spaces", "data"
MODEL_KINDS = ("model", "checkpoint")
MODEL_ROLES = (Role.LEARNED, Role.HYPER, Role.LOOP)
"""Of the parts in a model's file."""
MEMBER_OF = {"policy.optimizer": "optimizer", "vgs_state": "vgs", "kl_penalty_state": "kl_control"}
"""The members of parts that are not called as the part is."""
PARTS = (
    *("policy", "policy.optimizer", "vgs_state", "kl_penalty_state", "variables", "normaliser", "interface"),
    *("hyperparameters", "progress", "divergence", "counters", "course", "observations", "environments", "episodes"),
    *("callbacks", "records", "probe", "generators"),
)
"""All that a file may hold, but for the parts that a subclass adds."""
LEARNED = PARTS[:4]
"""Those that ``get_parameters`` returns."""
RUNTIME_ARGUMENTS = ("policy", "env", "device", "_init_setup_model")
"""Arguments that are no part of the configuration: they belong to the moment."""
ATTRIBUTES = {"policy": "policy_class", "stats_window_size": "_stats_window_size"}
"""Arguments that a model keeps under another name."""
SIMULATORS = ("mujoco", "ale-py")
LIBRARIES = ("everlearn", "torch", "stable-baselines3", "gymnasium", "numpy")


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
        self.further = _names(self.manifest.get("further_parts"))
        known = {SPACES, CONFIG, *self.further, *(MEMBER_OF.get(name, name) for name in PARTS)}
        for member in archive.members:
            if member != INFORMATION and member.removesuffix(JSON).removesuffix(TENSORS) not in known:
                raise Unsupported(archive.file, "this member has no place in a model.", "Upgrade everlearn.", member)

    def __contains__(self, part: str) -> bool:
        return MEMBER_OF.get(part, part) + JSON in self.archive.members

    def parts(self) -> list[str]:
        """The parts that it holds."""
        return [part for part in (*PARTS, *self.further) if part in self]

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
    learned = {*LEARNED, *model._get_torch_save_params()[0]}
    for part in file.further:
        if part not in learned:
            remedy = f"Load it with the class that saved it, {file.manifest.get('algorithm')!r}."
            raise Mismatch(file.archive.file, f"a {type(model).__name__} has no part '{part}'.", remedy, part + JSON)
    states = {part: file.state(part) for part in file.parts() if part in learned}
    policy = unwrapped(model.policy)
    if "policy.optimizer" in states:
        states["policy.optimizer"] = state_by_number(states["policy.optimizer"], policy.optimizer, policy)
    return states


def require_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], file: ModelFile) -> None:
    """Names, shapes and dtypes of a file's weights are those of a network's.

    Raises:
        Mismatch: With the differences.
    """
    lacking = [f"lacks {name}" for name in own.keys() - weights.keys()]
    beyond = [f"has {name}" for name in weights.keys() - own.keys()]
    different = [
        f"has {name} as {_form(weights[name])} where the network has {_form(own[name])}"
        for name in own.keys() & weights.keys()
        if _form(weights[name]) != _form(own[name])
    ]
    differences = sorted(lacking + beyond + different)
    if differences:
        shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        problem = f"its weights are of another network: the file {shown}."
        raise Mismatch(file.archive.file, problem, "Load it as it was saved.", "policy" + TENSORS)


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"


def _names(names: Any) -> tuple[str, ...]:
    """Some names of parts from a manifest; nothing for anything else."""
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def lost(path: str, what: str, file: object) -> Mismatch:
    """The error for an argument that the file could not name."""
    return Mismatch(
        file,
        f"{path} was '{what}', which has no name in a file.",
        f"Register it under a name, or bring it along: load(..., custom_objects={{{path.partition('.')[0]!r}: ...}}).",
        CONFIG + JSON,
    )
