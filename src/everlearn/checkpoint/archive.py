"""One file of named members: a zip archive in the one form that everlearn writes, and reads no other.

Where everything stands is compared with ``layout``, the contents with the hashes in the manifest. So every bit of a
file matters, and nothing is believed before it is compared.
"""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

from everlearn.checkpoint import layout, strict_json
from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Unsupported, Untrusted
from everlearn.checkpoint.files import Buffer, open_file
from everlearn.checkpoint.foreign import refusal
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.core.errors import ArgumentError

MANIFEST = layout.MANIFEST
FORMAT, VERSION = "everlearn_v3", 3
_WORTH_THREADS = 2**20  # bytes


def pack(members: Mapping[str, Buffer], about: Mapping[str, Any]) -> list[Buffer]:
    """The whole file as chunks; the same input gives the same bytes.

    Args:
        members: Content by name, lower-case letters, digits, ``_`` and ``.``.
        about: What the manifest says besides.

    Raises:
        ArgumentError: If a name, or what the manifest says, is nothing that a reader takes.
        TooLarge: If the file would be larger than a zip archive can be.
    """
    layout.require_names(members)
    contents = [memoryview(content).cast("B") for content in members.values()]
    sums = _side_by_side([(function, content) for function in (_sha256, zlib.crc32) for content in contents])
    shas, checksums = sums[: len(contents)], sums[len(contents) :]
    files = {
        name: {"bytes": len(content), "sha256": sha} for name, content, sha in zip(members, contents, shas, strict=True)
    }
    head = {"format": FORMAT, "version": VERSION, "min_reader": VERSION}
    manifest = _readable({**head, **about, **head, "content_id": content_id(files), "files": files})
    contents = [memoryview(manifest), *contents]
    checksums = [zlib.crc32(manifest), *checksums]
    size = sum(map(len, contents))
    if size > layout.LARGEST:
        remedy = "Save less of it, or train a smaller network."
        raise TooLarge("the model", f"its file would have {size} bytes, {layout.LARGEST} are possible.", remedy)
    entries = list(map(layout.Entry, (MANIFEST, *members), map(len, contents), checksums))
    headers, directory = layout.headers_of(entries)
    chunks: list[Buffer] = []
    for header, content in zip(headers, contents, strict=True):
        chunks += [header, content]
    return [*chunks, directory]


def _readable(manifest: Mapping[str, Any]) -> bytes:
    """The manifest's text, once a reader takes it: otherwise a save would succeed, and nothing could load its file."""
    text = strict_json.dumps(manifest)
    bounds = {"max_bytes": LIMITS.manifest_bytes, "max_depth": LIMITS.json_depth}
    try:
        strict_json.loads(text, "the file", MANIFEST, **bounds)
    except CheckpointError as error:
        problem = f"The file would say more of itself than is ever read: {error.problem}"
        raise ArgumentError(f"{problem} Give less of it.") from error
    return text


