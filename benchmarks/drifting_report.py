"""Tables and pictures of the study on the drifting target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import drifting_arms as arms
from benchmarks.drifting_arms import Settings
from benchmarks.plots import draw_curves, draw_scores, panels
from benchmarks.scores import Floats, bootstrap_interval, interquartile_mean
from benchmarks.tables import Table, range_cell
from everlearn.report.population_rows import value_words
from everlearn.report.wording import number

ORACLE, BEST_FIXED, BEST_DRAWN, BEST_AT_ONCE, PBT = (
    "oracle schedule",
    "best fixed setting",
    "random search, one member",
    "random search, best at the time",
    "PBT",
)
"""Contestants, in the order of their colours; the last one is what the others are compared with."""
Curves = Mapping[str, Floats]
"""Contestant to its scores, (seeds, generations)."""


def by_phase(values: Floats, settings: Settings) -> Floats:
    """Means of each phase, (..., generations) to (..., phases); a failure is left out."""
    split = values.reshape(*values.shape[:-1], settings.phases, -1)
    counts = (~np.isnan(split)).sum(axis=-1)
    return np.asarray(np.where(counts, np.nansum(split, axis=-1) / np.maximum(counts, 1), np.nan))


def after_first(values: Floats, settings: Settings) -> Floats:
    """Means after the first phase, (seeds, generations) to (seeds,)."""
    return np.asarray(np.nanmean(values[:, settings.generations :], axis=1))


def at_ends(values: Floats, settings: Settings) -> Floats:
    """Means of the last quarter of each phase, (..., generations) to (..., phases)."""
    split = values.reshape(*values.shape[:-1], settings.phases, -1)
    return np.asarray(np.nanmean(split[..., -max(1, settings.generations // 4) :], axis=-1))


def score_table(curves: Curves, settings: Settings) -> Table:
    """A row per contestant: each seed's mean after the first phase, their interquartile mean and its interval."""
    rows = [[name, *_told(after_first(values, settings))] for name, values in curves.items()]
    return Table("Mean return after the first phase", ["contestant", *_seeds(settings), "IQM", "95 % interval"], rows)


def difference_table(curves: Curves, settings: Settings) -> Table:
    """A row per contestant: by how much PBT is better, seed by seed, and whether the interval is on one side of 0."""
    rows = []
    for name, differences in _differences(curves, settings).items():
        low, high = _interval(differences)
        verdict = "PBT" if low > 0 else name.partition(",")[0] if high < 0 else "undecided"
        rows.append([f"PBT - {name}", *_told(differences), verdict])
    columns = ["difference", *_seeds(settings), "IQM", "95 % interval", "better"]
    return Table("PBT beside the others, seed by seed", columns, rows)


def phase_table(curves: Curves, settings: Settings) -> Table:
    """A row per contestant: the interquartile mean over the seeds of each phase, and of each phase's last quarter."""
    rows = []
    for name, values in curves.items():
        whole, ends = by_phase(values, settings), at_ends(values, settings)
        rows.append([name, *(number(interquartile_mean(each)) for each in (*whole.T, *ends.T))])
    columns = [*_phases(settings), *(f"end of {phase + 1}" for phase in range(settings.phases))]
    return Table("Mean return of each phase, and of its last quarter", ["contestant", *columns], rows)


def grid_table(scores: Floats, settings: Settings) -> Table:
    """A row per fixed learning rate: the interquartile mean over the seeds of each phase, and of all but the first.

    Args:
        scores: (seeds, generations, members).
        settings: Of the study.
    """
    rows = []
    for member, value in enumerate(arms.grid(settings)):
        own = scores[:, :, member]
        figures = [*by_phase(own, settings).T, after_first(own, settings)]
        rows.append([value_words(value), *(number(interquartile_mean(each)) for each in figures)])
    return Table("Fixed settings", ["learning rate", *_phases(settings), "after the first"], rows)


