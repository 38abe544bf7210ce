"""Agents from the model files and checkpoints of runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

from everlearn.checkpoint.archive import read_archive
from everlearn.checkpoint.errors import (
    CheckpointError,
    Corrupt,
    NoValidCheckpoint,
    Truncated,
    Unsupported,
    Untrusted,
)
from everlearn.checkpoint.files import is_directory, open_file, reason_of, set_aside
from everlearn.checkpoint.places import read_path
from everlearn.checkpoint.store import CheckpointStore
from everlearn.core.errors import ConfigError, StateError
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.model_file import read_model_file
from everlearn.runs.checkpointing import checkpoint_store
from everlearn.runs.directory import RunDirectory
from everlearn.runs.names import algorithms

Which = Literal["best", "latest"]


def model_file(directory: RunDirectory, which: str) -> Path:
    """The file of a run's agent, one that can be loaded.

    Rows 1, 2, 15 and 18 of the failure modes: of a run that goes on or was killed the latest is its newest whole
    checkpoint, with a warning; a damaged file is set aside as ``*.corrupt`` and the newest checkpoint taken.

    Args:
        directory: Of the run.
        which: ``"latest"`` or ``"best"``.

    Raises:
        ConfigError: If there is none, saying why and what to do.
        CheckpointError: If all that there is is damaged.
        StateError: If the model file cannot be read.
    """
    store = checkpoint_store(directory)
    if which == "best":
        return _best(store)
    if which != "latest":
        raise ConfigError(f"which={which!r}: there are 'best' and 'latest'.")
    if not directory.model.is_file():
        return _of_a_run_without_end(directory, store)
    try:
        read_archive(existing(directory.model))
    except (Corrupt, Truncated, Unsupported) as error:
        return _instead_of(directory.model, error, store)
    except Untrusted as error:
        if whole := [each for each in store.checkpoints() if each.known]:
            error.add_note(f"The run's newest checkpoint is {whole[-1].path}: name that, or move {error.file} away.")
        raise
    return directory.model


def model_at(path: Path, which: Which = "latest") -> Path:
    """The file of a model: the one that a path names, or that of a run's agent.

    Raises:
        ConfigError: If there is none.
        CheckpointError: If all that a run has is damaged.
        StateError: If it cannot be read.
    """
    return model_file(RunDirectory(path), which) if is_directory(path) else existing(path)


def loaded_agent(model: Path, device: str) -> PPO:
    """The agent in a model file.

    Raises:
        ConfigError: If there is no such file.
        CheckpointError: If it is no model of ours, or it is damaged.
        StateError: If it cannot be read.
    """
    return class_of(model).load(model, device=device)


def class_of(model: Path) -> type[PPO]:
    """The class of the agent in a model file, by the name that its manifest says.

    Raises:
        ConfigError: If there is no such file.
        CheckpointError: If it is no model of ours, or it is damaged.
        StateError: If it cannot be read.
    """
    name = str(read_model_file(existing(model)).manifest.get("algorithm"))
    if name not in algorithms:
        known = " or ".join(algorithms)
        raise Unsupported(model, f"it holds a {name!r}.", f"Load it from Python with that class, or name a {known}.")
    return algorithms[name]


def existing(model: Path) -> Path:
    """The path of a file that can be read; its suffix ``.zip`` may be left out.

    Raises:
        ConfigError: If there is none.
        StateError: If it cannot be read.
    """
    path = read_path(model)
    try:
        with open_file(path):
            return path
    except FileNotFoundError as error:
        raise ConfigError(f"{model}: there is no such model. Name a run's directory or a model file.") from error
    except OSError as error:
        raise StateError(
            f"{model}: it cannot be read ({reason_of(error)}). See to its name and permissions."
        ) from error


def _best(store: CheckpointStore) -> Path:
    earlier = _set_aside_in(store.directory)
    try:
        return store.best().checkpoint.path
    except NoValidCheckpoint as error:
        if error.reasons or earlier:
            raise NoValidCheckpoint(store.directory, [*error.reasons, *earlier]) from error
        raise ConfigError(
            f"{store.directory}: there is no checkpoint with a score. Train with evaluation: {{every: N}}, or "
            "checkpoint: {every: N} with episodes that end, to have one."
        ) from error


def _of_a_run_without_end(directory: RunDirectory, store: CheckpointStore) -> Path:
    aside = sorted(directory.path.glob(f"{directory.model.name}.corrupt*"))
    if not aside and not directory.config.is_file():
        raise ConfigError(f"{directory.model}: there is no such model. Name a run's directory or a model file.")
    earlier = [*_set_aside_in(directory.path), *_set_aside_in(store.directory)]
    try:
        checkpoint = store.latest().checkpoint
    except NoValidCheckpoint as error:
        if error.reasons or earlier:
            raise NoValidCheckpoint(directory.path, [*error.reasons, *earlier]) from error
        raise ConfigError(
            f"{directory.model}: there is none, and no checkpoint. The run goes on still, or it was killed before the "
            f"first. Train again: everlearn train {directory.config} --out DIR."
        ) from error
    why = f"it was damaged and is kept as {aside[-1]}" if aside else "the run goes on still, or it was killed"
    warnings.warn(
        f"{directory.path} has no model.zip: {why}. Its checkpoint of step {checkpoint.step} is used.", stacklevel=4
    )
    return checkpoint.path


def _instead_of(model: Path, damage: CheckpointError, store: CheckpointStore) -> Path:
    """The newest checkpoint in place of a damaged model, which is set aside; a newer version's is not damaged."""
    if isinstance(damage, Unsupported) and damage.member is not None:
        raise damage
    earlier = _set_aside_in(store.directory)
    try:
        checkpoint = store.latest().checkpoint
    except NoValidCheckpoint as error:
        if error.reasons or earlier:
            raise NoValidCheckpoint(model.parent, [str(damage), *error.reasons, *earlier]) from error
        raise damage from error
    warnings.warn(
        f"{damage} {_kept(model)} The checkpoint of step {checkpoint.step} is used.",
        stacklevel=4,
    )
    return checkpoint.path


def _set_aside_in(directory: Path) -> list[str]:
    """What is to be said of files that were found damaged before."""
    return [f"{path}: it was damaged and is set aside." for path in sorted(directory.glob("*.corrupt*"))]


def _kept(model: Path) -> str:
    try:
        return f"It is kept as {set_aside(model)}."
    except OSError as error:
        return f"It could not be set aside ({reason_of(error)})."
