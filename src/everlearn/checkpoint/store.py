"""The checkpoints of a run: one new file per step, the latest and the best found by looking, damaged ones set aside."""

from __future__ import annotations

import math
import operator
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.checkpoint.archive import Archive, pack, read_archive, read_manifest
from everlearn.checkpoint.errors import CheckpointError, Mismatch, NoValidCheckpoint, TooLarge, Unsupported
from everlearn.checkpoint.files import Buffer, reason_of, remove, set_aside, sweep, write_file
from everlearn.checkpoint.layout import short
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.retention import DEFAULT, Checkpoint, Retention, has_performance, rank
from everlearn.core.errors import ArgumentError

__all__ = ["Checkpoint", "CheckpointStore", "Found", "Retention", "has_performance", "rank"]

_NAME = re.compile(r"step-(\d{12,})\.zip")
_LISTINGS = 10
_FEWEST = 2
"""Whole files that are never deleted."""


@dataclass(frozen=True)
class Found:
    """A checkpoint that can be loaded.

    Args:
        checkpoint: Which.
        archive: Its content, verified.
        passed_over: Why better or later ones cannot be loaded.
        steps_lost: Steps by which it is earlier than the latest of these.
    """

    checkpoint: Checkpoint
    archive: Archive
    passed_over: tuple[str, ...]
    steps_lost: int


