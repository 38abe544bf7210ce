"""Operations on files that fail: the n-th one, with an error of the system's, and what is left afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from everlearn.checkpoint.files import observed

ERRORS = [errno.EIO, errno.ENOSPC, errno.EDQUOT]
PIECE = 700
"""Bytes of one write, so that a file takes several."""


def operations_of(act: Callable[[], object]) -> list[str]:
    """The names of all operations on files."""
    names: list[str] = []

    def note(name: str, path: Path) -> int:
        names.append(name)
        return PIECE

    with observed(note):
        act()
    return names


class FailsAt:
    """A hook that lets one operation fail.

    Args:
        number: Which, from 0 on.
        code: With what.
    """

    def __init__(self, number: int, code: int) -> None:
        self.left, self.code, self.failed = number, code, ""

    def __call__(self, name: str, path: Path) -> int:
        self.left -= 1
        if self.left == -1:
            self.failed = name
            raise OSError(self.code, os.strerror(self.code), str(path))
        return PIECE


def open_descriptors() -> set[str]:
    """The files that this process has open."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("this system does not list open files")
    return {os.readlink(link) for link in folder.iterdir() if link.is_symlink()}
