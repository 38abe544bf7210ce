"""A policy alone in a file, for those who only act."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from stable_baselines3.common.utils import ConstantSchedule, get_device

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.codec import JSON, TENSORS, members_of
from everlearn.checkpoint.errors import refused
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place, write_to
from everlearn.environments.space_state import space_state
from everlearn.ppo.frugal import frugal
from everlearn.ppo.loading import require_fit
from everlearn.ppo.model_file import CONFIG, SPACES, lost, origin, read_model_file
from everlearn.ppo.persistence import require_finite_state
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.vocabulary import described, opaque_places, resolved

Policy = TypeVar("Policy", bound=ActorCriticPolicy)
_SPACES = ("observation_space", "action_space")


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
    members = {
        CONFIG + JSON: strict_json.dumps({name: described(value) for name, value in arguments.items()}),
        **members_of(SPACES, spaces),
        **members_of("policy", policy.state_dict()),
    }
    write_to(place, pack(members, {"kind": "policy", "policy": type(policy).__name__, **origin(policy.device)}))


def load_policy(
    kind: type[Policy], place: Place, device: torch.device | str, limits: Limits = LIMITS, sha256: str | None = None
) -> Policy:
    """The policy of a file, or of the file of a model, whose class was ``kind``.

    Raises:
        CheckpointError: If the file is damaged or does not fit.
    """
    file = read_model_file(place, limits, sha256, ("policy",))
    arguments = file.config()
    for path, what in opaque_places(arguments, "policy"):
        raise lost(path, what, file.archive.file)
    weights = file.weights()
    with refused(file.archive.file, CONFIG + JSON), frugal(weights, file.archive.file):
        given: dict[str, Any] = {name: resolved(data, name) for name, data in arguments.items()}
        spaces: dict[str, Any] = file.spaces()
        policy = kind(**spaces, lr_schedule=ConstantSchedule(0.0), **{**given, "ortho_init": False})
    policy.ortho_init = bool(given.get("ortho_init", True))
    require_fit(weights, policy.state_dict(), file)
    with refused(file.archive.file, "policy" + TENSORS):
        require_finite_state({"policy": weights})
        policy.load_state_dict(weights)
    return policy.to(get_device(device))