class _Changed(Exception):  # noqa: N818 - it is no error
    """A file is gone that was listed, or can be read that could not be: everything is looked at again."""


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
        retention: Retention = DEFAULT,
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

        One of the same step is replaced. A file that cannot be deleted stays, with a warning, until the next time.

        Args:
            step: Environment steps so far.
            members: Content by name.
            about: What its manifest says besides step and performance.
            performance: Higher is better; None, or a number that is not finite, is never the best.

        Raises:
            ArgumentError: If the step is no whole number from 0 on.
            SaveError: If it cannot be written; every earlier one is untouched.
        """
        checkpoint = Checkpoint(_whole_number(step), self.path_of(step), _finite(performance))
        more = {"step": checkpoint.step, "performance": checkpoint.performance}
        write_file(checkpoint.path, pack(members, {**about, **more}))
        try:
            self._whole.add(_identity(checkpoint.path))
            self.prune()
        except OSError as error:  # no failure to save, which is done
            problem = f"{self.directory}: it cannot be looked through for checkpoints that need not stay"
            warnings.warn(f"{problem} ({reason_of(error)}); {checkpoint.path.name} is saved.", stacklevel=2)
        return checkpoint

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.directory / f"step-{step:012d}.zip"

    def sweep(self) -> list[Path]:
        """Remove what processes that were killed have left half-written. For the one that writes."""
        return sweep(self.directory)

    def checkpoints(self) -> list[Checkpoint]:
        """All files by rising step; of one whose manifest cannot be read the performance is not known."""
        return [self._listed(step, path) for step, path in sorted(self._files())]

    def latest(self) -> Found:
        """The latest that can be loaded. Damaged ones on the way are set aside as ``*.corrupt``, with a warning.

        Raises:
            NoValidCheckpoint: If none can, with every reason.
        """
        return self._first(lambda: self.checkpoints()[::-1])

    def best(self) -> Found:
        """The one with the highest performance that can be loaded; damaged ones as for ``latest``.

        One whose manifest cannot be read may have been the best, and is named.

        Raises:
            NoValidCheckpoint: If none can, or none has a performance.
        """
        return self._first(lambda: _best_first(self.checkpoints()))

    def prune(self) -> list[Path]:
        """Delete what need not stay; the two latest whole files always do, and so do the best that are whole.

        Returns:
            What is deleted.
        """
        checkpoints = self.checkpoints()
        kept = self._retention.kept(checkpoints)
        doomed = [each.path for each in checkpoints if each.path not in kept and not self._referred(each.path)]
        safe = self._latest_whole(checkpoints) | self._best_whole(checkpoints) if doomed else set()
        return [path for path in doomed if path not in safe and _is_deleted(path)]

    def _latest_whole(self, checkpoints: Sequence[Checkpoint]) -> set[Path]:
        """The two latest files that can be loaded."""
        whole: set[Path] = set()
        for checkpoint in reversed(checkpoints):
            if self._is_whole(checkpoint):
                whole.add(checkpoint.path)
            if len(whole) == _FEWEST:
                break
        return whole

    def _best_whole(self, checkpoints: Sequence[Checkpoint]) -> set[Path]:
        """The best files that can be loaded: a damaged one does not take the place of the next."""
        best = self._retention.best(checkpoints)
        while damaged := [checkpoint for checkpoint in best if not self._is_whole(checkpoint)]:
            checkpoints = [checkpoint for checkpoint in checkpoints if checkpoint not in damaged]
            best = self._retention.best(checkpoints)
        return {checkpoint.path for checkpoint in best}

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Whether a file can be loaded; one is read once only."""
        try:
            identity = _identity(checkpoint.path)
            if identity not in self._whole:
                self._read(checkpoint)
                self._whole.add(identity)
        except (CheckpointError, OSError):
            return False
        return True

    def _first(self, candidates: Callable[[], Sequence[Checkpoint]]) -> Found:
        """The first that can be loaded; looked for anew where the one that writes has deleted what was just listed."""
        skipped: list[Checkpoint] = []
        reasons: list[str] = []
        for _ in range(_LISTINGS):
            try:
                found = self._walk([each for each in candidates() if each not in skipped], skipped, reasons)
            except _Changed:
                continue
            if found is not None:
                return found
            break
        if not reasons and self.checkpoints():
            reasons.append("None of its checkpoints has a performance, so that none is the best.")
        raise NoValidCheckpoint(self.directory, reasons)

    def _walk(self, candidates: Sequence[Checkpoint], skipped: list[Checkpoint], reasons: list[str]) -> Found | None:
        """The first that can be loaded; those before it join the skipped ones."""
        for checkpoint in candidates:
            try:
                archive = self._read(checkpoint)
            except (CheckpointError, OSError) as error:
                if isinstance(error, FileNotFoundError) and not checkpoint.path.is_symlink():
                    raise _Changed from error
                skipped.append(checkpoint)
                reasons.append(self._reason(checkpoint.path, error))
            else:
                if not checkpoint.known:
                    raise _Changed
                return self._found(checkpoint, archive, skipped, reasons)
        return None

    def _read(self, checkpoint: Checkpoint) -> Archive:
        """The content of a file, which has to be of the step that its name says."""
        archive = read_archive(checkpoint.path, limits=self._limits)
        if archive.manifest.get("step") != checkpoint.step:
            said = short(archive.manifest.get("step"))
            raise Mismatch(checkpoint.path, f"it is of step {said}, which is not what its name says.", "Rename it.")
        return archive

    def _found(
        self, checkpoint: Checkpoint, archive: Archive, skipped: Sequence[Checkpoint], reasons: Sequence[str]
    ) -> Found:
        lost = max([0, *(each.step - checkpoint.step for each in skipped)])
        if reasons:
            listed = "".join(f"\n  {reason}" for reason in reasons)
            earlier = f", {lost} steps earlier than it could be" if lost else ""
            warnings.warn(f"{checkpoint.path} is used{earlier}; passed over:{listed}", stacklevel=5)
        return Found(checkpoint, archive, tuple(reasons), lost)

    def _reason(self, path: Path, error: CheckpointError | OSError) -> str:
        """Why a file is passed over, and what became of it."""
        if isinstance(error, OSError):
            return f"{path}: it cannot be read ({reason_of(error)})."
        return f"{error}{self._set_aside(path, error)}"

    def _set_aside(self, path: Path, error: CheckpointError) -> str:
        """Move a damaged file out of the way; one that is too large, misnamed, or of a later version, is none."""
        if isinstance(error, TooLarge | Mismatch) or (isinstance(error, Unsupported) and error.member is not None):
            return ""
        try:
            return f" It is kept as {set_aside(path)}."
        except OSError as refusal:
            return f" It could not be set aside ({reason_of(refusal)})."

    def _files(self) -> list[tuple[int, Path]]:
        if not self.directory.is_dir():
            return []
        named = [(_NAME.fullmatch(path.name), path) for path in self.directory.iterdir()]
        return [(int(name[1]), path) for name, path in named if name]

    def _listed(self, step: int, path: Path) -> Checkpoint:
        try:
            performance = read_manifest(path, limits=self._limits).get("performance")
        except (CheckpointError, OSError):
            return Checkpoint(step, path, known=False)
        return Checkpoint(step, path, _finite(performance) if type(performance) in (int, float) else None)


def _best_first(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those that could not be asked, and then those with a performance, the highest first."""
    unknown = [checkpoint for checkpoint in checkpoints if not checkpoint.known]
    return unknown + sorted(filter(has_performance, checkpoints), key=rank, reverse=True)


def _identity(path: Path) -> tuple[str, int, int]:
    """What changes when a file is written anew."""
    status = os.stat(path)
    return (path.name, status.st_size, status.st_mtime_ns)


def _is_deleted(path: Path) -> bool:
    """Delete a file that need not stay. What was saved is durable, so that a refusal here is no failure to save."""
    try:
        remove(path, "prune:remove")
    except OSError as error:
        warnings.warn(
            f"{path}: this checkpoint need not stay, but cannot be deleted ({reason_of(error)}).", stacklevel=4
        )
        return False
    return True


def _whole_number(step: int) -> int:
    if isinstance(step, bool) or not hasattr(step, "__index__") or operator.index(step) < 0:
        raise ArgumentError(f"step={step!r}: give a whole number of steps from 0 on.")
    return operator.index(step)


def _finite(performance: float | None) -> float | None:
    try:
        return float(performance) if performance is not None and math.isfinite(performance) else None
    except OverflowError:  # a whole number beyond all floats
        return None
