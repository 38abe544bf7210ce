"""Pictures of results: bars with every sample, stacked bars, learning curves, scores with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from benchmarks.measure import Comparison
from everlearn.report.wording import number

Floats = NDArray[np.float64]

_OURS, _REFERENCE, _SAMPLE, _TARGET, _QUIET = "#5b8bc9", "#b9bec6", "#1c2733", "#d1495b", "#555555"
_PARTS = ("#1f4e8c", "#8fb3de", "#d9dde2")
_CONTESTANTS = ("#8a8a8a", "#e08e45", "#1f4e8c", "#4aa587", "#b0559b")


def panels(title: str, rows: int, columns: int, row_height: float) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of axes, drawn without a window."""
    figure = Figure(figsize=(6.5 * columns, row_height * rows + 0.7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def draw_comparison(axes: Axes, comparison: Comparison) -> None:
    """A bar per contestant as long as its median, every sample as a dot, the ratio to the peer, what it must reach."""
    names = list(comparison.samples)
    colours = [_REFERENCE if name in comparison.references else _OURS for name in names]
    axes.barh(names, [comparison.median(name) for name in names], color=colours, height=0.62)
    for row, (name, samples) in enumerate(comparison.samples.items()):
        axes.scatter(samples, [row] * len(samples), s=9, color=_SAMPLE, alpha=0.5, linewidths=0, zorder=3)
        _note(axes, max(samples), row, f"{number(comparison.median(name))}  ({comparison.ratio(name):.2f}x)")
    for target in comparison.targets:
        if target.must is not None:
            row, bound = names.index(target.contestant), target.must * comparison.median(target.peer)
            (line,) = axes.plot([bound, bound], [row - 0.4, row + 0.4], color=_TARGET, linewidth=2, zorder=4)
            line.set_label(f"must be {'at least' if comparison.more_is_better else 'at most'}")
    axes.set_xlim(right=1.3 * max(max(samples) for samples in comparison.samples.values()))
    _dress(axes, comparison.title, f"{comparison.unit}  (ratio to {comparison.peer})")
    _as_rows(axes)
    _legend(axes)


def draw_parts(axes: Axes, title: str, unit: str, parts: Mapping[str, Mapping[str, float]]) -> None:
    """A bar per contestant that is made of parts, in the order in which they are given: part to contestant to size."""
    left = dict.fromkeys(next(iter(parts.values())), 0.0)
    for colour, (part, sizes) in zip(_PARTS, parts.items(), strict=True):
        axes.barh(list(sizes), list(sizes.values()), left=list(left.values()), color=colour, height=0.62, label=part)
        left = {name: start + sizes[name] for name, start in left.items()}
    for row, total in enumerate(left.values()):
        _note(axes, total, row, number(total))
    axes.set_xlim(right=1.15 * max(left.values()))
    _dress(axes, title, unit)
    _as_rows(axes)
    _legend(axes)


def draw_curves(axes: Axes, title: str, steps: Floats, curves: Mapping[str, Floats]) -> None:
    """A learning curve per contestant, (seeds, points): the mean over the seeds, and their range as a band."""
    for colour, (name, values) in zip(_CONTESTANTS, curves.items(), strict=True):
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        axes.plot(steps, values.mean(axis=0), color=colour, linewidth=1.8, label=name)
    _dress(axes, title, "environment steps")
    axes.set_ylabel("return of an episode in training")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(left=0)
    _legend(axes)


def draw_scores(
    axes: Axes,
    title: str,
    unit: str,
    scores: Mapping[str, Sequence[float]],
    centres: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> None:
    """A row per contestant: the score of every seed, their centre and its interval."""
    for row, (name, values) in enumerate(scores.items()):
        colour, (low, high) = _CONTESTANTS[row], intervals[name]
        axes.plot([low, high], [row, row], color=colour, linewidth=9, alpha=0.3, solid_capstyle="butt")
        axes.plot([centres[name]] * 2, [row - 0.22, row + 0.22], color=colour, linewidth=3)
        axes.scatter(values, [row] * len(values), s=16, color=_SAMPLE, alpha=0.6, linewidths=0, zorder=3)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(-0.6, len(scores) - 0.4)
    _dress(axes, title, unit)
    _as_rows(axes)


def _note(axes: Axes, right_of: float, row: int, text: str) -> None:
    axes.annotate(text, (right_of, row), (6, 0), textcoords="offset points", va="center", fontsize=9, color=_QUIET)


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _as_rows(axes: Axes) -> None:
    """The first row on top, and no lines between rows."""
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _legend(axes: Axes) -> None:
    """One entry per label, above the panel and out of the way of what is drawn."""
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    if entries:
        axes.legend(
            entries.values(), entries, frameon=False, fontsize=8.5, ncols=3, loc="lower right",
            bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2,
        )  # fmt: skip
