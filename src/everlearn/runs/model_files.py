"""Agents from the model files of runs."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import torch

from everlearn.core.errors import ConfigError, EverlearnError, StateError
from everlearn.ppo.algorithm import PPO
from everlearn.runs.directory import RunDirectory
from everlearn.runs.names import algorithms

Which = Literal["best", "latest"]

# torch raises it and has no name of its own for it; no module here imports an unpickler, not even for a name.
_NotPlainData: type[Exception] = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]

_DAMAGE = (
    zipfile.BadZipFile,  # the archive, where it is read before SB3 reads it
    zlib.error,
    EOFError,  # an empty part
    _NotPlainData,  # a part that holds something else
    LookupError,  # a part or an attribute that is missing
    RuntimeError,  # torch's word for a part that is cut off
    ValueError,  # SB3's for an archive that is none, and for parts that do not fit
)


def model_file(directory: RunDirectory, which: str) -> Path:
    """The model file of a run.

    Args:
        directory: Of the run.
        which: ``"latest"`` or ``"best"``.

    Raises:
        ConfigError: If there is none, saying why and what there is instead.
    """
    models = {"latest": directory.model, "best": directory.best_model}
    if which not in models:
        raise ConfigError(f"which={which!r}: there are 'best' and 'latest'.")
    if models[which].is_file():
        return models[which]
    if which == "best":
        raise ConfigError(f"{models[which]}: there is no best model. Train with evaluation: {{every: N}} to keep one.")
    if not directory.config.is_file():
        raise ConfigError(f"{models[which]}: there is no such model. Name a run's directory or a model file.")
    remedy = (
        f"The best agent of its evaluations is in {directory.best_model}."
        if directory.best_model.is_file()
        else f"Train again: everlearn train {directory.config} --out DIR."
    )
    raise ConfigError(
        f"{models[which]}: there is none. The run goes on still, or it was killed before its agent was saved. {remedy}"
    )


def loaded_agent(model: Path, device: str) -> PPO:
    """The agent in a model file.

    Raises:
        ConfigError: If there is no such file.
        StateError: If it is no model of ours, or it is damaged.
    """
    kind = class_of(model)
    try:
        _check_sums(model)
        return kind.load(model, device=device)
    except (EverlearnError, torch.OutOfMemoryError) as error:
        if isinstance(error, StateError):
            error.add_note(f"This happened while {model} was loaded.")
        raise
    except _DAMAGE as error:
        raise StateError(
            f"{model}: it cannot be loaded, so it is damaged or was changed ({type(error).__name__}: {error}). "
            f"{_instead_of(model)}"
        ) from error


def _check_sums(model: Path) -> None:
    """Compare every part with its checksum, which torch, reading here and there, would not."""
    with zipfile.ZipFile(model) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"bad CRC-32 for file {damaged!r}")


def class_of(model: Path) -> type[PPO]:
    """The class of the agent in a model file, by the name that the class has left there.

    Raises:
        ConfigError: If there is no such file.
        StateError: If no class of ours has saved it.
    """
    if not model.is_file():
        raise ConfigError(f"{model}: there is no such model. Name a run's directory or a model file.")
    name = _saved_name(model)
    if not isinstance(name, str):
        raise StateError(
            f"{model}: this is no model of everlearn's PPO, or it is damaged. Name one that a run has saved."
        )
    return algorithms[name]


def _saved_name(model: Path) -> Any:
    """``algorithm_name`` among the plain data of a model file; None if it has none, or is no model file."""
    try:
        with zipfile.ZipFile(model) as archive:
            data = json.loads(archive.read("data"))
    except OSError as error:
        raise StateError(f"{model}: it cannot be read ({error.strerror or error}). See to its permissions.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError):
        return None
    return data.get("algorithm_name") if isinstance(data, dict) else None


def _instead_of(model: Path) -> str:
    """What to do about a damaged file."""
    directory = RunDirectory(model.parent)
    others = [file for file in (directory.model, directory.best_model) if file.is_file() and file != model]
    another = f", or use {others[0]}" if model in (directory.model, directory.best_model) and others else ""
    return f"Restore it from a copy{another}."
