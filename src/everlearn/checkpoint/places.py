"""Where a file is: a path under Stable-Baselines3's rules for suffixes, or an open binary file."""

from __future__ import annotations

import errno
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import Buffer, is_directory, mode_at, write_file
from everlearn.core.errors import ArgumentError

SUFFIX = ".zip"
Place = str | Path | io.BufferedIOBase
_NAMELESS = ("", "..")
"""The last part of a path that leads to a directory wherever it is, as ``.`` and ``/`` do."""


def write_to(place: Place, chunks: Iterable[Buffer]) -> None:
    """Write a whole file, so that at every moment a path leads to the file before or to the whole new one.

    Args:
        place: A path, which gets the suffix ``.zip`` if it has none; a link stays, and what it leads to is written;
            for a directory a neighbour ``NAME_2`` is written, with a warning. Or an open binary file, which is written
            from where it stands.
        chunks: The content.

    Raises:
        ArgumentError: If a path is a directory without a name of its own, as ``.`` is.
        SaveError: If a path cannot be written; what was there is untouched.
        TypeError: If ``place`` is neither.
        ValueError: If the open file is closed or not for writing.
    """
    if isinstance(place, str | Path):
        write_file(_to_write(Path(place)), chunks)
        return
    _require_open(place, "writable")
    for chunk in chunks:
        place.write(chunk)


def source_at(place: Place) -> Path | io.BufferedIOBase:
    """Where to read from: the path, or the path with ``.zip`` if only that is there; or the open file.

    Raises:
        TypeError: If ``place`` is neither.
        ValueError: If the open file is closed or not for reading.
    """
    if isinstance(place, str | Path):
        return read_path(Path(place))
    _require_open(place, "readable")
    return place


def read_path(path: Path) -> Path:
    """Where a file is read that is given as ``path``: there, or with the suffix ``.zip`` if only that is there."""
    with_suffix = Path(f"{path}{SUFFIX}")
    return path if mode_at(path) or not mode_at(with_suffix) else with_suffix


def written_path(path: Path) -> Path:
    """Where a file is written that is to be saved as ``path``: with the suffix ``.zip`` if it has none.

    A directory without a name of its own, as ``.`` is, stays what it is.
    """
    return path if path.suffix or path.name in _NAMELESS else Path(f"{path}{SUFFIX}")


def _to_write(path: Path) -> Path:
    path = written_path(path)
    if not is_directory(path):
        return _behind_links(path)
    if path.name in _NAMELESS:
        raise ArgumentError(f"'{path}' is a folder, and a file needs a name. Name a file in it.")
    warnings.warn(f"'{path}' is a folder; the file becomes {path}_2.", stacklevel=4)
    return Path(f"{path}_2{SUFFIX}")


def _behind_links(path: Path) -> Path:
    """The path, or what it leads to if it is a link."""
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path
    if os.path.islink(target):
        raise SaveError(path, os.strerror(errno.ELOOP))
    return target


def _require_open(file: io.BufferedIOBase, ability: str) -> None:
    if not hasattr(file, ability):
        raise TypeError(f"{file!r} is neither a path nor an open binary file. Give one of these.")
    if file.closed or not getattr(file, ability)():
        raise ValueError(f"The file {file!r} is closed or not {ability}. Open it for that, in binary mode.")
