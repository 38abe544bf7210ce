"""Figures of backtests: equity, drawdown, positions and turnover of several strategies over time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.markets.track_record import Floats, TrackRecord
from everlearn.report.smoothing import rolling_mean

_POINTS = 4000
_STRETCHES = 500
_DASHES = ((6, 2), (2, 1.5), (6, 1.5, 1.5, 1.5), (3, 3))


@final
@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        paper: Background.
        ink: Text.
        faint: Grid.
        agents: Of strategies, in order.
        baselines: Of baselines, in order.
    """

    paper: str
    ink: str
    faint: str
    agents: tuple[str, ...]
    baselines: tuple[str, ...]


LIGHT = Theme("#ffffff", "#333a45", "#e3e6ea", ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), ("#4d4d4d", "#a06a00"))
"""Okabe and Ito's colours, which remain different with any colour vision, on white."""

DARK = Theme("#171b22", "#c9d1db", "#2d343e", ("#56b4e9", "#f08a3c", "#2fc79a", "#e39ac5"), ("#b5b5b5", "#e6c06a"))
"""The same, lighter, on nearly black."""


@final
@dataclass(frozen=True)
class Strategy:
    """The records of one strategy, over the same bars.

    Attributes:
        name: For the legend.
        records: One for each seed.
        baseline: Whether it is only what others are compared with.

    Raises:
        ArgumentError: If there is no record, or one has other bars.
    """

    name: str
    records: Sequence[TrackRecord]
    baseline: bool = False

    def __post_init__(self) -> None:
        if not self.records:
            raise ArgumentError(f"The strategy '{self.name}' has no records. Give one for each seed.")
        if not all(np.array_equal(each.timestamps, self.timestamps) for each in self.records):
            raise ArgumentError(f"The records of the strategy '{self.name}' have different bars. Test all on the same.")

    @property
    def timestamps(self) -> NDArray[Any]:
        """The bars of all records."""
        return self.records[0].timestamps


def equity_figure(strategies: Sequence[Strategy], *, theme: Theme = LIGHT) -> Figure:
    """Equity over time on a logarithmic scale; a line ends where nothing is left.

    Args:
        strategies: In the order of the legend. Of several records each is a thin line and their median a thick one.
        theme: Colours.

    Raises:
        ArgumentError: If there is no strategy, or some have dates and others count bars.
    """
    figure, axes = _figure(strategies, lambda record: record.equity, theme)
    axes.set_ylabel("Equity (start = 1, logarithmic)")
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(_ticks(*axes.get_ylim()))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_plain)
    axes.axhline(1.0, color=theme.ink, linewidth=0.8, zorder=1)
    return figure


