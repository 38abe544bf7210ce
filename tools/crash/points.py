"""Kills at every operation on files: before each one of a save, of pruning, of setting aside, of taking the lock."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.files import DRAFT, observed, sweep, write_file
from everlearn.checkpoint.lock import RunLock
from everlearn.checkpoint.retention import Retention
from everlearn.checkpoint.store import CheckpointStore
from tools.crash.kills import Fork
from tools.crash.writer import MODEL, contents_equal

_PIECE = 3000
"""Bytes of one write, so that there are several."""


@dataclass(frozen=True)
class Scenario:
    """What is done to a directory, and what has to be true of it whenever that was cut short.

    Args:
        name: What is written into the results.
        prepare: What was there before.
        act: What is killed.
        problems: What is wrong afterwards.
    """

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    problems: Callable[[Path], list[str]]


@dataclass(frozen=True)
class Point:
    """The operation before which a process is killed.

    Args:
        scenario: What it does.
        number: Which of its operations.
        operation: The operation's name.
    """

    scenario: Scenario
    number: int
    operation: str


def content(step: int) -> dict[str, bytes]:
    """What is saved at a step."""
    return {"policy.safetensors": bytes([step]) * 5000}


def _save_model(directory: Path, step: int) -> None:
    write_file(directory / MODEL, pack(content(step), {"step": step}))


def _store(directory: Path) -> CheckpointStore:
    return CheckpointStore(directory, Retention(keep_last=2, keep_best=0))


def _save_steps(directory: Path, *steps: int) -> None:
    store = _store(directory)
    for step in steps:
        store.save(step, content(step), {})


def _model_is_of(directory: Path, *allowed: int | None) -> list[str]:
    path = directory / MODEL
    if not path.exists():
        return [] if None in allowed else ["the model is gone"]
    archive = read_archive(path)
    step = archive.manifest["step"]
    whole = contents_equal(archive.members, content(step))
    return [] if whole and step in allowed else [f"the model is of step {step}"]


def _latest_is_of(directory: Path, *allowed: int) -> list[str]:
    found = _store(directory).latest()
    whole = contents_equal(found.archive.members, content(found.checkpoint.step))
    return [] if whole and found.checkpoint.step in allowed else [f"the latest is of step {found.checkpoint.step}"]


def _pruned(directory: Path) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = len(_store(directory).checkpoints()) < 2
        return _latest_is_of(directory, 3, 4) + (["fewer than two are left"] if few else [])


def _damage_latest(directory: Path) -> None:
    _save_steps(directory, 1, 2, 3)
    path = _store(directory).path_of(3)
    path.write_bytes(path.read_bytes()[:-100])


def _set_aside(directory: Path) -> list[str]:
    path = _store(directory).path_of(3)
    remains = [each for each in (path, path.with_name(f"{path.name}.corrupt")) if each.exists()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a damaged file is passed over
        return _latest_is_of(directory, 2) + (
            [] if len(remains) == 1 else ["the damaged file is gone, or is there twice"]
        )


def _enter(directory: Path) -> None:
    with RunLock(directory):
        pass


def _can_enter(directory: Path) -> list[str]:
    with RunLock(directory):
        return []


SCENARIOS = (
    Scenario(
        "first save", lambda path: None, lambda path: _save_model(path, 1), lambda path: _model_is_of(path, None, 1)
    ),
    Scenario(
        "overwrite",
        lambda path: _save_model(path, 1),
        lambda path: _save_model(path, 2),
        lambda path: _model_is_of(path, 1, 2),
    ),
    Scenario("prune", lambda path: _save_steps(path, 1, 2, 3), lambda path: _save_steps(path, 4), _pruned),
    Scenario("quarantine", _damage_latest, _set_aside, _set_aside),
    Scenario("lock", lambda path: None, _enter, _can_enter),
)


def all_points() -> list[Point]:
    """Every operation of every scenario."""
    points: list[Point] = []
    for scenario in SCENARIOS:
        names: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            scenario.prepare(directory)

            def note(name: str, path: Path, names: list[str] = names) -> int:
                names.append(name)
                return _PIECE

            with observed(note):
                scenario.act(directory)
        points += [Point(scenario, number, name) for number, name in enumerate(names)]
    return points


def kill_at(point: Point, directory: Path) -> list[str]:
    """Kill a process before one operation, and look.

    Args:
        point: Which.
        directory: An empty one.

    Returns:
        What is lost, damaged or left over.
    """
    point.scenario.prepare(directory)
    process = Fork.Process(target=_act_until, args=(point, directory))
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        return [f"the operation was not reached ({process.exitcode})"]
    problems = point.scenario.problems(directory)
    sweep(directory)
    left = [path.name for path in directory.rglob(f"{DRAFT}*")]
    return [*problems, *(f"{name} is left over" for name in left)]


def _act_until(point: Point, directory: Path) -> None:
    passed = 0

    def hook(name: str, path: Path) -> int:
        nonlocal passed
        if passed == point.number:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1
        return _PIECE

    with observed(hook):
        point.scenario.act(directory)
