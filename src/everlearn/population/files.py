"""The files of a trained population's members: whether one is what its journal says, and which ones may go."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Collection
from pathlib import Path

from everlearn.checkpoint.errors import CheckpointError
from everlearn.checkpoint.files import open_file, reason_of, remove, sweep
from everlearn.population.segments import Checkpoint

_NAME = re.compile(r"member-.+-generation-\d+-[0-9a-f]{16}\.\w+")


def file_problem(directory: Path, checkpoint: Checkpoint) -> str | None:
    """Why a member's state cannot be taken over; None if its file has every byte that was written.

    Args:
        directory: Where the members' files are.
        checkpoint: Which.
    """
    try:
        with open_file(directory / checkpoint.name) as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"{checkpoint.name} cannot be read ({reason_of(error)})"
    except CheckpointError as error:
        return str(error)
    return None if sha256 == checkpoint.sha256 else f"{checkpoint.name} is damaged: its SHA-256 is {sha256[:16]}..."


def drop_all_but(directory: Path, needed: Collection[str]) -> None:
    """Delete the members' files that nobody refers to, and what was left half-written; one that resists stays.

    For the one process that writes there, at a moment when nobody trains: a file that is written and not yet in the
    journal is one that nobody refers to.

    Args:
        directory: Where the members' files are; what is there besides stays.
        needed: Names of those that stay.
    """
    sweep(directory, alone=True)
    for path in sorted(directory.glob("member-*")):
        if _NAME.fullmatch(path.name) and path.name not in needed and path.is_file():
            try:
                remove(path, "prune:remove")
            except OSError as error:
                warnings.warn(f"{path}: nobody needs it, but it cannot be deleted ({reason_of(error)}).", stacklevel=2)
