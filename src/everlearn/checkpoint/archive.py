"""One file of named members: a zip archive in the one form that everlearn writes, and reads no other.

The layout is a function of the members' names, sizes and checksums. A reader takes these from the directory at the
end, makes the layout anew and compares it byte for byte; the contents are held by the hashes in the manifest. So every
bit of a file matters, and nothing is believed before it is compared.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Truncated, Unsupported, Untrusted
from everlearn.checkpoint.files import Buffer
from everlearn.checkpoint.foreign import refusal
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.core.errors import ArgumentError

T = TypeVar("T")
MANIFEST = "manifest.json"
FORMAT, VERSION = "everlearn_v3", 3
NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_LARGEST = 2**32 - 2**20
_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
_VERSION_NEEDED, _NO_FLAGS, _STORED, _MIDNIGHT, _FIRST_DAY = 20, 0, 0, 0, 0x21  # 1980-01-01, where zip's time begins
_REMEDY = "Restore the file from a copy."


class Entry(NamedTuple):
    """What the layout depends on."""

    name: str
    size: int
    crc: int


def pack(members: Mapping[str, Buffer], about: Mapping[str, Any]) -> list[Buffer]:
    """The whole file as chunks; the same input gives the same bytes.

    Args:
        members: Content by name, lower-case letters, digits, ``_`` and ``.``.
        about: What the manifest says besides.

    Raises:
        TooLarge: If the file would be larger than a zip archive can be.
    """
    contents = [memoryview(content).cast("B") for content in members.values()]
    sums = _of_each(lambda content: (hashlib.sha256(content).hexdigest(), zlib.crc32(content)), contents)
    files = {
        name: {"bytes": len(content), "sha256": sha}
        for name, content, (sha, _) in zip(members, contents, sums, strict=True)
    }
    head = {"format": FORMAT, "version": VERSION, "min_reader": VERSION}
    manifest = strict_json.dumps({**head, **about, "content_id": content_id(files), "files": files})
    contents = [memoryview(manifest), *contents]
    checksums = [zlib.crc32(manifest), *(checksum for _, checksum in sums)]
    size = sum(map(len, contents))
    if size > _LARGEST:
        raise TooLarge("the model", f"its file would have {size} bytes, {_LARGEST} are possible.", "Make it smaller.")
    entries = list(map(Entry, (MANIFEST, *members), map(len, contents), checksums))
    headers, directory = layout(entries)
    chunks: list[Buffer] = []
    for header, content in zip(headers, contents, strict=True):
        chunks += [header, content]
    return [*chunks, directory]


def content_id(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The identity of what a file holds: the SHA-256 of its members' names and hashes."""
    lines = "".join(f"{name} {files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def layout(entries: Sequence[Entry]) -> tuple[list[bytes], bytes]:
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


@dataclass(frozen=True)
class Archive:
    """A file whose every bit has been verified.

    Args:
        file: Its name, for messages.
        manifest: What it says of itself.
        members: Content by name, without the manifest.
    """

    file: str
    manifest: dict[str, Any]
    members: Mapping[str, memoryview]
    limits: Limits
    content: memoryview = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Of the whole file, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def json(self, name: str) -> Any:
        """The value of a JSON member."""
        if name not in self.members:
            raise Corrupt(self.file, "it is missing.", _REMEDY, name)
        limits = self.limits
        return strict_json.loads(
            self.members[name], self.file, name, max_bytes=limits.json_bytes, max_depth=limits.json_depth
        )


def read_archive(source: Path | io.BufferedIOBase, *, limits: Limits = LIMITS, sha256: str | None = None) -> Archive:
    """The archive in a file, verified to the bit.

    Args:
        source: A path, or an open binary file, which is read from its beginning to its end.
        limits: How much it may ask for.
        sha256: What the SHA-256 of the whole file has to be, in hexadecimal.

    Raises:
        CheckpointError: If it is damaged, too large, of another kind or version, or another file than ``sha256`` says.
        FileNotFoundError: If there is no file.
    """
    file = str(source) if isinstance(source, Path) else str(getattr(source, "name", "the open file"))
    if isinstance(source, Path):
        if source.is_dir():
            raise Unsupported(file, "this is a directory.", "Name a file in it.")
        with source.open("rb") as opened:
            return _read(opened, file, limits, sha256)
    return _read(source, file, limits, sha256)


def read_manifest(path: Path, *, limits: Limits = LIMITS) -> dict[str, Any]:
    """What a file says of itself; the rest of it is not looked at.

    Raises:
        CheckpointError: If the manifest is damaged or none of ours.
    """
    file = str(path)
    with path.open("rb") as opened:
        head = memoryview(opened.read(_LOCAL.size + len(MANIFEST)))
        if not _is_ours(head):
            raise Unsupported(file, "it does not begin as a file of everlearn.", "Name one that everlearn has written.")
        crc, size = _LOCAL.unpack(head[: _LOCAL.size])[6:8]
        content = memoryview(opened.read(min(size, limits.manifest_bytes + 1)))
    return _manifest(content, Entry(MANIFEST, size, crc), file, limits)


def _read(opened: io.BufferedIOBase, file: str, limits: Limits, sha256: str | None) -> Archive:
    content = _content(opened, file, limits)
    if sha256 is not None:
        _require_pinned(content, sha256, file)
    if not _is_ours(content):
        raise refusal(opened, file)
    entries = _entries(content, file, limits)
    members = _members(content, entries, file)
    manifest = _manifest(members.pop(MANIFEST), entries[0], file, limits)
    _require_hashes(members, manifest, file)
    return Archive(file, manifest, members, limits, content)


def _content(opened: io.BufferedIOBase, file: str, limits: Limits) -> memoryview:
    """All of a file, whose size is looked at first."""
    if not opened.seekable():
        raise ArgumentError(
            f"{file}: it cannot be read from its end. Give a file that can be sought in, such as io.BytesIO."
        )
    size = opened.seek(0, io.SEEK_END)
    if size > limits.file_bytes:
        remedy = "If you trust the file, raise limits=Limits(file_bytes=...)."
        raise TooLarge(file, f"it has {size} bytes, {limits.file_bytes} are allowed.", remedy)
    opened.seek(0)
    return memoryview(opened.read(size))


def _require_pinned(content: memoryview, sha256: str, file: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ArgumentError(f"sha256={sha256!r} is none. Give the 64 hexadecimal digits that everlearn inspect prints.")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        remedy = "Do not use it, unless you know who changed it."
        raise Untrusted(file, f"it is another file than was asked for: its SHA-256 is {found}, not {sha256}.", remedy)


def _is_ours(content: memoryview) -> bool:
    """Whether it begins as our files do, with the manifest."""
    return (
        bytes(content[:4]) == b"PK\3\4"
        and bytes(content[_LOCAL.size : _LOCAL.size + len(MANIFEST)]) == MANIFEST.encode()
    )


def _entries(content: memoryview, file: str, limits: Limits) -> list[Entry]:
    """What the directory at the very end lists, once the layout made of it is the file's."""
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
    if names[:1] != [MANIFEST] or len(set(names)) < len(names) or not all(map(NAME.fullmatch, names)):
        raise Corrupt(file, f"its members have names that ours never have: {names!r}.", _REMEDY)
    headers, directory = layout(entries)
    position = 0
    for header, entry in zip(headers, entries, strict=True):
        if bytes(content[position : position + len(header)]) != header:
            raise Corrupt(file, "the header before it is not what the directory says.", _REMEDY, entry.name)
        position += len(header) + entry.size
    if position != offset or bytes(content[offset:]) != directory:
        raise Corrupt(file, "the directory at its end is not the one of its members.", _REMEDY)
    return entries


def _listed(directory: memoryview, count: int, file: str) -> list[Entry]:
    entries: list[Entry] = []
    while directory and len(entries) < count:
        if len(directory) < _CENTRAL.size:
            raise Corrupt(file, "the directory at its end is cut.", _REMEDY)
        fields = _CENTRAL.unpack(directory[: _CENTRAL.size])
        length, size, crc = fields[10], fields[9], fields[7]
        name = bytes(directory[_CENTRAL.size : _CENTRAL.size + length]).decode("latin-1")
        entries.append(Entry(name, size, crc))
        directory = directory[_CENTRAL.size + length :]
    return entries


def _without_end(content: memoryview, file: str, limits: Limits) -> CheckpointError:
    """Why a file that begins as ours does not end as ours: how much is missing, where the manifest can say it."""
    begin = _LOCAL.size + len(MANIFEST)
    size = int.from_bytes(content[18:22], "little")
    if begin + size > len(content):
        return Truncated(file, f"it ends after {len(content)} bytes, within its manifest.", _REMEDY)
    try:
        manifest = strict_json.loads(
            content[begin : begin + size], file, MANIFEST, max_bytes=limits.manifest_bytes, max_depth=limits.json_depth
        )
        sizes = {MANIFEST: size, **{name: entry["bytes"] for name, entry in manifest["files"].items()}}
        headers, directory = layout([Entry(name, size, 0) for name, size in sizes.items()])
    except (CheckpointError, LookupError, TypeError, AttributeError, struct.error) as error:
        return Corrupt(file, f"neither its end nor its manifest can be read ({error}).", _REMEDY)
    expected = sum(map(len, headers)) + sum(sizes.values()) + len(directory)
    if len(content) < expected:
        return Truncated(file, f"it ends after {len(content)} of {expected} bytes.", _REMEDY)
    return Corrupt(
        file, f"it has {len(content)} bytes, {expected} are its own, and its end is not where it should be.", _REMEDY
    )


def _members(content: memoryview, entries: Sequence[Entry], file: str) -> dict[str, memoryview]:
    members, position = {}, 0
    for entry in entries:
        position += _LOCAL.size + len(entry.name)
        members[entry.name] = content[position : position + entry.size]
        position += entry.size
    return members


def _manifest(content: memoryview, entry: Entry, file: str, limits: Limits) -> dict[str, Any]:
    """The manifest, of a version that can be read."""
    loaded = strict_json.loads if len(content) > limits.manifest_bytes or zlib.crc32(content) == entry.crc else None
    if loaded is None:
        raise Corrupt(file, "its checksum differs.", _REMEDY, MANIFEST)
    manifest = loaded(content, file, MANIFEST, max_bytes=limits.manifest_bytes, max_depth=limits.json_depth)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Unsupported(
            file, "its manifest is none of everlearn's.", "Name a file that everlearn has written.", MANIFEST
        )
    reader, version = manifest.get("min_reader"), manifest.get("version")
    if not (type(reader) is int and type(version) is int):
        raise Corrupt(file, "it does not say which version can read it.", _REMEDY, MANIFEST)
    if reader > VERSION:
        libraries = manifest.get("libraries")
        writer = libraries.get("everlearn") if isinstance(libraries, dict) else None
        problem = f"it has version {version} of the format, written by everlearn {writer}; this one reads {VERSION}."
        raise Unsupported(file, problem, "Upgrade everlearn.", MANIFEST)
    return manifest


def _require_hashes(members: Mapping[str, memoryview], manifest: Mapping[str, Any], file: str) -> None:
    """Compare each member with what the manifest says of it."""
    files = manifest.get("files")
    if not isinstance(files, dict) or list(files) != list(members):
        raise Corrupt(file, "it lists other members than there are.", _REMEDY, MANIFEST)
    for (name, content), sha in zip(members.items(), _hashes(list(members.values())), strict=True):
        if files[name] != {"bytes": len(content), "sha256": sha}:
            raise Corrupt(file, f"its SHA-256 is {sha}, {files[name]!r} was written.", _REMEDY, name)
    if manifest.get("content_id") != content_id(files):
        raise Corrupt(file, "content_id is not that of its members.", _REMEDY, MANIFEST)


def _hashes(contents: Sequence[memoryview]) -> list[str]:
    return _of_each(lambda content: hashlib.sha256(content).hexdigest(), contents)


def _of_each(function: Callable[[memoryview], T], contents: Sequence[memoryview]) -> list[T]:
    """The function of each, in their order; side by side where they are large: hashing lets other threads run."""
    if sum(map(len, contents)) < _WORTH_THREADS:
        return list(map(function, contents))
    with ThreadPoolExecutor(2) as pool:
        largest_first = sorted(range(len(contents)), key=lambda index: -len(contents[index]))
        results = {index: pool.submit(function, contents[index]) for index in largest_first}
        return [results[index].result() for index in range(len(contents))]


_WORTH_THREADS = 2**20  # bytes
