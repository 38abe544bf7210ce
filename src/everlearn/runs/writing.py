"""Writing the files of a run: what the system refuses becomes an error that names the file.

Errors of the system that arise in a user's environments, callbacks or plug-ins are not touched: their place matters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from everlearn.core.errors import EverlearnError
from everlearn.ppo.algorithm import PPO


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
    """A text file, written from its beginning, that has every line as soon as it is written.

    Args:
        path: Where.

    Raises:
        EverlearnError: If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file: TextIO = path.open("w", buffering=1, encoding="utf-8", newline="")

    def write(self, text: str) -> int:
        """Write, and return the number of characters."""
        with writing(self._path):
            return self._file.write(text)

    def close(self) -> None:
        """Close the file."""
        with writing(self._path):
            self._file.close()


def write_text(path: Path, text: str) -> None:
    """Write a whole file.

    Raises:
        EverlearnError: If it cannot be written.
    """
    with writing(path):
        path.write_text(text, encoding="utf-8")


def unfinished(path: Path) -> Path:
    """Where a model file is written before it replaces ``path``; a process that was killed may have left it."""
    return path.with_name(f"{path.stem}.unfinished.zip")


def save_agent(agent: PPO, path: Path) -> None:
    """Save an agent so that at every moment ``path`` is the file before, or the whole new one.

    Raises:
        EverlearnError: If it cannot be written.
        NonFiniteError: If a parameter is not finite; the file before stays.
    """
    draft = unfinished(path)
    with writing(path):
        try:
            agent.save(draft)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
