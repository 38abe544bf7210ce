"""The directory of a run: which files it owns, and how one is claimed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from everlearn.config import HEADER
from everlearn.core.errors import ConfigError
from everlearn.runs.writing import unfinished, writing


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
    def best_model(self) -> Path:
        """The agent that did best in the evaluations of the training."""
        return self.path / "best_model.zip"

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

    def is_run(self) -> bool:
        """Whether a run has left its configuration here."""
        return self.config.is_file() and self.config.read_bytes().startswith(HEADER.encode())

    def owned(self) -> list[Path]:
        """The files that exist and are the run's own."""
        files = [
            self.config,
            self.model,
            self.best_model,
            unfinished(self.model),
            unfinished(self.best_model),
            self.summary,
            self.evaluations,
            self.progress_jsonl,
            self.progress_csv,
            self.episodes,
            self.learning_curve,
            *self.tensorboard.glob("events.out.tfevents.*"),
        ]
        return [file for file in files if file.is_file()]


def claim(path: Path, *, overwrite: bool) -> RunDirectory:
    """The directory at ``path``, made if it is missing, and without the files of an earlier run.

    Args:
        path: Where to.
        overwrite: Remove an earlier run's files; anything else in the directory stays.

    Raises:
        ConfigError: If something is there and ``overwrite`` is off, or it is not a run; or it cannot be made.
    """
    directory = RunDirectory(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path}: this is a file. Name a directory (out in Python).")
    with writing(path):
        if path.is_dir() and any(path.iterdir()):
            _clear(directory, overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(path, error) from error
    return directory


def claim_next(parent: Path, name: str) -> RunDirectory:
    """A new directory ``parent/name-n`` with the first number that is free.

    Raises:
        ConfigError: If it cannot be made.
    """
    for number in count(1):
        path = parent / f"{name.replace('/', '-')}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_be_made(path, error) from error
        return RunDirectory(path)
    raise AssertionError("there is always a free number")


def _cannot_be_made(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--out {path}: the directory cannot be made ({error.strerror}). "
        "Name one in a place that you may write to (out in Python)."
    )


def _clear(directory: RunDirectory, overwrite: bool) -> None:
    if not overwrite:
        raise ConfigError(
            f"--out {directory.path} is not empty. Choose another directory, or add --overwrite "
            "(in Python another out, or overwrite=True)."
        )
    if not directory.is_run():
        raise ConfigError(
            f"--out {directory.path} holds other files and no run, so it is not overwritten. Choose another directory "
            "(another out in Python)."
        )
    for file in directory.owned():
        file.unlink()
