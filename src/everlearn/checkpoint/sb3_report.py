"""What a Stable-Baselines3 zip says of itself, read without unpickling anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everlearn.checkpoint.errors import Corrupt, TooLarge
from everlearn.checkpoint.foreign_zip import Content, ForeignZip
from everlearn.checkpoint.limits import LIMITS, Limits

WHAT = "a model file of Stable-Baselines3"
VERSION_MEMBER, DATA_MEMBER = "_stable_baselines3_version", "data"
SPACES = ("observation_space", "action_space")

_PICKLED, _TYPE = ":serialized:", ":type:"
_SHADOWS = ("dtype", "_shape", "n", "nvec", "start", "low", "high", "spaces")
_LONGEST_TEXT = 120
_LONGEST_VERSION = 64


@dataclass(frozen=True)
class SB3Report:
    """What a file holds.

    Args:
        version: Of Stable-Baselines3; None where the file does not say.
        spaces: What stands in readable form beside each pickled space, by name.
        pickled: Keys whose values are pickles.
        members: Size in bytes of each member, by name.
    """

    version: str | None
    spaces: dict[str, str]
    pickled: tuple[str, ...]
    members: dict[str, int]

    def __str__(self) -> str:
        """A few lines for a message."""
        tensors = [_shown(name) for name in self.members if name.endswith(".pth")]
        lines = [
            f"Stable-Baselines3 {self.version or 'of unknown version'}",
            *(f"{name}: {text}" for name, text in self.spaces.items()),
            f"tensors: {_listed(tensors)}",
            f"pickled: {_listed(self.pickled)}",
        ]
        return "".join(f"\n  {line}" for line in lines)


def inspect_sb3(content: Content, file: object, limits: Limits = LIMITS) -> SB3Report:
    """The report on a file.

    Args:
        content: The file, at any position.
        file: Its name, for messages.
        limits: How much it may ask for.

    Raises:
        CheckpointError: If it is no whole archive, damaged or too large.
    """
    archive = ForeignZip(content, file, WHAT, limits)
    return report_on(archive, read_data(archive, limits))


def read_data(archive: ForeignZip, limits: Limits) -> dict[str, Any]:
    """The JSON of the member ``data``, pickles as the texts that they are there; empty where there is none.

    Raises:
        TooLarge: If it is too large or nested too deeply.
        Corrupt: If it is no JSON object, or has a key twice.
    """
    if DATA_MEMBER not in archive.sizes:
        return {}
    content = archive.read(DATA_MEMBER, "json_bytes")
    remedy = "Get the file from where it was made."
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise TooLarge(archive.file, "it is nested too deeply.", remedy, DATA_MEMBER) from None
    except ValueError as error:
        raise Corrupt(archive.file, f"it is no JSON: {error}.", remedy, DATA_MEMBER) from error
    if _is_deeper(data, limits.json_depth):
        raise TooLarge(archive.file, f"it is nested deeper than {limits.json_depth}.", remedy, DATA_MEMBER)
    if not isinstance(data, dict):
        raise Corrupt(archive.file, f"it is a {type(data).__name__}, no object.", remedy, DATA_MEMBER)
    return data


def _is_deeper(value: Any, depth: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < 0 or any(_is_deeper(part, depth - 1) for part in parts)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def report_on(archive: ForeignZip, data: dict[str, Any]) -> SB3Report:
    """The report on an opened archive and the JSON of its ``data``."""
    version = None
    if archive.sizes.get(VERSION_MEMBER, _LONGEST_VERSION + 1) <= _LONGEST_VERSION:
        version = _shown(archive.read(VERSION_MEMBER).decode("utf-8", "replace").strip())
    spaces = {name: _shadow(data[name]) for name in SPACES if isinstance(data.get(name), dict)}
    return SB3Report(version, spaces, tuple(_shown(key) for key in data if is_pickled(data[key])), archive.sizes)


def is_pickled(value: Any) -> bool:
    """Whether a value of ``data`` is a pickle, or has one in it."""
    if isinstance(value, dict):
        return _PICKLED in value or any(is_pickled(part) for part in value.values())
    return isinstance(value, list) and any(is_pickled(part) for part in value)


def _shadow(value: dict[str, Any]) -> str:
    """The readable texts beside a pickled space."""
    kind = str(value.get(_TYPE, "")).removesuffix("'>").rpartition(".")[2]
    parts = [f"{name.lstrip('_')} {value[name]}" for name in _SHADOWS if value.get(name) not in (None, "None")]
    return _shown(", ".join([kind, *parts]))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown or 'nothing'}{' ...' if len(names) > 20 else ''}"


def _shown(text: str) -> str:
    """A text of the file, short and without anything that a terminal would obey."""
    short = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
    return "".join(character if character.isprintable() else " " for character in short)
