"""How the time of an iteration grows with environments, quantiles, critics and the width of the networks."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants import OWN, Contestant
from benchmarks.measure import Announce, interleave
from benchmarks.plots import draw_growth, panels
from benchmarks.results import Report
from benchmarks.tables import Table, bound_cell
from benchmarks.workers import Iteration, started
from everlearn.report.wording import number

MUST = 1.0
"""The largest exponent: at most linear."""
COLLECT, UPDATE = "collect", "update"
METHOD = (
    "Seconds of an iteration of `learn()` by DistributionalPPO with everything on, while one thing grows and all else "
    "stays: {n_envs} environments of {env_id}, {n_steps} steps of each, {n_epochs} epochs of batches of {batch_size}, "
    "two critics of 32 quantiles, networks of 64 x 64. Every size is a process of its own, bound to as many cores as "
    "threads; those of a curve take turns, and the first iteration of each does not count. More environments bring "
    "more samples, so more updates too. Width is drawn over the number of parameters, which grows with its square. An "
    "exponent *e* means that time grows as size to the power of *e*; it is taken between the first and the last size, "
    "and between the last two, where fixed costs weigh least; the latter must be at most 1. {compiled} Members are "
    "left out: there is no population yet."
)


@dataclass(frozen=True)
class Axis:
    """One thing that grows.

    Attributes:
        name: Of the size.
        sizes: From small to large.
        grown: A contestant with another size.
    """

    name: str
    sizes: Sequence[int]
    grown: Callable[[Contestant, int], Contestant]


def _environments(contestant: Contestant, size: int) -> Contestant:
    return replace(contestant, n_envs=size)


def _with(contestant: Contestant, size: int, *, arguments: Callable[[int], dict[str, Any]]) -> Contestant:
    return replace(contestant, arguments=contestant.arguments | arguments(size))


AXES = (
    Axis("environments", (1, 4, 16, 64), _environments),
    Axis(
        "quantiles",
        (1, 8, 32, 128),
        partial(_with, arguments=lambda size: {"value_head": {"kind": "quantile", "n_quantiles": size}}),
    ),
    Axis("critics", (1, 2, 4, 8), partial(_with, arguments=lambda size: {"n_critics": size})),
    Axis(
        "hidden width",
        (16, 64, 256, 1024),
        partial(_with, arguments=lambda size: {"policy_kwargs": {"net_arch": [size, size]}}),
    ),
)


@dataclass(frozen=True)
class Settings:
    """The iteration that grows, and how often it is measured.

    Attributes:
        env_id: Of the environments.
        n_envs: Environments, where they do not grow.
        n_steps: Steps of each per rollout.
        batch_size: Samples per update.
        n_epochs: Passes over a rollout.
        sizes: How many of each axis's sizes, the smallest first; None for all.
        repetitions: Iterations that count, after one to warm up.
        threads: And cores, of every process.
        compiled: Whether updates are compiled, where that is offered.
        processes: Whether every size is a process of its own; otherwise all are in this one.
    """

    env_id: str = "HalfCheetah-v5"
    n_envs: int = 8
    n_steps: int = 128
    batch_size: int = 64
    n_epochs: int = 10
    sizes: int | None = None
    repetitions: int = 5
    threads: int = 1
    compiled: bool = True
    processes: bool = True


SHORT = Settings(
    env_id="CartPole-v1",
    n_envs=1,
    n_steps=32,
    batch_size=32,
    n_epochs=1,
    sizes=2,
    repetitions=1,
    compiled=False,
    processes=False,
)


@dataclass(frozen=True)
class Curve:
    """What was measured along an axis.

    Attributes:
        axis: Its name.
        unit: Of the positions.
        sizes: Along the axis.
        positions: Where each size is drawn: the size, for widths the number of parameters.
        seconds: Part of an iteration to its medians, one per size.
        samples: Size to its iterations.
    """

    axis: str
    unit: str
    sizes: Sequence[int]
    positions: Sequence[int]
    seconds: Mapping[str, Sequence[float]]
    samples: Mapping[str, Sequence[Iteration]]

    @property
    def total(self) -> list[float]:
        """Seconds of collecting and updating, one per size."""
        return [sum(parts) for parts in zip(*self.seconds.values(), strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """All samples and what follows from them."""
        overall, last = exponents(self.positions, self.total)
        return asdict(self) | {"exponent": overall, "last_exponent": last, "must": MUST, "must_reached": last <= MUST}


def run(settings: Settings, announce: Announce) -> Report:
    """Measure along all axes."""
    curves = [_measure(axis, settings, announce) for axis in AXES]
    figure, axes = panels("Growth", 2, 2, size=(6.5, 3.8))
    for panel, curve in zip([*axes[0], *axes[1]], curves, strict=True):
        draw_growth(panel, curve.axis, curve.unit, curve.positions, curve.seconds)
    return Report(
        name="growth",
        title="Growth",
        method=_method(settings, curves),
        settings=asdict(settings),
        data=[curve.as_dict() for curve in curves],
        tables=[*map(_curve_table, curves), _exponent_table(curves)],
        figure=figure,
    )


def exponents(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """``d log t / d log n`` from the first to the last size, and between the last two."""
    points = [(math.log(size), math.log(time)) for size, time in zip(sizes, seconds, strict=True)]
    pairs = ((points[0], points[-1]), list(pairwise(points))[-1])
    overall, last = ((end[1] - begin[1]) / (end[0] - begin[0]) for begin, end in pairs)
    return overall, last


def _method(settings: Settings, curves: Sequence[Curve]) -> str:
    turns = (turn for curve in curves for turns in curve.samples.values() for turn in turns)
    compiled = "compiled" if all(turn.compiled for turn in turns) else "not all compiled"
    return METHOD.format(**asdict(settings) | {"compiled": f"Updates are {compiled}."})


def _measure(axis: Axis, settings: Settings, announce: Announce) -> Curve:
    base = Contestant(
        library=OWN,
        algorithm="DistributionalPPO",
        env_id=settings.env_id,
        n_envs=settings.n_envs,
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.n_epochs,
        arguments={"kl_penalty": True},
        compiled=settings.compiled,
    )
    sizes = axis.sizes[: settings.sizes]
    contestants = {str(size): (Path(sys.executable), axis.grown(base, size)) for size in sizes}
    with started(contestants, settings.threads, processes=settings.processes) as runners:
        turns = {name: runner.iterate for name, runner in runners.items()}
        samples = interleave(turns, settings.repetitions, lambda what: announce(f"{axis.name}: {what}"))
        parameters = [runner.parameters for runner in runners.values()]
    of_parameters = axis.name == "hidden width"
    return Curve(
        axis=axis.name,
        unit="parameters" if of_parameters else axis.name,
        sizes=sizes,
        positions=parameters if of_parameters else sizes,
        seconds={
            COLLECT: [median(turn.collect for turn in turns) for turns in samples.values()],
            UPDATE: [median(turn.update for turn in turns) for turns in samples.values()],
        },
        samples=samples,
    )


def _curve_table(curve: Curve) -> Table:
    """A row per size: where it is drawn, the seconds of both parts and of both together."""
    columns = [curve.axis, *([curve.unit] if curve.unit != curve.axis else []), *curve.seconds, "sum"]
    rows = []
    for index, (size, position, total) in enumerate(zip(curve.sizes, curve.positions, curve.total, strict=True)):
        place = [f"{position:,}"] if curve.unit != curve.axis else []
        rows.append([f"{size:,}", *place, *(number(part[index]) for part in curve.seconds.values()), number(total)])
    return Table(f"{curve.axis.capitalize()}, seconds of an iteration", columns, rows)


def _exponent_table(curves: Sequence[Curve]) -> Table:
    """A row per curve: the exponent of its growth from end to end and at the end, and of both parts at the end."""
    rows = []
    for curve in curves:
        overall, last = exponents(curve.positions, curve.total)
        parts = [number(exponents(curve.positions, seconds)[1]) for seconds in curve.seconds.values()]
        bound = bound_cell(last, MUST, more_is_better=False)
        rows.append([f"P8 {curve.unit}", number(overall), *parts, number(last), bound])
    columns = ["exponent of", "from end to end", "collect, last two", "update, last two", "sum, last two", "must"]
    return Table("Exponents", columns, rows)