def learning_rate_table(found: Floats, settings: Settings) -> Table:
    """The oracle's learning rates, and those of the populations, (seeds, generations), in each phase's last quarter."""
    rows = [[ORACLE, *map(value_words, arms.oracle_schedule(settings))]]
    for seed, values in enumerate(np.exp(at_ends(np.log(found), settings))):
        rows.append([f"PBT, seed {seed}", *(value_words(float(f"{value:.2g}")) for value in values)])
    return Table("Median learning rate in the last quarter of each phase", ["whose", *_phases(settings)], rows)


def figure(curves: Curves, found: Floats, settings: Settings) -> Figure:
    """Scores over time and after the first phase; learning rates over time, and by how much PBT is better."""
    drawn, axes = panels("Populations that follow a changing optimum", 2, 2, size=(8.0, 4.0))
    (left, right), (below, differences) = axes
    steps = settings.generation_ends()
    _shade(left, settings)
    draw_curves(left, "score over time", steps, curves)
    left.set_ylabel("return of a training episode")
    lowest = min(float(values.mean(axis=0)[settings.generations :].min()) for values in curves.values())
    left.set_ylim(1.1 * lowest, 0)  # the first generations lie far below
    colours = dict(zip(curves, (line.get_color() for line in left.get_lines()), strict=False))
    _draw_scores(
        right, "after the first phase", {name: after_first(values, settings) for name, values in curves.items()}
    )
    _shade(below, settings)
    _draw_learning_rates(below, steps, found, (colours[ORACLE], colours[PBT]), settings)
    _draw_scores(differences, "PBT minus the others, after the first phase", _differences(curves, settings))
    differences.axvline(0, color="#555555", linewidth=0.9)
    return drawn


def _draw_scores(axes: Axes, title: str, scores: Mapping[str, Floats]) -> None:
    centres = {name: interquartile_mean(own) for name, own in scores.items()}
    intervals = {name: _interval(own) for name, own in scores.items()}
    draw_scores(axes, title, "return", {name: own.tolist() for name, own in scores.items()}, centres, intervals)


def _draw_learning_rates(
    axes: Axes, steps: Floats, found: Floats, colours: tuple[str, str], settings: Settings
) -> None:
    """The populations' medians beside the oracle's."""
    told = np.repeat(arms.oracle_schedule(settings), settings.generations)
    axes.plot(steps, told, color=colours[0], linewidth=5, drawstyle="steps-pre", label=ORACLE)
    axes.fill_between(steps, found.min(axis=0), found.max(axis=0), color=colours[1], alpha=0.12, linewidth=0)
    axes.plot(steps, np.median(found, axis=0), color=colours[1], linewidth=1.8, label="PBT's median member")
    axes.set_title("learning rate over time", loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("learning rate")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(left=0)
    axes.set_yscale("log")
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(arms.LOWEST, arms.HIGHEST)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, fontsize=8.5, frameon=False)


def _shade(axes: Axes, settings: Settings) -> None:
    """Mark the phases in which the target runs."""
    length = settings.steps / settings.phases
    for phase in range(0, settings.phases, 2):
        axes.axvspan(phase * length, (phase + 1) * length, color="#f2f2f2", linewidth=0)


def _differences(curves: Curves, settings: Settings) -> dict[str, Floats]:
    """Contestant to PBT's mean after the first phase less its own, (seeds,)."""
    ours = after_first(curves[PBT], settings)
    return {name: ours - after_first(values, settings) for name, values in curves.items() if name != PBT}


def _told(values: Floats) -> list[str]:
    return [*map(number, [*values.tolist(), interquartile_mean(values)]), range_cell(*_interval(values))]


def _interval(values: Floats) -> tuple[float, float]:
    return bootstrap_interval(values[None], np.random.default_rng(0))


def _seeds(settings: Settings) -> list[str]:
    return [f"seed {seed}" for seed in range(settings.seeds)]


def _phases(settings: Settings) -> list[str]:
    return [f"{phase + 1} {('runs', 'creeps')[phase % 2]}" for phase in range(settings.phases)]