def drawdown_figure(strategies: Sequence[Strategy], *, theme: Theme = LIGHT) -> Figure:
    """Distance of the equity from its highest point so far, over time; otherwise as ``equity_figure``."""
    figure, axes = _figure(strategies, lambda record: record.drawdown, theme)
    axes.set_ylabel("Drawdown (from the highest equity)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(top=0.0)
    return figure


def turnover_figure(
    strategies: Sequence[Strategy], periods_per_year: float, *, window: int | None = None, theme: Theme = LIGHT
) -> Figure:
    """Rolling mean of what is traded, over time; otherwise as ``equity_figure``.

    Args:
        strategies: In the order of the legend.
        periods_per_year: Bars per year.
        window: Bars of the mean; by default a twentieth of the longest record.
        theme: Colours.
    """
    bars = max([1, *(len(strategy.timestamps) // 20 for strategy in strategies)]) if window is None else window
    require_in_range("window", bars, 1)

    def traded(record: TrackRecord) -> Floats:
        means = rolling_mean(record.trades.tolist(), bars) * periods_per_year
        return means[min(bars, len(record)) - 1 :]  # the first would be over a few bars alone

    figure, axes = _figure(strategies, traded, theme)
    axes.set_ylabel(f"Turnover (times equity per year,\nmean of {bars:,} bars)")
    axes.yaxis.set_major_formatter(_plain)
    axes.set_ylim(bottom=0.0)
    return figure


def position_figure(strategies: Sequence[Strategy], *, theme: Theme = LIGHT) -> Figure:
    """Position over time, one panel for each strategy: the mean of its records and, if there are many, of a few bars.

    Args:
        strategies: From top to bottom.
        theme: Colours.

    Raises:
        ArgumentError: If there is no strategy, or some have dates and others count bars.
    """
    figure = _canvas(strategies, 0.9 + 1.15 * len(strategies), theme)
    panels = figure.subplots(len(strategies), sharex=True, squeeze=False)[:, 0]
    for axes, strategy, color in zip(panels, strategies, _colors(strategies, theme), strict=True):
        times, positions, bars = _stretches(strategy)
        axes.fill_between(times, positions, step="post", color=color, alpha=0.85, linewidth=0)
        axes.axhline(0.0, color=theme.ink, linewidth=0.8)
        words = strategy.name if bars == 1 else f"{strategy.name}, mean of {bars:,} bars"
        axes.set_title(_literal(words), loc="left", fontsize=9, color=theme.ink, pad=3)
        axes.set_ylim(min(-1.05, positions.min()), max(1.05, positions.max()))
        axes.yaxis.set_major_locator(MaxNLocator(2))
        _dress(axes, strategy.timestamps, theme)
        axes.label_outer()
    figure.supylabel("Position (share of equity)", fontsize=10, color=theme.ink)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, the same for the same figure."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


@final
@dataclass(frozen=True)
class Illustration:
    """A figure as PNG files for light and for dark surroundings, with a title and a sentence on what it shows."""

    title: str
    caption: str
    light: bytes
    dark: bytes

    @classmethod
    def of(cls, title: str, caption: str, draw: Callable[[Theme], Figure]) -> Illustration:
        """The figure that ``draw`` makes of each theme."""
        return cls(title, caption, png(draw(LIGHT)), png(draw(DARK)))


def decimated(values: Floats, points: int = _POINTS) -> NDArray[np.intp]:
    """Indices of at most ``points`` values: ends, and the smallest and largest of each of ``points/2 - 1`` stretches.

    So no extreme is lost, as it would be if every k-th value were drawn.
    """
    if values.size <= points:
        return np.arange(values.size)
    size = -(-values.size // (points // 2 - 1))
    padded = np.pad(values, (0, -values.size % size), mode="edge").reshape(-1, size)
    begins = np.arange(len(padded)) * size
    extremes = np.concatenate([begins + padded.argmin(axis=1), begins + padded.argmax(axis=1)])
    return np.unique(np.concatenate([[0], np.minimum(extremes, values.size - 1), [values.size - 1]]))


def _stretches(strategy: Strategy) -> tuple[NDArray[Any], Floats, int]:
    """Where stretches of bars begin and the last one ends, the mean position in each, and the bars of each."""
    positions = np.mean([record.positions for record in strategy.records], axis=0)
    bars = -(-positions.size // _STRETCHES)
    begins = np.arange(0, positions.size, bars)
    means = np.add.reduceat(positions, begins) / np.diff(begins, append=positions.size)
    times = np.append(strategy.timestamps[begins], strategy.timestamps[-1:])
    return times, np.append(means, means[-1]), bars


def _figure(
    strategies: Sequence[Strategy], series: Callable[[TrackRecord], Floats], theme: Theme
) -> tuple[Figure, Axes]:
    """Lines that end with the last bar, and a legend above that covers none.

    A line with a value more than there are bars begins with that, the one before the first bar.
    """
    figure = _canvas(strategies, 3.8, theme)
    axes = figure.add_subplot()
    dashes = cycle(_DASHES)
    for strategy, color in zip(strategies, _colors(strategies, theme), strict=True):
        lines = [series(record) for record in strategy.records]
        times = np.append(strategy.timestamps[:1], strategy.timestamps)[-lines[0].size :]
        label = strategy.name if len(lines) == 1 else f"{strategy.name} (median of {len(lines)})"
        for line in lines if len(lines) > 1 else []:
            rows = decimated(line)
            axes.plot(times[rows], line[rows], color=color, linewidth=0.6, alpha=0.4, zorder=2)
        median = np.median(lines, axis=0)
        rows = decimated(median)
        style = (0, next(dashes)) if strategy.baseline else "solid"
        width, order = (1.3, 3) if strategy.baseline else (1.8, 4)
        axes.plot(
            times[rows],
            median[rows],
            color=color,
            linestyle=style,
            linewidth=width,
            zorder=order,
            label=_literal(label),
        )
    _dress(axes, strategies[0].timestamps, theme)
    labels = axes.get_legend_handles_labels()[1]
    columns = max(1, 112 // (6 + max(map(len, labels))))
    figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=theme.ink)
    return figure, axes


def _literal(text: str) -> str:
    """Text that matplotlib neither reads as a formula nor, in a legend, leaves out."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _ticks(low: float, high: float) -> Locator:
    """Ticks of a logarithmic axis, as many as one can read, whether it spans a few percent or many decades."""
    if high < 10.0 * low:
        return MaxNLocator(9, steps=[1, 2, 2.5, 5, 10])
    return LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000.0 * low else (1.0,))


def _canvas(strategies: Sequence[Strategy], height: float, theme: Theme) -> Figure:
    if not strategies:
        raise ArgumentError("There is no strategy to draw. Give at least one.")
    if len({strategy.timestamps.dtype for strategy in strategies}) > 1:
        raise ArgumentError("Some strategies count bars and others have dates. Give one kind of timestamps.")
    return Figure(figsize=(7.5, height), dpi=180, layout="constrained", facecolor=theme.paper)


def _colors(strategies: Sequence[Strategy], theme: Theme) -> list[str]:
    """One for each strategy, from the colours of its kind."""
    agents, baselines = cycle(theme.agents), cycle(theme.baselines)
    return [next(baselines if strategy.baseline else agents) for strategy in strategies]


def _dress(axes: Axes, timestamps: NDArray[Any], theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.margins(x=0.01)
    axes.grid(color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=9, length=0)
    axes.tick_params(axis="x", pad=6)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
    if timestamps.dtype.kind != "M":
        axes.set_xlabel("bar")
        axes.xaxis.set_major_formatter(_plain)


@FuncFormatter
def _plain(value: float, _: int | None) -> str:
    return f"{value:,.6g}"
