"""Every operation on files, in one place: whole files are written so that no kill and no failure loses the one before.

A file is written beside its target under a name of its own, synced, and put in the target's place; then the directory
is synced. Each operation passes ``observed``'s hook before it happens: tests fail the n-th, or end the process there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from everlearn.checkpoint.errors import SaveError, Unsupported
from everlearn.core.errors import ConfigError, EverlearnError

Buffer = bytes | bytearray | memoryview
Hook = Callable[[str, Path], int | None]
"""Called with the name of an operation and the path it is about; for a write it may return how many bytes may go."""
DRAFT = ".tmp-"
"""What the names of unfinished files begin with; then the target's name, the writer's process and something random."""
_PIECE = 8 * 2**20
_PATIENCE = 2.0  # seconds that another process may keep a file open, where that forbids renaming

_LONGEST_NAME = 50  # characters of a target's name, of up to 4 bytes, in that of its draft, which has room for 255

_hook: Hook | None = None


class NotDurable(SaveError):  # noqa: N818 - the family's names are the words for what happened
    """The new file is in its place and whole, but the system did not confirm that it would survive a power failure.

    Args:
        file: The file.
        reason: What the system said.
    """

    def __init__(self, file: object, reason: str) -> None:
        self.file, self.reason = file, reason
        EverlearnError.__init__(
            self,
            f"{file}: it is written, but its directory cannot be synced ({reason}), so that after a power failure the "
            "file before may be there instead. See to the disk, and save again.",
        )


class NotAFile(Unsupported, ConfigError):  # noqa: N818
    """What is there is a directory, a pipe or a device: whoever named it meant another path."""


@contextmanager
def observed(hook: Hook) -> Iterator[None]:
    """Inside, every operation passes ``hook`` first."""
    global _hook
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before


def operation(name: str, path: Path) -> int | None:
    """Say that an operation is about to happen."""
    return None if _hook is None else _hook(name, path)


def mode_at(path: Path) -> int:
    """Kind and permissions of what is at a path, links followed; 0 where nothing is, or the system does not say.

    It says nothing of a name that is too long and of links that lead in a circle. Opening such a path tells the reason.
    """
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def is_directory(path: Path) -> bool:
    """Whether a directory is there, as far as the system says."""
    return stat.S_ISDIR(mode_at(path))


def open_file(path: Path) -> io.BufferedReader:
    """A file for reading; nothing else is opened, for a pipe could be waited for without end.

    Raises:
        NotAFile: If it is a directory, a pipe or a device.
        OSError: If there is none, or it cannot be read.
    """
    mode = mode_at(path)
    if stat.S_ISDIR(mode):
        raise NotAFile(path, "this is a directory.", "Name a file in it.")
    if mode and not stat.S_ISREG(mode):
        raise NotAFile(path, "this is a pipe or a device.", "Name a regular file.")
    return path.open("rb")


def write_file(path: Path, chunks: Iterable[Buffer]) -> None:
    """Put a whole file at ``path``, which leads to the file before or to the new one at every moment.

    Raises:
        SaveError: If the system refuses; the file before is untouched and nothing is left over.
        NotDurable: If it refuses only to say that the new file is durable, which then is in its place.
    """
    put_whole(path, lambda draft: _write_draft(draft, chunks))


def put_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a new file written under another name, and then put it at ``path``; as ``write_file`` otherwise.

    Args:
        path: Where it is to be.
        write: Makes a file at the path that it is given, and sees to it that what it wrote is on the disk.
    """
    draft = path.with_name(f"{DRAFT}{path.name[:_LONGEST_NAME]}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        make_directory(path.parent)
        write(draft)
        operation("save:replace", path)
        _replace(draft, path)
    except OSError as error:
        raise SaveError(path, reason_of(error)) from error
    finally:
        with contextlib.suppress(OSError):  # the draft of a failed save; if it resists, it is swept later
            draft.unlink(missing_ok=True)
    try:
        sync_directory(path.parent, "save:directory")
    except OSError as error:
        raise NotDurable(path, reason_of(error)) from error


def sync_file(path: Path) -> None:
    """Make the content of a file durable that something else has written."""
    operation("save:fsync", path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason_of(error: OSError) -> str:
    """What the system said."""
    return error.strerror or str(error)


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, where they are missing, and make their names durable."""
    if directory.is_dir() or directory == directory.parent:
        return
    make_directory(directory.parent)
    operation("save:mkdir", directory)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent, "save:directory")


def _write_draft(draft: Path, chunks: Iterable[Buffer]) -> None:
    operation("save:create", draft)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for chunk in chunks:
            _write_all(descriptor, memoryview(chunk).cast("B"), draft)
        operation("save:fsync", draft)
        os.fsync(descriptor)
        operation("save:close", draft)
    finally:
        os.close(descriptor)  # also reports what the system could not write, as some network disks do


def _write_all(descriptor: int, rest: memoryview, draft: Path) -> None:
    while rest:
        allowed = operation("save:write", draft)
        piece = rest[: _PIECE if allowed is None else allowed]
        written = os.write(descriptor, piece)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        rest = rest[written:]


def _replace(draft: Path, path: Path) -> None:
    """``os.replace``, tried again for a while where a reader forbids it, as on Windows."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            os.replace(draft, path)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > end:
                raise
            time.sleep(0.02)


def sync_directory(directory: Path, name: str) -> None:
    """Make the names in a directory durable, where the system can."""
    if os.name == "nt":
        return
    operation(name, directory)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path, name: str) -> None:
    """Delete a file; one that is gone already is no error."""
    operation(name, path)
    path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``NAME.corrupt``, or with a number if there is one; its bytes stay.

    Returns:
        Its new path.
    """
    for number in count():
        target = path.with_name(f"{path.name}.corrupt{f'-{number}' if number else ''}")
        if not target.exists():
            operation("quarantine:rename", path)
            path.rename(target)
            with contextlib.suppress(OSError):  # after a power failure it may have its old name, and is set aside again
                sync_directory(path.parent, "quarantine:directory")
            return target
    raise AssertionError("there is always a free number")


def sweep(directory: Path, *, alone: bool = False) -> list[Path]:
    """Remove the drafts that processes which are gone have left in a directory. For its one writer.

    Args:
        directory: Where.
        alone: Nobody writes there now, so that every draft is a left-over. A number in its name may be that of a
            process on another machine, of one that is dead and not buried, or of a later one.

    Returns:
        What was removed; a draft that resists is left, with a warning.
    """
    removed: list[Path] = []
    for draft in sorted(directory.glob(f"{DRAFT}*-*-*")):
        if alone or not _is_alive(draft.name.split("-")[-2]):
            try:
                remove(draft, "sweep:remove")
            except OSError as error:
                warnings.warn(f"{draft}: this left-over cannot be deleted ({reason_of(error)}).", stacklevel=2)
            else:
                removed.append(draft)
    return removed


def _is_alive(process: str) -> bool:
    """Whether a process of this number is there; this one does not count, for it writes one file at a time.

    On Windows a number cannot be asked without harm, nor need it be: an open file cannot be deleted there.
    """
    if not process.isdecimal() or int(process) == os.getpid() or os.name == "nt":
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
