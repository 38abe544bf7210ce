"""One writer per directory."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import CheckpointError
from everlearn.checkpoint.files import remove, write_file
from everlearn.core.errors import ConfigError

LOCK, HOLDER = ".lock", ".lock.json"
_BYTES, _DEPTH = 4096, 4


class RunLock:
    """While entered, no other process, and nobody else in this one, enters a lock of the same directory.

    The lock is the kernel's: it is free as soon as its holder is gone, however that went. On network file systems it
    reaches as far as their locks do; a file system without locks lets everybody in.

    Args:
        directory: Which; it has to exist.

    Raises:
        ConfigError: On entering, if somebody else is in, naming process and host.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = FileLock(directory / LOCK, timeout=0, thread_local=False)

    def __enter__(self) -> RunLock:
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"{self._directory} is being written by {self._holder()}. Wait for it, or choose another directory."
            ) from None
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_file(self._directory / HOLDER, [strict_json.dumps(holder)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove(self._directory / HOLDER, "lock:remove")
        self._lock.release()

    def _holder(self) -> str:
        """Who is in, as far as the file beside the lock says; filelock empties the lock's own file."""
        file = self._directory / HOLDER
        try:
            holder: Any = strict_json.loads(file.read_bytes(), file, "", max_bytes=_BYTES, max_depth=_DEPTH)
            return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
        except (OSError, CheckpointError, KeyError, TypeError):
            return "another process"
