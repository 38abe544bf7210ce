"""Milliseconds to save and load a model of 20 MB, beside the same bytes without meaning."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import stable_baselines3

from benchmarks.measure import Announce, Comparison, Target, interleave
from benchmarks.plots import draw_comparison, panels
from benchmarks.results import Report
from benchmarks.tables import comparison_table, target_table
from everlearn import PPO, DistributionalPPO

BARE, HASHED = "bytes", "bytes and their SHA-256"
OWN = ("everlearn.PPO", "everlearn.DistributionalPPO")
SB3 = "Stable-Baselines3"
METHOD = (
    "The file of a trained PPO (MlpPolicy, Adam) and of a DistributionalPPO whose widths make files of about the same "
    "size, against as many random bytes: written beside the target, synced, put in its place, the directory synced; "
    "read whole. Both with and without computing the SHA-256 that every file of everlearn carries and every reader "
    "checks. Stable-Baselines3 saves the same network without syncing and without a hash."
)
WIDTHS = {"everlearn.PPO": [910, 910], "everlearn.DistributionalPPO": [510, 510], SB3: [910, 910]}


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        repetitions: Samples of each contestant, after one to warm up.
        share: Of the networks' widths.
    """

    repetitions: int = 25
    share: float = 1.0


SHORT = Settings(repetitions=2, share=0.05)


def run(settings: Settings, announce: Announce) -> Report:
    """Measure saving and loading."""
    models = {name: _model(name, settings.share).learn(64) for name in WIDTHS}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        paths = {name: Path(folder) / f"{name}.zip" for name in models}
        for name, model in models.items():
            model.save(paths[name])
        content = os.urandom(paths[OWN[0]].stat().st_size)
        paths |= {name: Path(folder) / name for name in (BARE, HASHED)}
        saving: dict[str, Callable[[], object]] = {
            BARE: partial(write_durably, paths[BARE], content),
            HASHED: lambda: write_durably(paths[HASHED], content) or hashlib.sha256(content).digest(),
            **{name: partial(model.save, paths[name]) for name, model in models.items()},
        }
        loading: dict[str, Callable[[], object]] = {
            BARE: paths[BARE].read_bytes,
            HASHED: lambda: hashlib.sha256(paths[HASHED].read_bytes()).digest(),
            **{name: partial(type(model).load, paths[name], device="cpu") for name, model in models.items()},
        }
        comparisons = [
            _compare("Saving", saving, settings, announce, paths),
            _compare("Loading", loading, settings, announce, paths),
        ]
    figure, axes = panels("A model's file", len(comparisons), 1, size=(9.5, 3.0))
    for row, comparison in zip(axes, comparisons, strict=True):
        draw_comparison(row[0], comparison)
    return Report(
        name="files",
        title="A model's file",
        method=METHOD,
        settings=asdict(settings),
        data=[comparison.as_dict() for comparison in comparisons],
        tables=[*map(comparison_table, comparisons), target_table(comparisons)],
        figure=figure,
    )


def _model(name: str, share: float) -> Any:
    kind: Any = {OWN[0]: PPO, OWN[1]: DistributionalPPO, SB3: stable_baselines3.PPO}[name]
    widths = [max(8, int(width * share)) for width in WIDTHS[name]]
    options = {"n_steps": 64, "n_epochs": 1, "policy_kwargs": {"net_arch": widths}}
    return kind("MlpPolicy", "Pendulum-v1", device="cpu", seed=0, **options)


def _compare(
    title: str,
    works: Mapping[str, Callable[[], object]],
    settings: Settings,
    announce: Announce,
    paths: Mapping[str, Path],
) -> Comparison:
    contestants = {name: partial(_milliseconds, work) for name, work in works.items()}
    return Comparison(
        title=title,
        unit="ms",
        samples=interleave(contestants, settings.repetitions, lambda what: announce(f"{title}: {what}")),
        peer=HASHED,
        more_is_better=False,
        targets=[Target("P6", name, HASHED, must=1.5, aim=1.2) for name in OWN],
        references=[BARE, HASHED, SB3],
        details={"MB": {name: round(path.stat().st_size / 1e6, 1) for name, path in paths.items()}},
    )


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def write_durably(path: Path, content: bytes) -> None:
    """The recipe by itself: a file of its own, synced, in the target's place, the directory synced."""
    draft = path.with_name(f".{path.name}")
    with draft.open("xb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    os.replace(draft, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
