"""Files that are not ours: recognised by their content, and refused with the reason and the way in, if there is one.

Rows 3, 4 and 5 of the failure-mode table: whoever gives a file that cannot be loaded is told what it looks like and
what to do with it; none is unpickled.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from everlearn.checkpoint import sb3_report
from everlearn.checkpoint.errors import CheckpointError, Corrupt, Unsupported, Untrusted
from everlearn.checkpoint.files import is_directory, open_file
from everlearn.checkpoint.foreign_zip import (
    LOCAL_HEADER,
    Content,
    ForeignZip,
    first_name,
    require_whole,
    size_of,
)
from everlearn.checkpoint.limits import LIMITS


class Kind(StrEnum):
    """What a file is, by its content; the value is the words for it."""

    EMPTY = "an empty file"
    DIRECTORY = "a directory"
    EVERLEARN = "a model file of everlearn"
    SB3 = sb3_report.WHAT
    TORCH = "a file of torch.save"
    OLD_TORCH = "a file of torch.save from before torch 1.6"
    PICKLE = "a pickle"
    ZIP = "a zip archive of something else"
    SAFETENSORS = "a safetensors file"
    NUMPY = "a file of numpy"
    KERAS = "a Keras model"
    HDF5 = "an HDF5 file, as older Keras models are"
    GIT_LFS = "a pointer of git LFS in the place of the file"
    TEXT = "a text"
    UNKNOWN = "nothing that is known here"


ZIPS = (Kind.EVERLEARN, Kind.SB3, Kind.TORCH, Kind.KERAS, Kind.ZIP)
"""Kinds that are zip archives; numpy's may be one."""

_HEAD = 4096
_NAMES = 1000
_SB3_MEMBERS = (
    sb3_report.DATA_MEMBER,
    "pytorch_variables.pth",
    "tensors.pth",
    "policy.pth",
    "policy.optimizer.pth",
    sb3_report.VERSION_MEMBER,
    "system_info.txt",
)
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(*[ci][\w.]+\n[\w.]+\n|\([dl]p\d+\n|[\]}]q.\(", re.DOTALL)
"""How pickles begin: with a protocol; with a name to import; with a container, in protocols 0 and 1."""
_MAGIC = {b"\x93NUMPY": Kind.NUMPY, b"\x89HDF\r\n\x1a\n": Kind.HDF5, b"version https://git-lfs": Kind.GIT_LFS}
_LONGEST_SAFETENSORS_HEADER = 100_000_000

_REMEDIES = {
    Kind.EMPTY: "Whoever wrote it was stopped before anything was in it. Take another one.",
    Kind.DIRECTORY: "Name a file in it.",
    Kind.GIT_LFS: "Fetch the file itself with 'git lfs pull'.",
}
_OTHER_REMEDY = "Give a file that save() has written."
_NO_ZIP = "It wasn't a zip-file"
_CODE = "Reading it in full would run whatever code it brings along, so nothing of it was read."
_WAYS_IN = (
    "To take its weights without running anything, use PPO.import_weights(file, env), or the command "
    "'everlearn convert'."
)
_TRUST = " If you know who made it, PPO.load(file, env, trust=True) reads it with Stable-Baselines3's own loader."


def recognise(file: Path | Content) -> Kind:
    """What a file is, by its content and never by its name; what was cut is what it was before.

    Args:
        file: A path, or a seekable binary file at any position.

    Raises:
        NotAFile: If it is a pipe or a device.
        OSError: If it cannot be read.
    """
    if isinstance(file, Path):
        if is_directory(file):
            return Kind.DIRECTORY
        with open_file(file) as content:
            return recognise(content)
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        return Kind.EMPTY
    return _kind_of_zip(file) if head.startswith(LOCAL_HEADER) else _kind_by_head(head, size_of(file))


def _kind_of_zip(content: Content) -> Kind:
    """By the first local header, which tells what a cut archive was, and the names in the directory if it is whole."""
    first = first_name(content) or ""
    listed = _names(content)
    names = {first, *listed}
    if first == "manifest.json":
        return Kind.EVERLEARN
    if (first in _SB3_MEMBERS and not listed) or _is_of_sb3(names):
        return Kind.SB3
    if any(name.endswith("/data.pkl") for name in names):
        return Kind.TORCH
    if all(name.endswith(".npy") for name in names):
        return Kind.NUMPY
    return Kind.KERAS if {"config.json", "model.weights.h5"} <= names else Kind.ZIP


def _is_of_sb3(names: set[str]) -> bool:
    tensors = any(name.endswith(".pth") for name in names)
    return sb3_report.VERSION_MEMBER in names or (tensors and bool(names & set(_SB3_MEMBERS)))


def _names(content: Content) -> list[str]:
    try:
        return list(ForeignZip(content, "", "", LIMITS, members=_NAMES).sizes)
    except CheckpointError:  # cut, or larger than models are: the first local header has to do
        return []


def _kind_by_head(head: bytes, size: int) -> Kind:
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.startswith(_OLD_TORCH):
        return Kind.OLD_TORCH
    if _PICKLE.match(head):
        return Kind.PICKLE
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < length <= min(_LONGEST_SAFETENSORS_HEADER, size - 8):
        return Kind.SAFETENSORS
    return Kind.TEXT if _is_text(head) else Kind.UNKNOWN


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "ignore")
    return len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c in "\n\r\t\f" for c in text)


def refusal(content: Content, file: object) -> CheckpointError:
    """The error to raise for a file that is not one of ours.

    Args:
        content: A seekable file at any position.
        file: Its name, for messages.

    Returns:
        Truncated for an archive that was cut, Corrupt for one with something behind its end, Untrusted for pickles and
        whatever holds some, with a report where one is possible, Unsupported for everything else.
    """
    kind = recognise(content)
    if kind in ZIPS:
        try:
            require_whole(content, file, kind)
        except CheckpointError as error:
            return error
    if kind is Kind.SB3:
        return _refused_sb3(content, file)
    if kind is Kind.TORCH:
        return Untrusted(file, f"this looks like {kind}, which holds a pickle. {_CODE}", _WAYS_IN)
    if kind is Kind.EVERLEARN:
        return Corrupt(file, "it begins as a model file, and is none.", "Copy it again, or take another one.")
    return _refused_otherwise(content, file, kind)


def _refused_sb3(content: Content, file: object) -> CheckpointError:
    try:
        report = str(sb3_report.inspect_sb3(content, file))
    except CheckpointError as error:
        report = f" (No report: {error.problem})"
    return Untrusted(file, f"this is {Kind.SB3}. {_CODE}{report}\n", _WAYS_IN + _TRUST)


def _refused_otherwise(content: Content, file: object, kind: Kind) -> CheckpointError:
    no_zip = not content.seek(0) and content.read(len(LOCAL_HEADER)) != LOCAL_HEADER
    seen = f"{_NO_ZIP}; this looks like {kind}." if no_zip else f"this looks like {kind}."
    if kind in (Kind.PICKLE, Kind.OLD_TORCH):
        remedy = "Read it with the program that wrote it, if you trust it, and save plain tensors with torch.save."
        return Untrusted(file, f"{seen} {_CODE}", remedy)
    return Unsupported(file, seen, _REMEDIES.get(kind, _OTHER_REMEDY))
