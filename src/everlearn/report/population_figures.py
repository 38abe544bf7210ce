"""Hyper-parameters and scores of a population's members over time, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from everlearn.checkpoint.files import write_file
from everlearn.population.domains import Choices, Interval, is_number
from everlearn.population.population import Population
from everlearn.population.scales import LinearScale, LogScale
from everlearn.population.space import HyperparamConfig
from everlearn.report.market_figures import LIGHT, png
from everlearn.report.population_rows import value_words
from everlearn.report.population_timeline import Span, Timeline, timeline_of, winning_schedule

WINNER = LIGHT.agents[1]
"""The colour of the best member, in all pictures."""
_MEMBERS, _MEDIAN = LIGHT.agents[0], LIGHT.ink


def draw_schedules(path: Path, population: Population) -> None:
    """Write a PNG with a panel for each hyper-parameter: all members' values over training updates.

    Bold is the schedule of the best member: the values by which its state was trained, whoever did it.

    Args:
        path: The file.
        population: As it stands.

    Raises:
        SaveError: If it cannot be written.
    """
    timeline, space = timeline_of(population), [*population.config.space]
    columns = 1 if len(space) < 2 else 2 if len(space) < 7 else 3
    lines = max(1, math.ceil(len(space) / columns))
    figure = canvas(9.0 if columns < 3 else 12.0, 0.8 + 2.4 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    winning = [] if timeline.winner is None else winning_schedule(population, timeline.winner)
    for axes, each in zip(panels, space, strict=False):
        _draw_schedule(axes, each, timeline, [(start, end, values[each.name]) for start, end, values in winning])
    for axes in panels[len(space) :]:
        axes.set_axis_off()
    if not space:
        panels[0].set_title("The population learns no hyper-parameter.", fontsize=11, color=LIGHT.ink)
    figure.supxlabel("training updates of a member", fontsize=9, color=LIGHT.ink)
    best = f"member {timeline.winner}, the best: by what its state was trained"
    handles = [Line2D([], [], color=_MEMBERS, alpha=0.5, linewidth=1.2, label="members")]
    handles += [Line2D([], [], color=WINNER, linewidth=2.6, label=literal(best))] if winning else []
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=9, labelcolor=LIGHT.ink)
    write_png(path, figure)


def draw_scores(path: Path, population: Population) -> None:
    """Write a PNG of the scores of all members over training updates, with the best and the median of each generation.

    Args:
        path: The file.
        population: As it stands.

    Raises:
        SaveError: If it cannot be written.
    """
    timeline = timeline_of(population)
    figure = canvas(9.0, 4.6)
    axes = figure.add_subplot()
    dress(axes)
    for _, spans in groupby(timeline.spans, key=lambda span: span.member_id):
        points = [(span.end, math.nan if span.score is None else span.score) for span in spans]
        axes.plot(
            *zip(*points, strict=True),
            color=_MEMBERS,
            alpha=_faintness(timeline),
            linewidth=1.0,
            marker="o",
            markersize=2.2 if len(points) > 1 else 5.0,
            markeredgewidth=0,
            zorder=2,
        )
    higher = max if population.config.metric_mode == "max" else min
    _draw_over_members(axes, timeline, median, _MEDIAN, "median")
    _draw_over_members(axes, timeline, higher, WINNER, "best")
    handles: list[Artist] = [Line2D([], [], color=_MEMBERS, alpha=0.5, linewidth=1.2, label="members")]
    if any(span.score is not None for span in timeline.spans):
        handles += [*axes.get_legend_handles_labels()[0]]
    else:
        axes.text(0.5, 0.5, "no score yet", transform=axes.transAxes, ha="center", color=LIGHT.ink)
        axes.yaxis.set_major_locator(NullLocator())
    axes.set_xlim(0, max(timeline.end, 1) * 1.01)
    axes.set_xlabel("training updates of a member")
    axes.set_ylabel("score")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_title("Scores", loc="left", fontsize=13, fontweight="bold", color=LIGHT.ink, pad=10)
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9, labelcolor=LIGHT.ink)
    write_png(path, figure)


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor=LIGHT.paper)
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes) -> None:
    """Give axes over training updates their look."""
    axes.set_facecolor(LIGHT.paper)
    axes.grid(color=LIGHT.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT.faint)
    axes.tick_params(which="both", colors=LIGHT.ink, labelsize=9, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(LIGHT.ink)


def literal(text: str) -> str:
    """Text that matplotlib neither reads as a formula nor, in a legend, leaves out."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure; whoever looks at the file meanwhile sees the one before or the new one.

    Raises:
        SaveError: If it cannot be written.
    """
    write_file(path, [png(figure)])


def _faintness(timeline: Timeline) -> float:
    """So that many lines do not become one surface."""
    return float(np.clip(4.0 / max(len(timeline.members), 1), 0.15, 0.6))


def _draw_over_members(
    axes: Axes, timeline: Timeline, over: Callable[[list[float]], float], color: str, label: str
) -> None:
    """A bold line of one number for each generation that has scores."""
    scores: dict[int, list[float]] = {}
    for span in timeline.spans:
        if span.score is not None:
            scores.setdefault(span.end, []).append(span.score)
    points = [(end, over(each)) for end, each in sorted(scores.items())]
    if points:
        axes.plot(
            *zip(*points, strict=True), color=color, linewidth=2.4, marker="o", markersize=4, label=label, zorder=4
        )


def _draw_schedule(
    axes: Axes, hyperparam: HyperparamConfig, timeline: Timeline, winning: Sequence[tuple[int, int, Any]]
) -> None:
    position = _dress_for(axes, hyperparam, timeline.spans)
    if not timeline.spans and isinstance(hyperparam.allowed, Interval):
        axes.set_ylim(position(hyperparam.allowed.low), position(hyperparam.allowed.high))
    for _, spans in groupby(timeline.spans, key=lambda span: span.member_id):
        own = [(span.start, span.end, span.hyperparams[hyperparam.name]) for span in spans]
        axes.plot(*_steps(own, position), color=_MEMBERS, alpha=_faintness(timeline), linewidth=1.2, zorder=2)
    if winning:
        axes.plot(*_steps(winning, position), color=WINNER, linewidth=2.6, solid_capstyle="butt", zorder=4)
    axes.set_xlim(0, max(timeline.end, 1) * 1.01)
    axes.set_title(literal(hyperparam.name), loc="left", fontsize=10, fontweight="bold", color=LIGHT.ink)


def _steps(
    stretches: Sequence[tuple[int, int, Any]], position: Callable[[Any], float]
) -> tuple[list[float], list[float]]:
    """A line that is level while a value is in force."""
    times = [float(time) for start, end, _ in stretches for time in (start, end)]
    return times, [position(value) for _, _, value in stretches for _ in range(2)]


def _dress_for(axes: Axes, hyperparam: HyperparamConfig, spans: Sequence[Span]) -> Callable[[Any], float]:
    """Make the axis of a hyper-parameter's scale; returns where on it a value lies."""
    dress(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    domain, values = hyperparam.allowed, [span.hyperparams[hyperparam.name] for span in spans]
    if isinstance(domain, Interval) and isinstance(domain.scale, LogScale):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(_log_ticks(values or (domain.low, domain.high)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: value_words(value)))
        return float
    if isinstance(domain, Interval) and not isinstance(domain.scale, LinearScale):
        return _on_positions(axes, domain, values)
    if isinstance(domain, Choices) or not all(map(is_number, values)):
        return _on_choices(axes, domain.values if isinstance(domain, Choices) else values)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    return float


def _log_ticks(values: Sequence[float]) -> Locator:
    """Ticks of a logarithmic axis, as many as one can read, whether it spans a few percent or many decades."""
    span = max(values) / min(values)
    if span < 4.0:
        return MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
    return LogLocator(subs=(1.0, 2.0, 5.0) if span < 30.0 else (1.0, 3.0) if span < 1000.0 else (1.0,))


def _on_positions(axes: Axes, domain: Interval, values: Sequence[float]) -> Callable[[Any], float]:
    """An axis on which the positions of any scale are even, with round values at the ticks."""
    positions = [domain.scale.position(each) for each in values or (domain.low, domain.high)]
    even = np.linspace(min(positions), max(positions), 5)
    rounded = {domain.nearest(_rounded(domain.scale.value(float(position)))) for position in even}
    ticks = {domain.scale.position(value): value_words(value) for value in rounded}
    axes.set_yticks([*ticks], [*ticks.values()])
    return domain.scale.position


def _rounded(value: float) -> float:
    """A number with one telling digit; of one near 1, what it lacks has one."""
    return 1 - float(f"{1 - value:.0e}") if 0.5 < value < 1 else float(f"{value:.0e}")


def _on_choices(axes: Axes, values: Sequence[Any]) -> Callable[[Any], float]:
    """An axis with a place for each value."""
    words = list(dict.fromkeys(map(str, values)))
    axes.set_yticks(range(len(words)), [literal(each if len(each) < 18 else f"{each[:15]}...") for each in words])
    axes.set_ylim(-0.5, len(words) - 0.5)
    return lambda value: float(words.index(str(value)))
