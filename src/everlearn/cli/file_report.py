"""What a file or a directory of checkpoints is, said without building or unpickling anything."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from everlearn.checkpoint.archive import Archive, read_archive
from everlearn.checkpoint.errors import CheckpointError, NoValidCheckpoint, Untrusted
from everlearn.checkpoint.files import open_file, reason_of
from everlearn.checkpoint.foreign import Kind, recognise, refusal
from everlearn.checkpoint.limits import LIMITS
from everlearn.checkpoint.places import read_path
from everlearn.checkpoint.sb3_report import inspect_sb3
from everlearn.checkpoint.store import CheckpointStore, has_performance, rank
from everlearn.checkpoint.tensor_header import forms_of
from everlearn.core.errors import ConfigError

ABOUT = (
    *("kind", "algorithm", "policy", "step", "performance", "created"),
    *("resume", "libraries", "runtime", "parent", "content_id"),
)
"""What a manifest says of a file."""
SHAPE = ("policy_class", "observation_space", "action_space")
_INFORMATION, _HYPERPARAMETERS, _CONFIG, _WEIGHTS = "data", "hyperparameters.json", "config.json", "policy.safetensors"
_IMPORTABLE = (Kind.SB3, Kind.TORCH)
_MODEL, _CHECKPOINTS = "model.zip", "checkpoints"


def file_report(path: Path) -> dict[str, Any]:
    """What a file is and holds, every bit of it verified; of a foreign one, what it is and what can be done.

    Args:
        path: The file; its suffix ``.zip`` may be left out.

    Returns:
        Plain data; ``format`` is None for a foreign file.

    Raises:
        ConfigError: If there is none, it is a pipe, or it cannot be read.
        CheckpointError: If it is damaged, or of no kind that could be used.
    """
    path = read_path(path)
    try:
        kind = recognise(path)
        return _foreign(path, kind) if kind in _IMPORTABLE else _own(read_archive(path), path)
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read ({reason_of(error)}). Name a file or a run.") from error


def directory_report(path: Path) -> dict[str, Any]:
    """The checkpoints of a run, or of a directory of checkpoints: each with its state, and which is used for what.

    Nothing is set aside. ``latest`` and ``best`` are None where there is none.

    Raises:
        ConfigError: If there is neither a model nor a checkpoint, nor any that was set aside.
    """
    model = path / _MODEL
    store = CheckpointStore(path / _CHECKPOINTS if (path / _CHECKPOINTS).is_dir() else path)
    listed = store.checkpoints()
    aside = sorted([*store.directory.glob("*.corrupt*"), *path.glob("*.corrupt*")])
    if not listed and not aside and not model.is_file():
        raise ConfigError(f"{path}: there is neither a model.zip nor a checkpoint. Name a file or a run's directory.")
    rows = [{"step": each.step, "performance": each.performance, **_state(each.path)} for each in listed]
    whole = [each for each, row in zip(listed, rows, strict=True) if row["damage"] is None]
    best = max(filter(has_performance, whole), key=rank, default=None)
    return {
        "directory": str(path),
        "model": _state(model) if model.is_file() else None,
        "checkpoints": rows,
        "latest": str(whole[-1].path) if whole else None,
        "best": str(best.path) if best else None,
        "set_aside": list(dict.fromkeys(map(str, aside))),
    }


def require_some_whole(report: dict[str, Any]) -> None:
    """Refuse a directory in which everything is damaged.

    Raises:
        NoValidCheckpoint: With every reason.
    """
    states = [*([report["model"]] if report["model"] else []), *report["checkpoints"]]
    if all(state["damage"] for state in states):
        earlier = [f"{file}: it was damaged and is set aside." for file in report["set_aside"]]
        raise NoValidCheckpoint(report["directory"], [*(state["damage"] for state in states), *earlier])


def _state(path: Path) -> dict[str, Any]:
    damage = None
    try:
        read_archive(path)
    except (CheckpointError, OSError) as error:
        damage = str(error)
    return {"file": str(path), "bytes": path.stat().st_size if path.exists() else 0, "damage": damage}


def _own(archive: Archive, path: Path) -> dict[str, Any]:
    manifest = archive.manifest
    information = archive.json(_INFORMATION) if _INFORMATION in archive.members else {}
    return {
        "file": str(path),
        "format": manifest["format"],
        "version": manifest["version"],
        "bytes": len(archive.content),
        "sha256": archive.sha256,
        **{name: manifest[name] for name in ABOUT if name in manifest},
        **{name: information[name] for name in SHAPE if name in information},
        "weights": _count_weights(archive) if _WEIGHTS in archive.members else None,
        "hyperparameters": archive.json(_HYPERPARAMETERS) if _HYPERPARAMETERS in archive.members else None,
        "config": archive.json(_CONFIG) if _CONFIG in archive.members else None,
        "members": manifest["files"],
    }


def _count_weights(archive: Archive) -> int:
    """The numbers in the policy's tensors, by their header."""
    forms = forms_of(archive.members[_WEIGHTS], archive.file, _WEIGHTS, LIMITS)
    return sum(math.prod(form.shape) for form in forms.values())


def _foreign(path: Path, kind: Kind) -> dict[str, Any]:
    with open_file(path) as content:
        found = refusal(content, path)
        if not isinstance(found, Untrusted):  # it is damaged
            raise found
        report = inspect_sb3(content, path) if kind is Kind.SB3 else None
        content.seek(0)
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return {
        "file": str(path),
        "format": None,
        "what": str(kind),
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "stable_baselines3": report.version if report else None,
        "spaces": report.spaces if report else None,
        "pickled": list(report.pickled) if report else None,
        "members": report.members if report else None,
        "remedy": found.remedy,
    }
