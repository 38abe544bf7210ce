"""Writing the files of a run: what the system refuses becomes an error that names the file.

Errors of the system that arise in a user's environments, callbacks or plug-ins are not touched: their place matters.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everlearn.checkpoint.files import write_file
from everlearn.core.errors import EverlearnError

_log = logging.getLogger(__name__)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, nothing but everlearn's own work on a file or directory may happen.

    Args:
        path: The file or directory, for the message.

    Raises:
        EverlearnError: If the system refuses, naming the file and the reason.
    """
    try:
        yield
    except OSError as error:
        raise EverlearnError(
            f"{path}: it cannot be written ({error.strerror or error}). "
            "See to free space and to the permissions of its directory."
        ) from error


class LineFile:
    """A text file, written from its beginning or from a place on, that has every line as soon as it is written.

    Row 14 of the failure modes: what cannot be written, as on a full disk, stays in memory and is written with the next
    line; the first time this is a warning. Only closing fails, if it cannot be written even then.

    Args:
        path: Where.
        keep: Bytes that stay of what is there; all that follows them is cut off.

    Attributes:
        path: Where.

    Raises:
        EverlearnError: If the file cannot be opened.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self._waiting = b""
        self._warned = False
        with writing(path):
            goes_on = keep > 0 and path.is_file()
            self._file = path.open("r+b" if goes_on else "wb", buffering=0)
            self._kept = min(keep, self._file.seek(0, os.SEEK_END)) if goes_on else 0
            if goes_on:
                self._file.truncate(self._kept)
                self._file.seek(self._kept)

    @property
    def size(self) -> int:
        """Bytes that it has once everything is written."""
        return self._kept + len(self._waiting)

    def write(self, text: str) -> int:
        """Write, and return the number of characters."""
        self._waiting += text.encode()
        try:
            self._write_waiting()
        except OSError as error:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "%s: it cannot be written (%s). Its lines are kept in memory and tried again with each new one; "
                    "see to free space.",
                    self.path,
                    error.strerror or error,
                )
        return len(text)

    def close(self) -> None:
        """Write what is waiting and close the file.

        Raises:
            EverlearnError: If lines were waiting and cannot be written even now; they are lost.
        """
        with writing(self.path):
            try:
                self._write_waiting()
            finally:
                self._file.close()

    def _write_waiting(self) -> None:
        while self._waiting:
            written = self._file.write(self._waiting)
            self._waiting, self._kept = self._waiting[written:], self._kept + written


def write_text(path: Path, text: str) -> None:
    """Write a whole file, so that at every moment ``path`` leads to the file before or to the new one.

    Raises:
        SaveError: If it cannot be written.
    """
    write_file(path, [text.encode()])
