"""How well agents learn: several seeds on small tasks, beside Stable-Baselines3's PPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from benchmarks.measure import Announce
from benchmarks.plots import draw_curves, draw_scores, panels
from benchmarks.results import Report
from benchmarks.scores import Floats, bootstrap_interval, interquartile_mean
from benchmarks.tables import NOTHING, Table, bound_cell, range_cell
from benchmarks.training import ALGORITHMS, PEER, TASKS, Outcome, Settings, train_all
from everlearn.report.wording import number

MUST = 0.95
"""What the low end of the interval of a normalised score must reach, on every task (L1)."""
METHOD = (
    "All contestants train with the settings that rl-zoo3 tuned for SB3's PPO, and with the same seeds. A score is the "
    "mean return of deterministic episodes after training. The interquartile mean (IQM) and its 95 % interval from a "
    "stratified bootstrap over the seeds follow Agarwal et al. 2021; with few seeds the interval is rough and the IQM "
    "close to the mean. Normalised scores put a random policy at 0 and the peer's IQM at 1. Bands of the curves span "
    "the seeds; pale bars are the intervals."
)


Scores = Mapping[str, Sequence[float]]
"""Contestant to the scores of its seeds."""


def shortened(settings: Settings) -> Settings:
    """The same with hardly any training."""
    return replace(settings, seeds=min(settings.seeds, 2), share=0.01, episodes=5)


def run(settings: Settings, announce: Announce) -> Report:
    """Train and score all contestants on all tasks with all seeds."""
    outcomes = []
    for outcome in train_all(settings):
        training = outcome.training
        announce(f"{training.task}: {training.contestant}, seed {training.seed}: {number(outcome.score)}")
        outcomes.append(outcome)
    scores = {task: _scores(outcomes, task) for task in settings.tasks}
    return Report(
        name="learning",
        title="Learning",
        method=METHOD,
        settings=asdict(settings),
        data=[asdict(outcome) for outcome in outcomes],
        tables=[*(_score_table(task, values) for task, values in scores.items()), _normalised_table(scores)],
        figure=_figure(settings, outcomes, scores),
    )


def normalised(scores: Sequence[float], random: float, peer: float) -> list[float]:
    """Scores on the scale that has a random policy at 0 and the peer at 1."""
    return [(score - random) / (peer - random) for score in scores]


def _scores(outcomes: Sequence[Outcome], task: str) -> dict[str, list[float]]:
    """Contestant to the scores of its seeds on a task."""
    return {
        name: [o.score for o in outcomes if (o.training.task, o.training.contestant) == (task, name)]
        for name in ALGORITHMS
    }


def _curves(outcomes: Sequence[Outcome], task: str) -> dict[str, Floats]:
    """Contestant to the learning curves of its seeds on a task, (seeds, points)."""
    return {
        name: np.array([o.curve for o in outcomes if (o.training.task, o.training.contestant) == (task, name)])
        for name in ALGORITHMS
    }


def _interval(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    return bootstrap_interval(scores, np.random.default_rng(0))


def _score_table(task: str, scores: Scores) -> Table:
    """A row per contestant: every seed's score, their median, the interquartile mean and its interval."""
    seeds = [f"seed {seed}" for seed in range(len(scores[PEER]))]
    rows = [
        [name, *map(number, [*own, median(own), interquartile_mean(own)]), range_cell(*_interval([own]))]
        for name, own in scores.items()
    ]
    return Table(task, ["contestant", *seeds, "median", "IQM", "95 % interval"], rows)


def _normalised_table(scores: Mapping[str, Scores]) -> Table:
    """A row per contestant: its normalised scores over all tasks, and whether it keeps up with the peer on each."""
    peers = {task: interquartile_mean(values[PEER]) for task, values in scores.items()}
    rows = []
    for name in ALGORITHMS:
        own = [normalised(scores[task][name], TASKS[task].random_score, peer) for task, peer in peers.items()]
        lowest = min(_interval([task])[0] for task in own)
        verdict = NOTHING if name == PEER else bound_cell(lowest, MUST, more_is_better=True)
        pooled = interquartile_mean(own)
        rows.append([name, number(pooled), range_cell(*_interval(own)), number(lowest), verdict])
    return Table(
        "Normalised scores", ["contestant", "IQM", "95 % interval", "lowest end of a task's interval", "L1"], rows
    )


def _figure(settings: Settings, outcomes: Sequence[Outcome], scores: Mapping[str, Scores]) -> Figure:
    """A row of panels per task: learning curves, and scores with their intervals."""
    figure, axes = panels("Learning", len(scores), 2, size=(6.5, 3.6))
    for (left, right), (task, values) in zip(axes, scores.items(), strict=True):
        draw_curves(left, task, settings.curve_edges(task)[1:], _curves(outcomes, task))
        centres = {name: interquartile_mean(own) for name, own in values.items()}
        intervals = {name: _interval([own]) for name, own in values.items()}
        draw_scores(right, "after training", "mean return of an evaluation", values, centres, intervals)
    return figure
