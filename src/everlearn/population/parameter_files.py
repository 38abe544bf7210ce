"""The files that hold the members' parameters: written so that none is ever half there, read so that nothing runs."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.checkpoint import archive, migrations
from everlearn.checkpoint.archive import content_id, pack, read_archive
from everlearn.checkpoint.codec import members_of, state_of
from everlearn.checkpoint.errors import Corrupt, Mismatch, TooLarge, Unsupported, refused
from everlearn.checkpoint.files import open_file, write_file
from everlearn.checkpoint.foreign import Kind, recognise
from everlearn.checkpoint.limits import LIMITS
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError
from everlearn.core.finite import require_finite_state
from everlearn.population.members import MemberId, file_part

EVERLEARN, FULL, POLICY_ONLY = archive.FORMAT, migrations.V2, migrations.V1B
"""The formats of parameters: everlearn's own; all parameters and the policy alone, as earlier systems have them."""
POLICY = "policy"
OPTIMIZER = "policy.optimizer"
_NAME = "parameters"
_SHOWN = 16  # characters of what a file holds that are part of its name
_FOREIGN = {
    "vgs_state": "vgs_version",
    "kl_penalty_state": "kl_beta",
}
"""By part: the key by which the state of an earlier system, of another definition, is known."""


@dataclass(frozen=True)
class Loaded:
    """What a file holds.

    Args:
        parameters: The state of each part by its name, or tensors by name.
        checkpoint_format: ``everlearn_v3``, ``v2_full_parameters`` or ``v1_policy_only``.
    """

    parameters: dict[str, Any]
    checkpoint_format: str


def write_parameters(
    directory: Path,
    member_id: MemberId,
    step: int,
    performance: float | None,
    parameters: Mapping[str, Any],
    checkpoint_format: str = EVERLEARN,
) -> Path:
    """Write a member's parameters into a new file, whose name says whose they are, when, and what they are.

    Args:
        directory: Where; made if it is missing.
        member_id: Whose.
        step: The member's training updates.
        performance: What the member has reported.
        parameters: As ``model.get_parameters()`` has them, or tensors by name.
        checkpoint_format: What they are.

    Returns:
        The file.

    Raises:
        NonFiniteError: If a tensor is not finite; nothing is written.
        StateError: If there is something in them that no file can hold; nothing is written.
        SaveError: If the file cannot be written.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise ArgumentError(
            f"Member {member_id!r} has no parameters to keep, but {type(parameters).__name__}. Give what "
            "model.get_parameters() returns."
        )
    require_finite_state(parameters)
    members = members_of(_NAME, parameters)
    content = content_id({name: {"sha256": hashlib.sha256(each).hexdigest()} for name, each in members.items()})
    path = directory / f"member-{file_part(member_id)}-step-{step:012d}-{content[:_SHOWN]}.zip"
    about = {
        "kind": _NAME,
        "member": str(member_id),
        "step": step,
        "performance": performance if performance is None or math.isfinite(performance) else None,
        "parameters_format": checkpoint_format,
        "policy_digest": policy_digest(parameters),
    }
    write_file(path, pack(members, about))
    return path


def read_parameters(path: Path) -> Loaded:
    """The parameters in a file of this library, verified to the bit, or in a v1 or v2 file of an earlier system.

    What an old file lacks, and what of it has another meaning now, is left out with a warning.

    Raises:
        CheckpointError: If it is damaged or of another kind.
        OSError: If it is missing or cannot be read.
    """
    if recognise(path) is Kind.TORCH:
        return _migrated(path)
    found = read_archive(path)
    manifest = found.manifest
    if manifest.get("kind") != _NAME:
        raise Unsupported(
            found.file, f"it holds a {manifest.get('kind')!r}.", "Name a file that a population has written."
        )
    with refused(found.file, _NAME):
        state = state_of(found, _NAME, LIMITS)
        require_finite_state(state)
    if not isinstance(state, dict) or manifest.get("parameters_format") not in (EVERLEARN, POLICY_ONLY):
        raise Corrupt(found.file, "it holds no parameters of a known format.", "Restore it from a copy.")
    if policy_digest(state) != manifest.get("policy_digest"):
        raise Corrupt(found.file, "its policy is not the one that was written.", "Restore it from a copy.")
    if not path.stem.endswith(str(manifest["content_id"])[:_SHOWN]):
        raise Mismatch(found.file, "it holds something else than its name says.", "Give it its own name again.")
    return Loaded(state, str(manifest["parameters_format"]))


def policy_digest(parameters: Mapping[str, Any]) -> str:
    """The fingerprint of the policy among some parameters, or of all of them where none is called so."""
    return digest(parameters.get(POLICY, parameters))


def _migrated(path: Path) -> Loaded:
    """What is in a file of an earlier system; nothing of it is run."""
    with open_file(path) as stream:
        content = stream.read(LIMITS.file_bytes + 1)
    if len(content) > LIMITS.file_bytes:
        raise TooLarge(path, f"it has more than {LIMITS.file_bytes} bytes.", "Save less of it.")
    parts = migrations.read_old(content, path)
    with refused(path, "data"):
        require_finite_state(parts.parameters)
    strange = [name for name, key in _FOREIGN.items() if key in parts.parameters.get(name, {})]
    kept = {name: state for name, state in parts.parameters.items() if name not in strange}
    version = FULL if parts.version == migrations.V2 else POLICY_ONLY
    lacking = [migrations.PARTS[name] for name in migrations.PARTS if name in (*parts.missing, *strange)]
    if lacking:
        warnings.warn(
            f"{path} has the format {version}; these do not come from it: {', '.join(lacking)}. Whoever takes it over "
            "begins them anew.",
            stacklevel=2,
        )
    return Loaded(kept, version)
