"""The checkpoints of a run: one new file per step, the latest and the best found by looking, damaged ones set aside."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.checkpoint.archive import Archive, pack, read_archive, read_manifest
from everlearn.checkpoint.errors import CheckpointError, NoValidCheckpoint, TooLarge, Unsupported
from everlearn.checkpoint.files import Buffer, remove, set_aside, sweep, write_file
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.core.errors import ArgumentError

_NAME = re.compile(r"step-(\d{12,})\.zip")
_FEWEST = 2
"""Whole files that are never deleted."""


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay when a new one is written.

    Args:
        keep_last: The newest so many.
        keep_best: So many with the highest performance.
        keep_every: The first at or after each multiple of so many steps; None for none.
    """

    keep_last: int = 3
    keep_best: int = 1
    keep_every: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (("keep_last", 1), ("keep_best", 0), ("keep_every", 1)):
            value = getattr(self, name)
            if not (name == "keep_every" and value is None) and not (type(value) is int and value >= lowest):
                raise ArgumentError(f"{name}={value!r}: give a whole number from {lowest} on.")

    def kept(self, checkpoints: Sequence[Checkpoint]) -> set[Path]:
        """Those that stay.

        Args:
            checkpoints: All, by rising step.
        """
        last = checkpoints[-self.keep_last :]
        best = sorted(filter(has_performance, checkpoints), key=rank)[-self.keep_best :] if self.keep_best else []
        first: dict[int, Checkpoint] = {}
        for checkpoint in checkpoints if self.keep_every else ():
            first.setdefault(checkpoint.step // (self.keep_every or 1), checkpoint)
        first.pop(0, None)
        return {checkpoint.path for checkpoint in (*last, *best, *first.values())}


@dataclass(frozen=True)
class Checkpoint:
    """A file of a store.

    Args:
        step: Environment steps before it was written.
        path: Where it is.
        performance: What the agent was worth then, higher is better; None if nobody looked.
    """

    step: int
    path: Path
    performance: float | None = None


@dataclass(frozen=True)
class Found:
    """A checkpoint that can be loaded.

    Args:
        checkpoint: Which.
        archive: Its content, verified.
        passed_over: Why better or later ones cannot be loaded.
        steps_lost: Steps by which it is earlier than the latest of all.
    """

    checkpoint: Checkpoint
    archive: Archive
    passed_over: tuple[str, ...]
    steps_lost: int


def has_performance(checkpoint: Checkpoint) -> bool:
    """Whether somebody looked, and found a number."""
    return checkpoint.performance is not None and math.isfinite(checkpoint.performance)


def rank(checkpoint: Checkpoint) -> tuple[float, int]:
    """Higher is better; of equals the later one."""
    return (-math.inf if checkpoint.performance is None else checkpoint.performance, checkpoint.step)


class CheckpointStore:
    """The checkpoints in a directory. One process writes, any number may read.

    Args:
        directory: Where; made with the first file.
        retention: Which files stay.
        referred: Whether somebody else still needs a file, which then stays.
        limits: How much a file may ask for.
    """

    def __init__(
        self,
        directory: Path,
        retention: Retention = Retention(),
        referred: Callable[[Path], bool] = lambda path: False,
        limits: Limits = LIMITS,
    ) -> None:
        self.directory = directory
        self._retention, self._referred, self._limits = retention, referred, limits
        self._whole: set[tuple[str, int, int]] = set()

    def save(
        self, step: int, members: Mapping[str, Buffer], about: Mapping[str, Any], performance: float | None = None
    ) -> Checkpoint:
        """Write a checkpoint, and once it is durable delete those that need not stay.

        Args:
            step: Environment steps so far.
            members: Content by name.
            about: What its manifest says besides step and performance.
            performance: Higher is better; None, or a number that is not finite, is never the best.

        Raises:
            SaveError: If it cannot be written; every earlier one is untouched.
        """
        known = performance is not None and math.isfinite(performance)
        checkpoint = Checkpoint(
            step, self.path_of(step), float(performance) if known and performance is not None else None
        )
        write_file(checkpoint.path, pack(members, {**about, "step": step, "performance": checkpoint.performance}))
        self._whole.add(_identity(checkpoint.path))
        self.prune()
        return checkpoint

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.directory / f"step-{step:012d}.zip"

    def sweep(self) -> list[Path]:
        """Remove what processes that were killed have left half-written. For the one that writes."""
        return sweep(self.directory)

    def checkpoints(self) -> list[Checkpoint]:
        """All files by rising step; of one whose manifest cannot be read the performance is None."""
        return [Checkpoint(step, path, self._performance(path)) for step, path in sorted(self._files())]

    def latest(self) -> Found:
        """The latest that can be loaded. Damaged ones on the way are set aside as ``*.corrupt``, with a warning.

        Raises:
            NoValidCheckpoint: If none can, with every reason.
        """
        return self._first(reversed(self.checkpoints()))

    def best(self) -> Found:
        """The one with the highest performance that can be loaded; damaged ones as for ``latest``.

        Raises:
            NoValidCheckpoint: If none can, or none has a performance.
        """
        return self._first(sorted(filter(has_performance, self.checkpoints()), key=rank, reverse=True))

    def prune(self) -> list[Path]:
        """Delete what need not stay; the two latest whole files always do."""
        checkpoints = self.checkpoints()
        kept = self._retention.kept(checkpoints)
        doomed = [each.path for each in checkpoints if each.path not in kept and not self._referred(each.path)]
        safe = self._latest_whole(checkpoints) if doomed else set()
        deleted = [path for path in doomed if path not in safe]
        for path in deleted:
            remove(path, "prune:remove")
        return deleted

    def _latest_whole(self, checkpoints: Sequence[Checkpoint]) -> set[Path]:
        """The two latest files that can be loaded."""
        whole: set[Path] = set()
        for checkpoint in reversed(checkpoints):
            if self._is_whole(checkpoint.path):
                whole.add(checkpoint.path)
            if len(whole) == _FEWEST:
                break
        return whole

    def _is_whole(self, path: Path) -> bool:
        """Whether a file can be loaded; one is read once only."""
        try:
            identity = _identity(path)
            if identity not in self._whole:
                read_archive(path, limits=self._limits)
                self._whole.add(identity)
        except (CheckpointError, OSError):
            return False
        return True

    def _first(self, candidates: Iterable[Checkpoint]) -> Found:
        reasons: list[str] = []
        for checkpoint in candidates:
            try:
                archive = read_archive(checkpoint.path, limits=self._limits)
            except OSError as error:
                reasons.append(f"{checkpoint.path}: it cannot be read ({error.strerror or error}).")
            except CheckpointError as error:
                reasons.append(f"{error}{self._set_aside(checkpoint.path, error)}")
            else:
                return self._found(checkpoint, archive, reasons)
        raise NoValidCheckpoint(self.directory, reasons)

    def _found(self, checkpoint: Checkpoint, archive: Archive, reasons: Sequence[str]) -> Found:
        steps = [step for step, _ in self._files(quarantined=True)]
        lost = max([0, *(step - checkpoint.step for step in steps)]) if reasons else 0
        if reasons:
            listed = "".join(f"\n  {reason}" for reason in reasons)
            warnings.warn(
                f"{checkpoint.path} is used, {lost} steps earlier than the latest; passed over:{listed}", stacklevel=4
            )
        return Found(checkpoint, archive, tuple(reasons), lost)

    def _set_aside(self, path: Path, error: CheckpointError) -> str:
        """Move a damaged file out of the way; one that is too large, or of a later version, is none."""
        if isinstance(error, TooLarge) or (isinstance(error, Unsupported) and error.member is not None):
            return ""
        try:
            return f" It is kept as {set_aside(path)}."
        except OSError as refusal:
            return f" It could not be set aside ({refusal.strerror or refusal})."

    def _files(self, *, quarantined: bool = False) -> list[tuple[int, Path]]:
        if not self.directory.is_dir():
            return []
        named = [(_NAME.match(path.name), path) for path in self.directory.iterdir()]
        return [(int(name[1]), path) for name, path in named if name and (quarantined or name[0] == path.name)]

    def _performance(self, path: Path) -> float | None:
        try:
            performance = read_manifest(path, limits=self._limits).get("performance")
        except (CheckpointError, OSError):
            return None
        return float(performance) if isinstance(performance, int | float) else None


def _identity(path: Path) -> tuple[str, int, int]:
    """What changes when a file is written anew."""
    status = os.stat(path)
    return (path.name, status.st_size, status.st_mtime_ns)
