"""Where a trial of Ray Tune stands, and the directory that Tune keeps of it: one member's file, and a text about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import Corrupt, Mismatch, Unsupported, refused
from everlearn.checkpoint.files import open_file, reason_of, write_file
from everlearn.config import PopulationConfig
from everlearn.core.errors import StateError
from everlearn.population.files import file_problem
from everlearn.population.segments import (
    Checkpoint,
    Copy,
    Result,
    number_from,
    plain_number,
)

ABOUT = "trial.json"
_FORMAT = 2
_LARGEST, _DEEPEST = 2**20, 8
_PIECE = 8 * 2**20
_SHOWN = 5
_REMEDY = "Restore it from a copy, or let the trial begin anew."


@dataclass(frozen=True)
class Standing:
    """Where a trial stands.

    Args:
        trial_id: Whose.
        seed: Of its beginning.
        generation: Steps of Tune's that its state has behind it.
        step: Training updates that it has behind it.
        timesteps: Environment steps that these took.
        performance: Its score.
        checkpoint: Its state; None for one that has not trained yet.
        copy: What it takes over before it trains on.
    """

    trial_id: str
    seed: int
    generation: int = 0
    step: int = 0
    timesteps: int = 0
    performance: float | None = None
    checkpoint: Checkpoint | None = None
    copy: Copy | None = None

    def __post_init__(self) -> None:
        if min(self.seed, self.generation, self.step, self.timesteps) < 0:
            raise StateError("a number in it is below 0")
        if (self.checkpoint is None) != (self.step == 0) or (self.copy is not None and self.checkpoint is None):
            raise StateError("there is a state behind every update, and none before the first")

    def after(self, result: Result) -> Standing:
        """Where it stands after a segment."""
        return replace(
            self,
            generation=self.generation + 1,
            step=result.step,
            timesteps=self.timesteps + result.env_steps,
            performance=result.performance,
            checkpoint=result.checkpoint,
            copy=None,
        )

    def in_place_of(self, source: Standing, rules: PopulationConfig) -> Standing:
        """Where it stands in another's place: with all that this one is, but for generators of its own.

        They follow from both, so that the same copy goes on in the same way.

        Args:
            source: The other.
            rules: What is copied.
        """
        if source.checkpoint is None:
            return self
        words = source.checkpoint.policy_digest
        seed = seed_from(self.seed, self.trial_id, source.trial_id, words)
        copy = Copy(source.trial_id, source.checkpoint, rules.copied, rules.optimizer_exploit_strategy, seed)
        return replace(source, trial_id=self.trial_id, seed=self.seed, copy=copy)


def seed_from(seed: int, *labels: str) -> int:
    """A seed that follows from another one and some texts.

    Of the id of a trial the number counts, where there is one: what Tune puts before it is new in every experiment.
    """
    words = [_counted(label).encode() for label in labels]
    parts = [seed, *(int.from_bytes(hashlib.sha256(word).digest()[:16]) for word in words)]
    return int(np.random.SeedSequence(parts).generate_state(1)[0]) >> 1


def _counted(label: str) -> str:
    prefix, _, number = label.rpartition("_")
    return number if prefix and number.isdecimal() else label


def write_standing(standing: Standing, structure: Mapping[str, str], members: Path, directory: Path) -> None:
    """Leave a trial in a directory of Tune's.

    Args:
        standing: Where it stands.
        structure: What another trial must have alike to take it over.
        members: Where its file is.
        directory: Where Tune wants it.

    Raises:
        SaveError: If it cannot be written.
    """
    if standing.checkpoint is not None:
        _copy_file(members / standing.checkpoint.name, directory / standing.checkpoint.name)
    about = {**_plain(standing), "structure": dict(structure), "format": _FORMAT}
    about["sha256"] = _fingerprint(about)
    write_file(directory / ABOUT, [strict_json.dumps(about)])


def read_standing(directory: Path, structure: Mapping[str, str], members: Path) -> Standing:
    """Take a trial from a directory of Tune's, which need not last.

    Args:
        directory: What ``write_standing`` has left.
        structure: Of the trial that is to take it over.
        members: Where its file goes.

    Raises:
        CheckpointError: If anything in it is missing or damaged, or it is of another structure.
    """
    path = directory / ABOUT
    try:
        with open_file(path) as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise Unsupported(path, f"it cannot be read ({reason_of(error)}).", "Name a checkpoint of a trial.") from error
    about = strict_json.loads(content, path, "", max_bytes=_LARGEST, max_depth=_DEEPEST)
    with refused(path, "its content"):
        standing, found = _standing_from(about, path)
    _require_alike(found, structure, path)
    if standing.checkpoint is not None:
        problem = file_problem(directory, standing.checkpoint)
        if problem is not None:
            raise Corrupt(directory, f"{problem}.", _REMEDY)
        _copy_file(directory / standing.checkpoint.name, members / standing.checkpoint.name)
    return standing


def _standing_from(about: Mapping[str, Any], path: Path) -> tuple[Standing, Mapping[str, Any]]:
    values = dict(about)
    if values.pop("format") != _FORMAT:
        raise Unsupported(path, f"it has the format {about['format']!r:.20}.", "Upgrade everlearn.")
    if values.pop("sha256") != _fingerprint({name: value for name, value in about.items() if name != "sha256"}):
        raise Corrupt(path, "its SHA-256 is not the one that was written.", _REMEDY)
    structure = values.pop("structure")
    try:
        text = json.dumps({**values, "performance": number_from(values["performance"])})
        standing: Standing = _STANDING.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the trial"
        raise Corrupt(path, f"{place}: {first['msg']}.", _REMEDY) from error
    if json.loads(json.dumps(_plain(standing))) != values or not isinstance(structure, dict):
        raise Corrupt(path, "something in it is no part of a trial.", _REMEDY)
    return standing, structure


_STANDING = TypeAdapter(Standing)


def _require_alike(found: Mapping[str, Any], own: Mapping[str, str], path: Path) -> None:
    differing = [name for name in {**found, **own} if found.get(name) != own.get(name)]
    if differing:
        there, here = ({name: each.get(name, "left out") for name in differing} for each in (found, own))
        words = [f"{name} is {there[name]} there and {here[name]} here" for name in differing]
        more = f"; and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        problem = f"it is of a trial that is built otherwise: {'; '.join(words[:_SHOWN])}{more}."
        raise Mismatch(path, problem, "Let trials that take each other over differ in hyper-parameters alone.")


def _plain(standing: Standing) -> dict[str, Any]:
    return {**asdict(standing), "performance": plain_number(standing.performance)}


def _fingerprint(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(strict_json.dumps(about)).hexdigest()


def _copy_file(source: Path, target: Path) -> None:
    def pieces() -> Iterator[bytes]:
        with open_file(source) as stream:
            while piece := stream.read(_PIECE):
                yield piece

    write_file(target, pieces())
