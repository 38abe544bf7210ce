"""Whether a population finds and follows a changing optimum: PBT beside random search and fixed settings (L8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import drifting_arms as arms
from benchmarks import drifting_report as report
from benchmarks.drifting_arms import SHORT, Settings, Trained
from benchmarks.drifting_report import BEST_AT_ONCE, BEST_DRAWN, BEST_FIXED, ORACLE, PBT
from benchmarks.measure import Announce
from benchmarks.results import Report
from benchmarks.scores import Floats
from everlearn.report.wording import number

__all__ = ["SHORT", "Settings", "run"]

RANDOM, FIXED = "random search", "fixed settings"
ARMS: Mapping[str, Callable[[int, Settings, Path], Trained]] = {
    PBT: arms.pbt,
    RANDOM: arms.random_search,
    FIXED: arms.fixed,
}
METHOD = (
    "Agents track a target that by turns runs in clear sight and creeps in noise; in the first case a large learning "
    "rate is best, in the second a small one (`benchmarks/drifting.py`). Gradient steps are plain ones, for Adam "
    "would do a part of the adapting. Every arm trains {members} members for {steps:,} environment steps each, with "
    "{seeds} seeds; task and oracle were chosen with other seeds. A score is the mean return of a member's training "
    "episodes in a generation of {interval} updates; what counts is its mean after the first phase. PBT: the worst "
    "quarter copies the best one, and learning rates of copies take a step or are drawn anew; its score is that of "
    "the member which is the best at the time. Random search begins with the same members, who keep their learning "
    "rates. It counts twice: by the one member of each seed that turns out the best after the first phase, and by "
    "whoever is the best at the time, for which all agents have to be kept. The best fixed setting is the one of a "
    "grid of {members} that turns out the best over all seeds. The oracle is one agent that is told when to change "
    "its learning rate. PBT can be above it: it has the best of {members}, and copies weights, too, among them how "
    "much an agent explores. The interquartile mean (IQM) and its 95 % interval are from a bootstrap over the seeds; "
    "differences are taken seed by seed; bands span the seeds; shaded are the phases in which the target runs."
)


def run(settings: Settings, announce: Announce) -> Report:
    """Train all arms with all seeds, and compare."""
    trained, told = _train(settings, announce)
    curves = contestants(trained, told, settings.generations)
    medians = {
        f"{name}, median member": np.array([np.nanmedian(each.scores, axis=1) for each in trained[name]])
        for name in (RANDOM, PBT)
    }
    found = np.array([middle(each.learning_rates) for each in trained[PBT]])
    return Report(
        name="population-learning",
        title="Populations that follow a changing optimum",
        method=METHOD.format(**asdict(settings), steps=settings.steps),
        settings=asdict(settings),
        data=_data(trained, told, settings),
        tables=[
            report.score_table({**curves, **medians}, settings),
            report.difference_table(curves, settings),
            report.phase_table({**curves, **medians}, settings),
            report.grid_table(np.array([each.scores for each in trained[FIXED]]), settings),
            report.learning_rate_table(found, settings),
        ],
        figure=report.figure(curves, found, settings),
    )


def contestants(trained: Mapping[str, Sequence[Trained]], told: Floats, first: int) -> dict[str, Floats]:
    """The scores that stand for each arm.

    Args:
        trained: Arm to its populations, one per seed.
        told: The oracle's scores, (seeds, generations).
        first: Generations of the first phase, which choose nothing.

    Returns:
        Contestant to (seeds, generations).
    """
    drawn, on_grid = (np.array([each.scores for each in trained[name]]) for name in (RANDOM, FIXED))
    fixed = best_member(np.concatenate(on_grid[:, first:]))
    return {
        ORACLE: told,
        BEST_FIXED: on_grid[:, :, fixed],
        BEST_DRAWN: np.array([scores[:, best_member(scores[first:])] for scores in drawn]),
        BEST_AT_ONCE: np.nanmax(drawn, axis=2),
        PBT: np.array([np.nanmax(each.scores, axis=1) for each in trained[PBT]]),
    }


def best_member(scores: Floats) -> int:
    """Who has the best mean score, (generations, members); to have failed counts as the worst score of them all."""
    return int(np.argmax(np.where(np.isnan(scores), np.nanmin(scores), scores).mean(axis=0)))


def middle(learning_rates: Floats) -> Floats:
    """The median of each generation in logarithms, (generations, members) to (generations,)."""
    return np.asarray(np.exp(np.median(np.log(learning_rates), axis=1)))


def _train(settings: Settings, announce: Announce) -> tuple[dict[str, list[Trained]], Floats]:
    """Arm to its populations, one per seed; and the oracle's scores, (seeds, generations)."""
    trained: dict[str, list[Trained]] = {name: [] for name in ARMS}
    told = []
    with TemporaryDirectory(prefix="population-learning-") as directory:
        for seed in range(settings.seeds):
            for name, train in ARMS.items():
                found = train(seed, settings, Path(directory) / f"{name.replace(' ', '-')}-{seed}")
                trained[name].append(found)
                announce(f"{name}, seed {seed}: {number(float(np.nanmax(found.scores[-1])))} at the end")
            told.append(arms.scheduled(seed, settings, arms.oracle_schedule(settings)))
            announce(f"{ORACLE}, seed {seed}: {number(float(told[-1][-1]))} at the end")
    return trained, np.array(told)


def _data(trained: Mapping[str, Sequence[Trained]], told: Floats, settings: Settings) -> list[dict[str, Any]]:
    """Of each population the best and the median score of every generation, and each member's means by phase."""
    data: list[dict[str, Any]] = [
        {
            "arm": name,
            "seed": seed,
            "best": np.nanmax(each.scores, axis=1).round(3).tolist(),
            "median": np.nanmedian(each.scores, axis=1).round(3).tolist(),
            "members": [
                {
                    "first_learning_rate": float(f"{first:.4g}"),
                    "phases": [None if np.isnan(mean) else round(float(mean), 3) for mean in means],
                }
                for first, means in zip(each.learning_rates[0], report.by_phase(each.scores.T, settings), strict=True)
            ],
            "learning_rate": [float(f"{rate:.4g}") for rate in middle(each.learning_rates)],
            "failures": int(np.isnan(each.scores).sum()),
        }
        for name, populations in trained.items()
        for seed, each in enumerate(populations)
    ]
    return data + [
        {"arm": ORACLE, "seed": seed, "scores": scores.round(3).tolist()} for seed, scores in enumerate(told)
    ]
