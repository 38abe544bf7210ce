"""Where everything stands in a file of ours: a zip archive in one form only, a function of names, sizes, checksums.

A reader takes these from the directory at the end, makes the layout anew and compares it byte for byte: so nothing of
it is believed before it is compared, and there is no room for a second directory, a comment or a hidden member.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Truncated
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.core.errors import ArgumentError

MANIFEST = "manifest.json"
LARGEST = 2**32 - 2**20
"""Bytes of a zip archive that needs none of the format's extensions."""
REMEDY = "Restore the file from a copy."
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
_VERSION_NEEDED, _NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_DAY = 20, 0, 0, 0, 0x21  # 1980-01-01, where zip's time begins
BEGINNING = _LOCAL.size + len(MANIFEST)
"""Bytes before the content of the manifest, which is the first member."""


class Entry(NamedTuple):
    """What the layout depends on."""

    name: str
    size: int
    crc: int


def require_names(names: Collection[str]) -> None:
    """Refuse to write what no reader would take.

    Raises:
        ArgumentError: For names of another form, and for too many.
    """
    wrong = [name for name in names if not _NAME.fullmatch(name) or name == MANIFEST]
    if wrong or len(names) >= LIMITS.members:
        problem = f"{wrong[0]!r} is no name of a member" if wrong else f"{len(names)} members are too many"
        remedy = f"Give at most {LIMITS.members - 1} names of a-z, 0-9, _ and ., of which {MANIFEST} is none."
        raise ArgumentError(f"{problem}. {remedy}")


def headers_of(entries: Sequence[Entry]) -> tuple[list[bytes], bytes]:
    """The header before each member, and the directory after the last."""
    headers, directory, offset = [], b"", 0
    for name, size, crc in entries:
        encoded = name.encode()
        common = (_VERSION_NEEDED, _NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_DAY, crc, size, size, len(encoded), 0)
        headers.append(_LOCAL.pack(b"PK\3\4", *common) + encoded)
        directory += _CENTRAL.pack(b"PK\1\2", _VERSION_NEEDED, *common, 0, 0, 0, 0, offset) + encoded
        offset += len(headers[-1]) + size
    end = _END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), offset, 0)
    return headers, directory + end


def is_ours(content: memoryview) -> bool:
    """Whether it begins as our files do, with the manifest."""
    return bytes(content[:4]) == b"PK\3\4" and bytes(content[_LOCAL.size : BEGINNING]) == MANIFEST.encode()


def first_entry(head: memoryview) -> Entry:
    """The manifest's, by the header that a file begins with."""
    crc, size = _LOCAL.unpack(head[: _LOCAL.size])[6:8]
    return Entry(MANIFEST, size, crc)


def entries_of(content: memoryview, file: str, limits: Limits) -> list[Entry]:
    """What the directory at the very end lists, once the layout made of it is the file's.

    Raises:
        CheckpointError: If it is not, byte for byte.
    """
    if len(content) < _END.size or bytes(content[-_END.size :][:4]) != b"PK\5\6":
        raise _without_end(content, file, limits)
    *_, count, size, offset, _ = _END.unpack(content[-_END.size :])
    if count > limits.members:
        raise TooLarge(
            file, f"it has {count} members, {limits.members} are allowed.", "Raise limits=Limits(members=...)."
        )
    if offset + size + _END.size != len(content):
        raise _without_end(content, file, limits)
    entries = _listed(content[offset : offset + size], count, file)
    names = [entry.name for entry in entries]
    if names[:1] != [MANIFEST] or len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        raise Corrupt(file, f"its members have names that ours never have: {short(names)}.", REMEDY)
    if _before_directory({entry.name: entry.size for entry in entries}) != offset:  # so that no place is beyond 32 bits
        raise Corrupt(file, "its members do not fill the place before its directory.", REMEDY)
    headers, directory = headers_of(entries)
    position = 0
    for header, entry in zip(headers, entries, strict=True):
        if bytes(content[position : position + len(header)]) != header:
            raise Corrupt(file, "the header before it is not what the directory says.", REMEDY, entry.name)
        position += len(header) + entry.size
    if bytes(content[offset:]) != directory:
        raise Corrupt(file, "the directory at its end is not the one of its members.", REMEDY)
    return entries


def _before_directory(sizes: Mapping[str, int]) -> int:
    """Bytes of members and their headers."""
    return sum(_LOCAL.size + len(name) + size for name, size in sizes.items())


def _listed(directory: memoryview, count: int, file: str) -> list[Entry]:
    entries: list[Entry] = []
    while directory and len(entries) < count:
        if len(directory) < _CENTRAL.size:
            raise Corrupt(file, "the directory at its end is cut.", REMEDY)
        fields = _CENTRAL.unpack(directory[: _CENTRAL.size])
        length, size, crc = fields[10], fields[9], fields[7]
        name = bytes(directory[_CENTRAL.size : _CENTRAL.size + length]).decode("latin-1")
        entries.append(Entry(name, size, crc))
        directory = directory[_CENTRAL.size + length :]
    return entries


def _without_end(content: memoryview, file: str, limits: Limits) -> CheckpointError:
    """Why a file that begins as ours does not end as ours: how much is missing, where the manifest can say it."""
    size = int.from_bytes(content[18:22], "little")
    if BEGINNING + size > len(content):
        return Truncated(file, f"it ends after {len(content)} bytes, within its manifest.", REMEDY)
    try:
        manifest = strict_json.loads(
            content[BEGINNING : BEGINNING + size],
            file,
            MANIFEST,
            max_bytes=limits.manifest_bytes,
            max_depth=limits.json_depth,
        )
    except CheckpointError as error:
        return Corrupt(file, f"neither its end nor its manifest can be read ({error.problem}).", REMEDY)
    sizes = _sizes(manifest)
    if sizes is None:
        return Corrupt(file, "its end is missing, and its manifest does not say what it should hold.", REMEDY)
    sizes = {MANIFEST: size, **sizes}
    expected = _before_directory(sizes) + sum(_CENTRAL.size + len(name) for name in sizes) + _END.size
    if len(content) < expected:
        return Truncated(file, f"it ends after {len(content)} of {expected} bytes.", REMEDY)
    return Corrupt(
        file, f"it has {len(content)} bytes, {expected} are its own, and its end is not where it should be.", REMEDY
    )


def _sizes(manifest: Any) -> dict[str, int] | None:
    """How large a manifest says that the members are; None where it is not one of ours."""
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(map(_NAME.fullmatch, files)):
        return None
    sizes: dict[str, int] = {}
    for name, entry in files.items():
        size = entry.get("bytes") if isinstance(entry, dict) else None
        if type(size) is not int or not 0 <= size <= LARGEST:
            return None
        sizes[name] = size
    return sizes


def short(value: object) -> str:
    """What a file says, at a length that a message can have."""
    return f"{value!r:.200}"


def members_of(content: memoryview, entries: Sequence[Entry]) -> dict[str, memoryview]:
    """The content of each member, none of it copied."""
    members, position = {}, 0
    for entry in entries:
        position += _LOCAL.size + len(entry.name)
        members[entry.name] = content[position : position + entry.size]
        position += entry.size
    return members
