"""Every operation on files, in one place: whole files are written so that no kill and no failure loses the one before.

A file is written beside its target under a name of its own, synced, and put in the target's place; then the directory
is synced. Each operation passes ``observed``'s hook before it happens: tests fail the n-th, or end the process there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from everlearn.checkpoint.errors import SaveError

Buffer = bytes | bytearray | memoryview
Hook = Callable[[str, Path], int | None]
"""Called with the name of an operation and the path it is about; for a write it may return how many bytes may go."""
DRAFT = ".tmp-"
"""What the names of unfinished files begin with; then the target's name, the writer's process and something random."""
_PIECE = 8 * 2**20
_PATIENCE = 2.0  # seconds that another process may keep a file open, where that forbids renaming

_hook: Hook | None = None


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


def write_file(path: Path, chunks: Iterable[Buffer]) -> None:
    """Put a whole file at ``path``, which leads to the file before or to the new one at every moment.

    Raises:
        SaveError: If the system refuses; the file before is untouched and nothing is left over.
    """
    draft = path.with_name(f"{DRAFT}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_draft(draft, chunks)
        operation("save:replace", path)
        _replace(draft, path)
        sync_directory(path.parent, "save:directory")
    except OSError as error:
        raise SaveError(path, error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):  # the draft of a failed save; if it resists, it is swept later
            draft.unlink(missing_ok=True)


def _write_draft(draft: Path, chunks: Iterable[Buffer]) -> None:
    operation("save:create", draft)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for chunk in chunks:
            _write_all(descriptor, memoryview(chunk).cast("B"), draft)
        operation("save:fsync", draft)
        os.fsync(descriptor)
    finally:
        operation("save:close", draft)
        os.close(descriptor)


def _write_all(descriptor: int, rest: memoryview, draft: Path) -> None:
    while rest:
        allowed = operation("save:write", draft)
        piece = rest[: _PIECE if allowed is None else allowed]
        rest = rest[os.write(descriptor, piece) :]


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
            sync_directory(path.parent, "quarantine:directory")
            return target
    raise AssertionError("there is always a free number")


def sweep(directory: Path) -> list[Path]:
    """Remove the drafts that processes which are gone have left in a directory.

    Returns:
        What was removed.
    """
    drafts = [path for path in directory.glob(f"{DRAFT}*-*-*") if not _is_alive(path.name.split("-")[-2])]
    for draft in drafts:
        remove(draft, "sweep:remove")
    return drafts


def _is_alive(process: str) -> bool:
    """Whether a process of this number is there; this one does not count, for it writes one file at a time."""
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
