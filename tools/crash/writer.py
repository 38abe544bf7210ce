"""The process that is killed: it saves in a loop, and acknowledges a save only after the save has returned."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.archive import Archive, pack
from everlearn.checkpoint.files import Buffer, sweep, write_file
from everlearn.checkpoint.lock import RunLock
from everlearn.checkpoint.retention import Retention
from everlearn.checkpoint.store import CheckpointStore

Writer = Callable[[Path, int, int], None]
"""Saves in a directory, from a step on, acknowledging on a pipe."""
MODEL, CHECKPOINTS = "model.zip", "checkpoints"
RETENTION = Retention(keep_last=2, keep_best=1)
READY = b"ready\n"
_SIZES = (2_000, 60_000, 300_000, 1_200_000)  # bytes; large enough that a kill often hits the middle of a write


def members_of(step: int) -> dict[str, bytes]:
    """What is saved at a step: the same whenever it is asked for, so that a reader can tell."""
    size = _SIZES[step % len(_SIZES)]
    return {"config.json": strict_json.dumps({"step": step}), "policy.safetensors": random.Random(step).randbytes(size)}


def performance_of(step: int) -> float:
    """What the agent is worth at a step; it neither rises nor falls."""
    return random.Random(f"performance of {step}").random()


def step_of(archive: Archive) -> int | None:
    """The step of a file, None if its content is not what was saved there."""
    step: int = archive.manifest["step"]
    return step if contents_equal(archive.members, members_of(step)) else None


def contents_equal(members: Mapping[str, Buffer], expected: Mapping[str, Buffer]) -> bool:
    """Whether two files hold the same."""
    return list(members) == list(expected) and all(members[name] == expected[name] for name in expected)


def save_forever(directory: Path, first: int, pipe: int) -> None:
    """Overwrite one file and add to a store in turns; ``model 12`` on the pipe says that step 12 is durable.

    Args:
        directory: Where both are.
        first: Step to begin with.
        pipe: Descriptor for what is acknowledged.
    """
    with RunLock(directory):
        store = CheckpointStore(directory / CHECKPOINTS, RETENTION)
        sweep(directory)
        store.sweep()
        os.write(pipe, READY)
        for step in count(first):
            members = members_of(step)
            write_file(directory / MODEL, pack(members, {"step": step}))
            os.write(pipe, f"model {step}\n".encode())
            store.save(step, members, {}, performance_of(step))
            os.write(pipe, f"store {step}\n".encode())


def overwrite_in_place_forever(directory: Path, first: int, pipe: int) -> None:
    """The control: the one file is written as a plain ``open(path, "wb")`` does it, and gets lost."""
    os.write(pipe, READY)
    for step in count(first):
        chunks = pack(members_of(step), {"step": step})
        with (directory / MODEL).open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        os.write(pipe, f"model {step}\n".encode())
