"""Zip archives of unknown origin: read only where they are whole, and never more of them than the limits allow."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase
from typing import BinaryIO, TypeVar, cast

from everlearn.checkpoint.errors import Corrupt, TooLarge, Truncated, Unsupported
from everlearn.checkpoint.limits import Limits

Content = BinaryIO | BufferedIOBase
"""A seekable binary file, at any position."""
LOCAL_HEADER = b"PK\x03\x04"
"""With what a zip archive begins."""
INFLATED_BYTES = 64 * 2**20
"""What the members of any archive may hold together."""
INFLATION = 32
"""What they may hold together beyond that, as a multiple of the file's size."""

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_SIZE, _END64_SIZE, _LOCATOR64_SIZE = 22, 56, 20
_LARGEST_COMMENT = 2**16
_BYTES_PER_ENTRY = 128  # of the directory: 46 and the name, which is short in every format read here
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises for an archive that is not as it should be."""
_COPY_AGAIN = "Copy or download it again."
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies.

    Args:
        size: Of the directory, in bytes.
        end: Where the archive ends; the file's size unless something was appended.
    """

    size: int
    end: int


def size_of(content: Content) -> int:
    """Its size in bytes, wherever it was read up to."""
    return content.seek(0, 2)


def _read_at(content: Content, position: int, size: int) -> bytes:
    content.seek(max(position, 0))
    return content.read(size)


def first_name(content: Content) -> str | None:
    """The name in the first local header, which a cut archive has too; None where there is none."""
    header = _read_at(content, 0, 30)
    if len(header) < 30 or not header.startswith(LOCAL_HEADER):
        return None
    (length,) = struct.unpack_from("<H", header, 26)
    return _read_at(content, 30, length).decode("utf-8", "replace")


def directory_of(content: Content) -> Directory | None:
    """The central directory of the archive that begins at byte 0; None where the end is missing.

    The end record of an archive within the archive, which is the last one in a file that was cut, tells of a place
    that is counted from the inner archive's start, and so does not meet the record itself.
    """
    size = size_of(content)
    start = max(size - _END_SIZE - _LARGEST_COMMENT, 0)
    tail = _read_at(content, start, size - start)
    at = tail.rfind(_END)  # the last one, as zipfile does: two readers must not see two archives in one file
    if at < 0 or len(tail) - at < _END_SIZE:
        return None
    length, place, comment = struct.unpack_from("<IIH", tail, at + 12)
    record = start + at
    end = record + _END_SIZE + comment
    length, place, record = _wide_directory(content, record) or (length, place, record)
    return Directory(length, end) if place + length == record and end <= size else None


def _wide_directory(content: Content, end: int) -> tuple[int, int, int] | None:
    """Size and place of the directory in 64 bits, and where the record stands that tells them."""
    locator = _read_at(content, end - _LOCATOR64_SIZE, _LOCATOR64_SIZE) if end >= _LOCATOR64_SIZE else b""
    if not locator.startswith(_LOCATOR64):
        return None
    position = end - _LOCATOR64_SIZE - _END64_SIZE
    record = _read_at(content, position, _END64_SIZE) if position >= 0 else b""
    if not record.startswith(_END64):
        return None
    length, place = struct.unpack_from("<QQ", record, 40)
    return length, place, position


def require_whole(content: Content, file: object, what: str) -> Directory:
    """The directory of an archive that begins at byte 0 and ends at the end of the file.

    Raises:
        Truncated: If its end is missing.
        Corrupt: If something follows it.
    """
    size, directory = size_of(content), directory_of(content)
    if directory is None:
        raise Truncated(file, f"it begins as {what}, and its end is missing: {size} bytes are there.", _COPY_AGAIN)
    if directory.end != size:
        extra = size - directory.end
        raise Corrupt(file, f"{extra} bytes follow the end of {what}, where none should be.", _COPY_AGAIN)
    return directory


