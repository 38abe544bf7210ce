"""One writer per directory."""

from __future__ import annotations

import errno
import os
import socket
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import CheckpointError, SaveError
from everlearn.checkpoint.files import reason_of, remove, write_file
from everlearn.core.errors import ConfigError

LOCK, HOLDER = ".lock", ".lock.json"
_BYTES, _DEPTH = 4096, 4
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class RunLock:
    """While entered, no other process, and nobody else in this one, enters a lock of the same directory.

    The lock is the kernel's: it is free as soon as its holder is gone, however that went, even if processes that it
    forked live on. On network file systems it reaches as far as their locks do: NFS from version 4 on and SMB pass them
    to the server, an older NFS may let another machine in.

    Args:
        directory: Which; it has to exist.

    Raises:
        ConfigError: On entering, if somebody else is in, naming process and host; and where there are no locks.
        SaveError: On entering, if the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = FileLock(directory / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)

    def __enter__(self) -> RunLock:
        if self._lock.is_locked:
            raise self._occupied()
        try:
            self._lock.acquire()
        except Timeout:
            raise self._occupied() from None
        except OSError as error:
            raise self._unlockable(error) from error
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            write_file(self._directory / HOLDER, [strict_json.dumps(holder)])
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            remove(self._directory / HOLDER, "lock:remove")
        except OSError as refusal:  # the holder's data are for messages only, and the next one replaces them
            warnings.warn(f"{self._directory / HOLDER} cannot be deleted ({reason_of(refusal)}).", stacklevel=2)
        finally:
            self._lock.release()

    def _unlockable(self, error: OSError) -> ConfigError | SaveError:
        """Where locks do not exist nothing else is put in their place, for that would outlive its holder."""
        if error.errno not in _WITHOUT_LOCKS:
            return SaveError(self._directory / LOCK, reason_of(error))
        problem = f"{self._directory} is on a file system without locks ({reason_of(error)})"
        return ConfigError(f"{problem}, so that two runs could mix there. Choose a directory on another one.")

    def _occupied(self) -> ConfigError:
        return ConfigError(
            f"{self._directory} is being written by {self._holder()}. Wait for it, or choose another directory."
        )

    def _holder(self) -> str:
        """Who is in, as far as the file beside the lock says, which is replaced whole and so is never half-written."""
        file = self._directory / HOLDER
        try:
            with file.open("rb") as opened:
                content = opened.read(_BYTES + 1)
            holder: Any = strict_json.loads(content, file, "", max_bytes=_BYTES, max_depth=_DEPTH)
            return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
        except (OSError, CheckpointError, KeyError, TypeError):
            return "another process"


def is_written(directory: Path) -> bool:
    """Whether somebody is in: a lock that is free is taken for a moment, and what is not there is not made."""
    if not (directory / LOCK).is_file():
        return False
    lock = FileLock(directory / LOCK, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False
