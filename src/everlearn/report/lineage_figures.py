"""The lineage of a population as a picture: who took over whom, and from where the best comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, groupby
from operator import not_
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from everlearn.population.members import MemberId
from everlearn.population.population import Population
from everlearn.report.market_figures import LIGHT
from everlearn.report.population_figures import WINNER, canvas, dress, literal, write_png
from everlearn.report.population_timeline import Exploit, Span, Timeline, timeline_of

_NO_SCORE, _FAILED, _ARROW = "#c8ccd2", "#c1121f", "#6f757f"
_MANY = 150
"""Exploits from which on arrows are thinner."""
_HIGHEST = 20.0
"""Inches that all rows have together."""


def draw_lineage(path: Path, population: Population) -> None:
    """Write a PNG of all members over training updates, coloured by score, with an arrow for each exploit.

    The line of descent of the best member is framed; a cross is a segment that has failed.

    Args:
        path: The file.
        population: As it stands.

    Raises:
        SaveError: If it cannot be written.
    """
    timeline = timeline_of(population)
    rows = {member_id: row for row, member_id in enumerate(timeline.members)}
    high = float(np.clip(0.34 * len(rows), 1.2, min(0.19 * len(rows) + 1.2, _HIGHEST)))
    figure = canvas(9.0, 1.9 + high)
    axes = figure.add_subplot()
    thick = float(np.clip(31.0 * high / len(rows), 1.0, 9.0))  # points; less than half of what a row has
    _draw_descent(axes, timeline, rows, thick)
    _draw_spans(figure, axes, timeline.spans, rows, thick)
    _draw_exploits(axes, timeline, rows, population.config.perturbation_interval)
    _draw_failures(axes, timeline.spans, rows, thick)
    _label(axes, timeline, population)
    write_png(path, figure)


def _draw_spans(figure: Figure, axes: Axes, spans: Sequence[Span], rows: Mapping[MemberId, int], thick: float) -> None:
    """One stroke for each segment."""
    strokes = [
        ((each.start, rows[each.member_id]), (each.end, rows[each.member_id])) for each in spans if not each.failed
    ]
    scores = np.array([np.nan if each.score is None else each.score for each in spans if not each.failed])
    collection = LineCollection(
        strokes, cmap=colormaps["viridis"].with_extremes(bad=_NO_SCORE), linewidths=thick, capstyle="butt", zorder=3
    )
    finite = scores[np.isfinite(scores)]
    collection.set_array(np.ma.masked_invalid(scores))
    axes.add_collection(collection)
    if finite.size:
        # Of the worst, most are from the very beginning: they have one colour, so that the others differ.
        low, high = (float(np.percentile(finite, share)) for share in (5.0, 100.0))
        collection.set_norm(Normalize(low, high if high > low else low + 1e-9))
        bar = figure.colorbar(collection, ax=axes, pad=0.015, aspect=30, fraction=0.04)
        bar.set_label("score", color=LIGHT.ink, fontsize=9)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=LIGHT.ink, labelsize=8, length=0)


def _draw_descent(axes: Axes, timeline: Timeline, rows: Mapping[MemberId, int], thick: float) -> None:
    """A frame around the strokes of the line of descent."""
    strokes = [((stay.start, rows[stay.member_id]), (stay.end, rows[stay.member_id])) for stay in timeline.descent]
    axes.add_collection(
        LineCollection(strokes, colors=WINNER, linewidths=thick + 4.0, capstyle="butt", zorder=2.5),
        autolim=False,
    )


def _draw_exploits(axes: Axes, timeline: Timeline, rows: Mapping[MemberId, int], interval: int) -> None:
    """Those of the line of descent above all, the others behind the strokes that they cross."""
    arrows = [
        _Arrow(each.at, rows[each.source_id], rows[each.member_id], reach)
        for each, reach in _fanned(timeline, interval)
    ]
    own = [(each.member_id, each.at) in timeline.line for each in timeline.exploits]
    many = len(arrows) > _MANY
    others, line = [*compress(arrows, map(not_, own))], [*compress(arrows, own)]
    _draw_arrows(axes, others, _Pen(_ARROW, 0.7 if many else 1.1, 10 if many else 18, 1.5, 4.0))
    _draw_arrows(axes, line, _Pen(WINNER, 2.2, 42, 5.0, 5.0))


def _fanned(timeline: Timeline, interval: int) -> list[tuple[Exploit, float]]:
    """Each exploit and how long its arrow is: those of one decision arrive one beside the other."""
    found: list[tuple[Exploit, float]] = []
    for _, together in groupby(timeline.exploits, key=lambda exploit: exploit.at):
        exploits = [*together]
        found += [
            (each, interval * (0.12 + 0.7 * place / (len(exploits) + 1))) for place, each in enumerate(exploits, 1)
        ]
    return found


@dataclass(frozen=True)
class _Arrow:
    """From the end of the source's segment into the beginning of the target's next one."""

    at: float
    source: int
    target: int
    reach: float

    def curve(self) -> NDArray[np.float64]:
        """Leaves the source along its row and arrives at the target across it."""
        t, end = np.linspace(0.0, 1.0, 25)[:, None], self.at + self.reach
        first, bend, last = (
            np.array(each) for each in ((self.at, self.source), (end, self.source), (end, self.target))
        )
        curve: NDArray[np.float64] = (1 - t) ** 2 * first + 2 * (1 - t) * t * bend + t**2 * last
        return curve


@dataclass(frozen=True)
class _Pen:
    """How arrows are drawn: colour, widths of line and head, and above what."""

    color: str
    width: float
    head: float
    order: float
    head_order: float


def _draw_arrows(axes: Axes, arrows: Sequence[_Arrow], pen: _Pen) -> None:
    curves = [each.curve() for each in arrows]
    axes.add_collection(LineCollection(curves, colors=pen.color, linewidths=pen.width, zorder=pen.order), autolim=False)
    for marker, is_up in (("^", True), ("v", False)):
        ends = [(each.at + each.reach, each.target) for each in arrows if (each.target < each.source) is is_up]
        if ends:
            across, down = zip(*ends, strict=True)
            axes.scatter(across, down, s=pen.head, color=pen.color, marker=marker, linewidths=0, zorder=pen.head_order)


def _draw_failures(axes: Axes, spans: Sequence[Span], rows: Mapping[MemberId, int], thick: float) -> None:
    failed = [each for each in spans if each.failed]
    strokes = [((each.start, rows[each.member_id]), (each.end, rows[each.member_id])) for each in failed]
    axes.add_collection(LineCollection(strokes, colors=_FAILED, linewidths=1.0, linestyles="dotted", zorder=3))
    places = [((each.start + each.end) / 2, rows[each.member_id]) for each in failed]
    if places:
        size = max(18.0, 5 * thick)
        across, down = zip(*places, strict=True)
        axes.scatter(across, down, s=size, color=_FAILED, marker="x", linewidths=1.8, zorder=6)


def _label(axes: Axes, timeline: Timeline, population: Population) -> None:
    count = len(timeline.members)
    dress(axes)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(timeline.end, 1) * 1.01)
    axes.set_ylim(count - 0.4, -0.6)
    every = 1 + count // 120
    named = [row for row, each in enumerate(timeline.members) if row % every == 0 or each == timeline.winner]
    axes.set_yticks(named, [literal(str(timeline.members[row])) for row in named])
    axes.tick_params(axis="y", labelsize=float(np.clip(9 - count / 25, 5.5, 9)))
    for row, label in zip(named, axes.get_yticklabels(), strict=True):
        if timeline.members[row] == timeline.winner:
            label.set(color=WINNER, fontweight="bold")
    axes.set_ylabel("member")
    axes.set_xlabel("training updates of a member")
    axes.set_title("Lineage", loc="left", fontsize=13, fontweight="bold", color=LIGHT.ink, pad=10)
    axes.set_title(literal(_told(timeline)), loc="right", fontsize=9, color=LIGHT.ink, pad=10)


def _told(timeline: Timeline) -> str:
    """What is to be seen, as far as there is any of it."""
    failures, exploits = sum(each.failed for each in timeline.spans), len(timeline.exploits)
    words = [f"{exploits} exploit{'' if exploits == 1 else 's'}"]
    words += [f"x: failed ({failures})"] if failures else []
    words += ["grey: no score"] if any(each.score is None and not each.failed for each in timeline.spans) else []
    words += [] if timeline.winner is None else [f"framed: where the best, member {timeline.winner}, comes from"]
    return ", ".join(words)
