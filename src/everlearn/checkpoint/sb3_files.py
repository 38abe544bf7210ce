"""The content of Stable-Baselines3 zips that can be taken without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from everlearn.checkpoint.foreign_zip import Content, ForeignZip
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.sb3_report import (
    WHAT,
    SB3Report,
    inspect_sb3,
    is_pickled,
    read_data,
    report_on,
)
from everlearn.checkpoint.torch_files import load_plain

__all__ = ["SB3Content", "SB3Report", "inspect_sb3", "read_sb3"]

_SUFFIX = ".pth"
_VARIABLES = ("pytorch_variables", "tensors")


@dataclass(frozen=True)
class SB3Content:
    """What a file gives without its pickles.

    Args:
        report: What the file says of itself.
        parameters: The state of each part by its name (``policy``, ``policy.optimizer``).
        plain: Values of ``data`` that are plain JSON, by key.
        left: What was not read: the keys of pickled values, and variables that belong to no part.
    """

    report: SB3Report
    parameters: dict[str, Any]
    plain: dict[str, Any]
    left: tuple[str, ...]


def read_sb3(content: Content, file: object, limits: Limits = LIMITS) -> SB3Content:
    """Tensors and plain values of a Stable-Baselines3 zip; row 4 of the failure-mode table: no pickle of it is run.

    Args:
        content: The file, at any position.
        file: Its name, for messages.
        limits: How much it may ask for.

    Raises:
        Untrusted: If a member that should hold tensors holds something else.
        CheckpointError: If it is cut, damaged or too large.
    """
    archive = ForeignZip(content, file, WHAT, limits)
    data = read_data(archive, limits)
    members = {name.removesuffix(_SUFFIX): name for name in archive.sizes if name.endswith(_SUFFIX)}
    states = {part: load_plain(archive.read(name), file, name, limits) for part, name in members.items()}
    variables = [part for part in _VARIABLES if states.pop(part, None)]
    return SB3Content(
        report_on(archive, data),
        states,
        {key: value for key, value in data.items() if not is_pickled(value)},
        (*(key for key in data if is_pickled(data[key])), *variables),
    )
