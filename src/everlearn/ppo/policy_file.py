"""A policy alone in a file, for those who only act."""

from __future__ import annotations

import inspect
import warnings
from typing import Any, TypeVar

import torch
from stable_baselines3.common.utils import ConstantSchedule, get_device

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.codec import JSON, TENSORS, members_of
from everlearn.checkpoint.errors import Mismatch, refused
from everlearn.checkpoint.limits import Limits
from everlearn.checkpoint.places import Place, write_to
from everlearn.core.finite import require_finite_state
from everlearn.core.rng import kept_generators
from everlearn.environments.space_state import space_state
from everlearn.ppo.file_contents import origin
from everlearn.ppo.frugal import frugal
from everlearn.ppo.model_file import CONFIG, SPACES, read_model_file, require_fit
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.vocabulary import described, opaque_places, resolved

Policy = TypeVar("Policy", bound=ActorCriticPolicy)
_SPACES = ("observation_space", "action_space")
_REGISTRIES = {
    "features_extractor_class": "extractors",
    "activation_fn": "activations",
    "optimizer_class": "torch_optimizers",
}
"""By argument: where its classes get names."""


def save_policy(policy: ActorCriticPolicy, place: Place) -> None:
    """Write a policy's arguments, spaces and weights.

    Raises:
        NonFiniteError: If a weight is not finite.
        SaveError: If the file cannot be written.
    """
    require_finite_state({"policy": policy.state_dict()})
    arguments = policy._get_constructor_parameters()
    spaces = {name: space_state(arguments.pop(name), name) for name in _SPACES}
    arguments.pop("lr_schedule")  # it belongs to training
    parameters = inspect.signature(type(policy)).parameters.values()
    named = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    for name in sorted(named - {*arguments, *_SPACES, "lr_schedule"}):
        warnings.warn(
            f"The argument '{name}' of {type(policy).__name__} is not among its _get_constructor_parameters(), so no "
            "file has it and a loaded policy has its default. Add it there.",
            stacklevel=3,
        )
    members = {
        CONFIG + JSON: strict_json.dumps({name: described(value) for name, value in arguments.items()}),
        **members_of(SPACES, spaces),
        **members_of("policy", policy.state_dict()),
    }
    write_to(place, pack(members, {"kind": "policy", "policy": type(policy).__name__, **origin(policy.device)}))


@kept_generators()
def load_policy(
    kind: type[Policy], place: Place, device: torch.device | str, limits: Limits, sha256: str | None
) -> Policy:
    """The policy of a file, whose class was ``kind``; the caller's generators stay as they are.

    Raises:
        CheckpointError: If the file is damaged or does not fit.
    """
    file = read_model_file(place, limits, sha256, ("policy",))
    saved = file.manifest.get("policy")
    if saved != kind.__name__:
        remedy = f"Load it with {saved}.load."
        raise Mismatch(file.archive.file, f"it holds a {saved!r}, not a {kind.__name__}.", remedy, "manifest.json")
    arguments = file.config()
    for path, what in opaque_places(arguments, "policy"):
        raise _nameless(path.removeprefix("policy."), what, file.archive.file)
    weights = file.weights()
    with refused(file.archive.file, CONFIG + JSON):
        given: dict[str, Any] = {name: resolved(data, name) for name, data in arguments.items()}
        spaces: dict[str, Any] = file.spaces()
        with frugal(weights, file.archive.file, limits.network, kind, given):
            policy = kind(**spaces, lr_schedule=ConstantSchedule(0.0), **{**given, "ortho_init": False})
    policy.ortho_init = bool(given.get("ortho_init", True))
    require_fit(weights, policy.state_dict(), file)
    with refused(file.archive.file, "policy" + TENSORS):
        require_finite_state({"policy": weights})
        policy.load_state_dict(weights)
    policy = policy.to(get_device(device))
    if given.get("use_sde"):
        policy.reset_noise()  # from the deviations that were trained
    return policy


def _nameless(path: str, what: str, file: object) -> Mismatch:
    """The error for an argument that the file could not name."""
    registry = _REGISTRIES.get(path.partition(".")[0])
    where = f"everlearn.ppo.vocabulary.{registry}" if registry else "a registry of everlearn.ppo.vocabulary"
    return Mismatch(
        file,
        f"{path} was '{what}', which has no name in a file.",
        f"Register the class before saving, with {where}.add(name, {what}), and save the policy again.",
        CONFIG + JSON,
    )