def content_id(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The identity of what a file holds: the SHA-256 of its members' names and hashes."""
    lines = "".join(f"{name} {files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


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
        return _sha256(self.content)

    def json(self, name: str) -> Any:
        """The value of a JSON member."""
        if name not in self.members:
            raise Corrupt(self.file, "it is missing.", layout.REMEDY, name)
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
        with open_file(source) as opened:
            return _read(opened, file, limits, sha256)
    return _read(source, file, limits, sha256)


def read_manifest(path: Path, *, limits: Limits = LIMITS) -> dict[str, Any]:
    """What a file says of itself; the rest of it is not looked at.

    Raises:
        CheckpointError: If the manifest is damaged or none of ours.
    """
    file = str(path)
    with open_file(path) as opened:
        head = memoryview(opened.read(layout.BEGINNING))
        if not layout.is_ours(head):
            raise Unsupported(file, "it does not begin as a file of everlearn.", "Name one that everlearn has written.")
        entry = layout.first_entry(head)
        content = memoryview(opened.read(min(entry.size, limits.manifest_bytes + 1)))
    return _manifest(content, entry, file, limits)


def _read(opened: io.BufferedIOBase, file: str, limits: Limits, sha256: str | None) -> Archive:
    size = _size_of(opened, file, limits)
    if sha256 is None and not layout.is_ours(_first(opened, layout.BEGINNING, file)):  # which may be gigabytes
        raise refusal(opened, file)
    content = _first(opened, size, file)
    if sha256 is not None:
        require_pinned(content, sha256, file)
    if not layout.is_ours(content):
        raise refusal(opened, file)
    entries = layout.entries_of(content, file, limits)
    members = layout.members_of(content, entries)
    manifest = _manifest(members.pop(MANIFEST), entries[0], file, limits)
    _require_hashes(members, manifest, file)
    return Archive(file, manifest, members, limits, content)


def _size_of(opened: io.BufferedIOBase, file: str, limits: Limits) -> int:
    """How many bytes a file has, which is looked at before any is read."""
    if not opened.seekable():
        raise ArgumentError(
            f"{file}: it cannot be read from its end. Give a file that can be sought in, such as io.BytesIO."
        )
    size = opened.seek(0, io.SEEK_END)
    if size > limits.file_bytes:
        remedy = "If you trust the file, raise limits=Limits(file_bytes=...)."
        raise TooLarge(file, f"it has {size} bytes, {limits.file_bytes} are allowed.", remedy)
    return size


def _first(opened: io.BufferedIOBase, size: int, file: str) -> memoryview:
    """The first so many bytes, or all that there are."""
    opened.seek(0)
    pieces: list[Any] = []
    while size > 0 and (piece := opened.read(size)):  # a file without a buffer may give fewer than asked for
        if isinstance(piece, str):
            raise ArgumentError(f"{file}: it is open as text. Open it in binary mode.")
        pieces.append(piece)
        size -= len(piece)
    return memoryview(b"".join(pieces))  # of a single one no copy is made


def require_pinned(content: Buffer, sha256: str, file: object) -> None:
    """Refuse another file than the one that is asked for.

    Raises:
        Untrusted: If its SHA-256 is another.
        ArgumentError: If ``sha256`` is none.
    """
    if not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)):
        raise ArgumentError(f"sha256={sha256!r} is none. Give the 64 hexadecimal digits that everlearn inspect prints.")
    found = _sha256(content)
    if found != sha256.lower():
        remedy = "Do not use it, unless you know who changed it."
        raise Untrusted(file, f"it is another file than was asked for: its SHA-256 is {found}, not {sha256}.", remedy)


def _manifest(content: memoryview, entry: layout.Entry, file: str, limits: Limits) -> dict[str, Any]:
    """The manifest, of a version that can be read."""
    if len(content) <= limits.manifest_bytes and zlib.crc32(content) != entry.crc:
        raise Corrupt(file, "its checksum differs.", layout.REMEDY, MANIFEST)
    manifest = strict_json.loads(content, file, MANIFEST, max_bytes=limits.manifest_bytes, max_depth=limits.json_depth)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Unsupported(
            file, "its manifest is none of everlearn's.", "Name a file that everlearn has written.", MANIFEST
        )
    reader, version = manifest.get("min_reader"), manifest.get("version")
    if not (type(reader) is int and type(version) is int):
        raise Corrupt(file, "it does not say which version can read it.", layout.REMEDY, MANIFEST)
    if reader > VERSION:
        libraries = manifest.get("libraries")
        writer = layout.short(libraries.get("everlearn") if isinstance(libraries, dict) else None)
        problem = f"it has version {version} of the format, written by everlearn {writer}; this one reads {VERSION}."
        raise Unsupported(file, problem, "Upgrade everlearn.", MANIFEST)
    return manifest


def _require_hashes(members: Mapping[str, memoryview], manifest: Mapping[str, Any], file: str) -> None:
    """Compare each member with what the manifest says of it."""
    files = manifest.get("files")
    if not isinstance(files, dict) or list(files) != list(members):
        raise Corrupt(file, "it lists other members than there are.", layout.REMEDY, MANIFEST)
    shas = _side_by_side([(_sha256, content) for content in members.values()])
    for (name, content), sha in zip(members.items(), shas, strict=True):
        if files[name] != {"bytes": len(content), "sha256": sha}:
            written = files[name].get("sha256") if isinstance(files[name], dict) else files[name]
            raise Corrupt(file, f"its SHA-256 is {sha}, {layout.short(written)} was written.", layout.REMEDY, name)
    if manifest.get("content_id") != content_id(files):
        raise Corrupt(file, "content_id is not that of its members.", layout.REMEDY, MANIFEST)


def _sha256(content: Buffer) -> str:
    return hashlib.sha256(content).hexdigest()


def _side_by_side(works: Sequence[tuple[Callable[[memoryview], Any], memoryview]]) -> list[Any]:
    """Each function of its content, in their order; in two threads where they are large: hashing lets others run."""
    if sum(len(content) for _, content in works) < _WORTH_THREADS:
        return [function(content) for function, content in works]
    with ThreadPoolExecutor(2) as pool:
        largest_first = sorted(range(len(works)), key=lambda index: -len(works[index][1]))
        done = pool.map(lambda index: works[index][0](works[index][1]), largest_first)
        return [result for _, result in sorted(zip(largest_first, done, strict=True), key=itemgetter(0))]
