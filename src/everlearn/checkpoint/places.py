"""Where a file is: a path under Stable-Baselines3's rules for suffixes, or an open binary file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path

from everlearn.checkpoint.files import Buffer, write_file

SUFFIX = ".zip"
Place = str | Path | io.BufferedIOBase


def write_to(place: Place, chunks: Iterable[Buffer]) -> None:
    """Write a whole file, so that at every moment a path leads to the file before or to the whole new one.

    Args:
        place: A path, which gets the suffix ``.zip`` if it has none; a link stays, and what it leads to is written;
            for a directory a neighbour ``NAME_2`` is written, with a warning. Or an open binary file, which is written
            from where it stands.
        chunks: The content.

    Raises:
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
        path = Path(place)
        with_suffix = Path(f"{path}{SUFFIX}")
        return path if path.exists() or not with_suffix.exists() else with_suffix
    _require_open(place, "readable")
    return place


def _to_write(path: Path) -> Path:
    path = path if path.suffix else Path(f"{path}{SUFFIX}")
    if not path.is_dir():
        return path.resolve() if path.is_symlink() else path
    warnings.warn(f"'{path}' is a folder; the file becomes {path}_2.", stacklevel=4)
    return Path(f"{path}_2{SUFFIX}")


def _require_open(file: io.BufferedIOBase, ability: str) -> None:
    if not hasattr(file, ability):
        raise TypeError(f"{file!r} is neither a path nor an open binary file. Give one of these.")
    if file.closed or not getattr(file, ability)():
        raise ValueError(f"The file {file!r} is closed or not {ability}. Open it for that, in binary mode.")
