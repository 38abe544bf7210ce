"""The directory of a run: which files it owns, and how one is claimed, by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from everlearn.checkpoint.files import DRAFT, is_directory, mode_at, sweep
from everlearn.checkpoint.lock import HOLDER, LOCK, RunLock
from everlearn.config import HEADER
from everlearn.core.errors import ConfigError
from everlearn.runs.writing import writing

PICTURES = ("lineage", "schedules", "scores")
"""Of a population."""


@dataclass(frozen=True)
class RunDirectory:
    """Where a run keeps what it makes.

    Attributes:
        path: The directory.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """The trained agent."""
        return self.path / "model.zip"

    @property
    def checkpoints(self) -> Path:
        """The directory of the agents on the way, one file per step."""
        return self.path / "checkpoints"

    @property
    def summary(self) -> Path:
        """What was learned, as one JSON object."""
        return self.path / "summary.json"

    @property
    def evaluations(self) -> Path:
        """One line per evaluation of the training."""
        return self.path / "evaluations.csv"

    @property
    def progress_jsonl(self) -> Path:
        """Metrics, one JSON object per record."""
        return self.path / "progress.jsonl"

    @property
    def progress_csv(self) -> Path:
        """The same metrics as a table."""
        return self.path / "progress.csv"

    @property
    def tensorboard(self) -> Path:
        """The same metrics for TensorBoard."""
        return self.path / "tb"

    @property
    def episodes(self) -> Path:
        """One line per finished episode."""
        return self.path / "episodes.csv"

    @property
    def learning_curve(self) -> Path:
        """The picture."""
        return self.path / "learning_curve.png"

    @property
    def population(self) -> Path:
        """The journal of a population."""
        return self.path / "population.sqlite"

    @property
    def members(self) -> Path:
        """The directory of the states of a population's members."""
        return self.path / "members"

    @property
    def workers_log(self) -> Path:
        """What the processes of a population have printed."""
        return self.path / "workers.log"

    @property
    def generations(self) -> Path:
        """One JSON object per generation of a population."""
        return self.path / "generations.jsonl"

    def picture(self, name: str) -> Path:
        """A picture of a population: ``lineage``, ``schedules`` or ``scores``."""
        return self.path / f"{name}.png"

    def is_run(self) -> bool:
        """Whether a run has left its configuration here."""
        return self.config.is_file() and self.config.read_bytes().startswith(HEADER.encode())

    def owned(self) -> list[Path]:
        """The files that exist and are the run's own, also what was set aside or left by a process that was killed."""
        files = [
            self.config,
            self.model,
            self.summary,
            self.evaluations,
            self.progress_jsonl,
            self.progress_csv,
            self.episodes,
            self.learning_curve,
            self.workers_log,
            self.generations,
            *map(self.picture, PICTURES),
            *self.path.glob(f"{self.population.name}*"),
            *self.members.glob("member-*"),
            *self.members.glob(f"{DRAFT}*"),
            *self.tensorboard.glob("*/events.out.tfevents.*"),
            *self.path.glob(f"{self.model.name}.corrupt*"),
            *self.path.glob(f"{DRAFT}*"),
            *self.checkpoints.glob("step-*.zip*"),
            *self.checkpoints.glob(f"{DRAFT}*"),
            *self.tensorboard.glob("events.out.tfevents.*"),
        ]
        return [file for file in files if file.is_file()]

    def foreign(self) -> list[Path]:
        """What is in the directory besides the lock and unfinished files, which processes that were killed leave."""
        ours = (LOCK, HOLDER)
        return [path for path in self.path.iterdir() if path.name not in ours and not path.name.startswith(DRAFT)]


@contextmanager
def claim(path: Path, *, overwrite: bool) -> Iterator[RunDirectory]:
    """The directory at ``path`` for this process alone, made if it is missing, without the files of an earlier run.

    Row 17 of the failure modes: nothing is removed before the lock is held.

    Args:
        path: Where to.
        overwrite: Remove an earlier run's files; anything else in the directory stays.

    Raises:
        ConfigError: If something is there and ``overwrite`` is off, or it is not a run, or a process is writing it;
            or it cannot be made.
    """
    directory = RunDirectory(path)
    if mode_at(path) and not is_directory(path):
        raise ConfigError(f"--out {path}: this is a file. Name a directory (out in Python).")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(path, error) from error
    with ExitStack() as stack:
        with writing(path):
            if directory.foreign() and not directory.is_run():
                raise _not_empty(path) if not overwrite else _no_run(path)
            stack.enter_context(RunLock(path))
            sweep(path)
            if directory.foreign():
                _clear(directory, overwrite)
        yield directory


@contextmanager
def claim_next(parent: Path, name: str) -> Iterator[RunDirectory]:
    """A new directory ``parent/name-n`` with the first number that is free, for this process alone.

    Raises:
        ConfigError: If it cannot be made.
    """
    path = _made_next(parent, name.replace("/", "-"))
    with ExitStack() as stack:
        with writing(path):
            stack.enter_context(RunLock(path))
        yield RunDirectory(path)


def _made_next(parent: Path, name: str) -> Path:
    for number in count(1):
        path = parent / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_be_made(path, error) from error
        return path
    raise AssertionError("there is always a free number")


def _cannot_be_made(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--out {path}: the directory cannot be made ({error.strerror}). "
        "Name one in a place that you may write to (out in Python)."
    )


def _not_empty(path: Path) -> ConfigError:
    return ConfigError(
        f"--out {path} is not empty. Choose another directory, or add --overwrite "
        "(in Python another out, or overwrite=True)."
    )


def _no_run(path: Path) -> ConfigError:
    return ConfigError(
        f"--out {path} holds other files and no run, so it is not overwritten. Choose another directory "
        "(another out in Python)."
    )


def _clear(directory: RunDirectory, overwrite: bool) -> None:
    if not overwrite:
        raise _not_empty(directory.path)
    if not directory.is_run():  # any more: somebody has been here before the lock was ours
        raise _no_run(directory.path)
    for file in directory.owned():
        if file != directory.config:
            file.unlink()
    inside = directory.tensorboard.glob("*/")
    for path in (directory.checkpoints, directory.members, *inside, directory.tensorboard):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
    directory.config.unlink()  # last: whoever is killed before has left what is a run still
