"""Pictures of results: bars with every sample, stacked bars, learning curves, scores with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from benchmarks.measure import Comparison
from everlearn.report.wording import number

Floats = NDArray[np.float64]

_OURS, _REFERENCE, _SAMPLE, _TARGET, _QUIET = "#5b8bc9", "#b9bec6", "#1c2733", "#d1495b", "#555555"
_PARTS = ("#1f4e8c", "#8fb3de", "#d9dde2", "#e08e45", "#8a8a8a")
_BELOW = 0.5  # inches between an axis and a legend below it
_STYLES = ("-", (0, (2, 1)), (0, (1, 1)))
_CONTESTANTS = ("#8a8a8a", "#e08e45", "#1f4e8c", "#4aa587", "#b0559b")


def panels(title: str, rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of axes of a size in inches, drawn without a window."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def draw_comparison(axes: Axes, comparison: Comparison) -> None:
    """A bar per contestant as long as its median, every sample as a dot, the ratio to the peer, what it must reach."""
    names = list(comparison.samples)
    colours = [_REFERENCE if name in comparison.references else _OURS for name in names]
    axes.barh(names, [comparison.median(name) for name in names], color=colours, height=0.62)
    ends = {name: max(samples) for name, samples in comparison.samples.items()}
    peers = list(dict.fromkeys(target.peer for target in comparison.targets))
    for target in comparison.targets:
        if target.must is not None:
            unit = 1.0 if target.peer is None else comparison.median(target.peer)
            row, bound = names.index(target.contestant), target.must * unit
            style: dict[str, Any] = {"color": _TARGET, "linewidth": 2, "linestyle": _STYLES[peers.index(target.peer)]}
            label = "must" if len(peers) == 1 else f"must, {'by itself' if target.peer is None else target.peer}"
            axes.plot([bound, bound], [row - 0.4, row + 0.4], zorder=4, label=label, **style)
            ends[target.contestant] = max(ends[target.contestant], bound)
    for row, (name, samples) in enumerate(comparison.samples.items()):
        axes.scatter(samples, [row] * len(samples), s=9, color=_SAMPLE, alpha=0.5, linewidths=0, zorder=3)
        _note(axes, ends[name], row, f"{number(comparison.median(name))}  ({comparison.ratio(name):.2f}x)")
    axes.set_xlim(right=1.3 * max(ends.values()))
    _dress(axes, comparison.title, f"{comparison.unit}  (ratio to {comparison.peer})")
    _as_rows(axes)
    _legend(axes, below=len(peers) > 1)


def draw_parts(axes: Axes, title: str, unit: str, parts: Mapping[str, Mapping[str, float]]) -> None:
    """A bar per contestant that is made of parts, in the order in which they are given: part to contestant to size."""
    left = dict.fromkeys(next(iter(parts.values())), 0.0)
    for colour, (part, sizes) in zip(_PARTS, parts.items(), strict=False):
        axes.barh(list(sizes), list(sizes.values()), left=list(left.values()), color=colour, height=0.62, label=part)
        left = {name: start + sizes[name] for name, start in left.items()}
    for row, total in enumerate(left.values()):
        _note(axes, total, row, number(total))
    axes.set_xlim(right=1.15 * max(left.values()))
    _dress(axes, title, unit)
    _as_rows(axes)
    _legend(axes, below=True)


def draw_growth(
    axes: Axes,
    title: str,
    size: str,
    sizes: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    of: str = "an iteration",
) -> None:
    """A line per part of an iteration over a growing size, on logarithmic axes, and what would be linear growth."""
    for colour, (part, seconds) in zip((_PARTS[0], _PARTS[3]), curves.items(), strict=True):
        axes.plot(sizes, seconds, color=colour, linewidth=1.8, marker="o", markersize=4, label=part)
        linear = [seconds[-1] * each / sizes[-1] for each in sizes]
        axes.plot(sizes, linear, color=colour, linewidth=0.9, linestyle=":")
    _dress(axes, title, size)
    axes.set_ylabel(f"seconds of {of}; dotted: linear growth")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{each:,g}" for each in sizes])
    axes.set_xticks([], minor=True)
    _legend(axes)


def draw_curves(axes: Axes, title: str, steps: Floats, curves: Mapping[str, Floats]) -> None:
    """A learning curve per contestant, (seeds, points): the mean over the seeds, and their range as a band.

    The first is the peer; its line is wide, so that one that lies on it can be seen.
    """
    for index, (colour, values) in enumerate(zip(_CONTESTANTS, curves.values(), strict=True)):
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        axes.plot(steps, values.mean(axis=0), color=colour, linewidth=1.8 if index else 5)
    _dress(axes, title, "environment steps")
    axes.set_ylabel("return of an episode in training")
    axes.yaxis.set_major_formatter(FuncFormatter(_figure))
    axes.set_xlim(left=0)


def draw_scores(
    axes: Axes,
    title: str,
    unit: str,
    scores: Mapping[str, Sequence[float]],
    centres: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> None:
    """A row per contestant, named in the colour of its curve: every seed's score, their centre and its interval."""
    for row, (name, values) in enumerate(scores.items()):
        colour, (low, high) = _CONTESTANTS[row], intervals[name]
        axes.plot([low, high], [row, row], color=colour, linewidth=9, alpha=0.3, solid_capstyle="butt")
        axes.plot([centres[name]] * 2, [row - 0.22, row + 0.22], color=colour, linewidth=3)
        axes.scatter(values, [row] * len(values), s=16, color=_SAMPLE, alpha=0.6, linewidths=0, zorder=3)
    axes.set_yticks(range(len(scores)), list(scores))
    for label, colour in zip(axes.get_yticklabels(), _CONTESTANTS, strict=False):
        label.set(color=colour, fontweight="bold")
    axes.set_ylim(-0.6, len(scores) - 0.4)
    _dress(axes, title, unit)
    _as_rows(axes)


def _note(axes: Axes, right_of: float, row: int, text: str) -> None:
    axes.annotate(text, (right_of, row), (6, 0), textcoords="offset points", va="center", fontsize=9, color=_QUIET)


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=10)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(FuncFormatter(_figure))
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(value: float, _position: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"


def _as_rows(axes: Axes) -> None:
    """The first row on top, and no lines between rows."""
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _legend(axes: Axes, *, below: bool = False) -> None:
    """One entry per label, beside the title or below the axis."""
    handles, labels = axes.get_legend_handles_labels()
    entries: dict[str, Artist] = dict(zip(labels, handles, strict=True))
    if entries:
        inches = axes.get_figure(root=True).dpi_scale_trans
        corner = axes.transAxes + ScaledTranslation(0, -_BELOW if below else 0, inches)
        axes.legend(
            entries.values(),
            entries,
            loc="upper right" if below else "lower right",
            bbox_to_anchor=(1.0, 0.0 if below else 0.99),
            bbox_transform=corner,
            ncols=len(entries),
            fontsize=8.5,
            frameon=False,
        )