class ForeignZip:
    """The members of an archive, of which none is read beyond what it says and the limits allow.

    Sizes in the directory are first compared with the limits and then not believed: decompression stops at them.

    Args:
        content: The file, at any position.
        file: Its name, for messages.
        what: What it is taken for, for messages.
        limits: How much it may ask for.
        members: How many members it may have; those of ``limits`` by default.

    Raises:
        CheckpointError: If it is cut, damaged, encrypted, too large, or has a name twice.
    """

    def __init__(self, content: Content, file: object, what: str, limits: Limits, members: int | None = None) -> None:
        self.file = file
        self._limits = limits
        allowed = limits.members if members is None else members
        self.bytes = size_of(content)
        if self.bytes > limits.file_bytes:
            raise TooLarge(file, f"it has {self.bytes} bytes, allowed are {limits.file_bytes}.", _raise("file_bytes"))
        directory = require_whole(content, file, what)
        if directory.size > _BYTES_PER_ENTRY * allowed:
            raise TooLarge(file, f"its directory has {directory.size} bytes.", "No model needs so many members.")
        self._archive = self._guarded(lambda: zipfile.ZipFile(cast(BinaryIO, content)), None)
        self.sizes = {entry.filename: entry.file_size for entry in self._archive.infolist()}
        self._check(allowed)

    def _check(self, allowed: int) -> None:
        entries = self._archive.infolist()
        if len(entries) > allowed:
            raise TooLarge(self.file, f"it has {len(entries)} members, allowed are {allowed}.", _raise("members"))
        if len(self.sizes) < len(entries):
            raise Corrupt(self.file, "two of its members have one name.", "Get it from where it was made.")
        for entry in entries:
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                remedy = "Unpack it and pack it anew without compression."
                raise Unsupported(self.file, "it is encrypted or compressed in an unusual way.", remedy, entry.filename)
        if sum(entry.compress_size for entry in entries) > self.bytes:
            raise Corrupt(self.file, "its members overlap.", "Get it from where it was made.")
        total, most = sum(self.sizes.values()), max(INFLATED_BYTES, INFLATION * self.bytes)
        if total > min(most, self._limits.file_bytes):
            problem = f"its {self.bytes} bytes would become {total} when they are decompressed."
            raise TooLarge(self.file, problem, "If you trust it, unpack it and pack it anew without compression.")

    def is_stored(self, name: str) -> bool:
        """Whether a member is as large in the file as it says, without compression."""
        entry = self._archive.getinfo(name)
        return entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size

    def read(self, name: str, limit: str | None = None) -> bytes:
        """One member, compared with its checksum.

        Args:
            name: Which.
            limit: Which of the limits bounds its size in bytes; None for no other than the archive's.

        Raises:
            TooLarge: If it is larger; nothing was read then.
            Corrupt: If it is missing or not what its checksum says.
        """
        size = self.sizes.get(name)
        if size is None:
            raise Corrupt(self.file, "this member is missing.", "Get the file from where it was made.", name)
        most = size if limit is None else getattr(self._limits, limit)
        if size > most:
            raise TooLarge(self.file, f"it has {size} bytes, allowed are {most}.", _raise(limit or ""), name)
        return self._guarded(lambda: self._content(name, size), name)

    def _content(self, name: str, size: int) -> bytes:
        with self._archive.open(name) as stream:
            content = stream.read(size)
            if len(content) != size or stream.read(1):  # which also compares the checksum
                raise EOFError(f"{len(content)} of {size} bytes")
        return content

    def _guarded(self, action: Callable[[], _Result], member: str | None) -> _Result:
        try:
            return action()
        except _DAMAGE as error:
            raise Corrupt(self.file, f"the archive is damaged: {error}.", _COPY_AGAIN, member) from error


def _raise(limit: str) -> str:
    return f"If that is right, allow it with limits=Limits({limit}=...)."
