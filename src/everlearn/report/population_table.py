"""A table of a population's members that fits into the width of a terminal and never fills its height."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from everlearn.population.members import MemberId, MetricMode
from everlearn.report.population_rows import MemberRow, change_words, ranked_rows, score_words, value_words
from everlearn.report.wording import number

_BAR, _GAP = 10, 2
_LONGEST = 14
"""Columns of a member's id or of a hyper-parameter's value."""
_HEADER = 9
"""Columns of a hyper-parameter's name in one line."""


@dataclass(frozen=True)
class Segments:
    """How far the segments of a generation are.

    Args:
        length: Training updates of each.
        updates: Of those that are being trained.
    """

    length: int
    updates: Mapping[MemberId, int]

    def of(self, row: MemberRow) -> int:
        """Training updates of a member."""
        done = self.length if row.state == "done" else 0
        return done if row.state != "open" else min(self.updates.get(row.member_id, 0), self.length)

    def word(self, row: MemberRow) -> str:
        """What a member does."""
        if row.state != "open":
            return row.state
        return "trains" if row.member_id in self.updates else "waits"


@dataclass(frozen=True)
class _Column:
    """One column of the table.

    Args:
        header: Its name, in one line or two.
        cells: One for each row.
        rank: Columns of a higher rank are left out first; those of rank 0 never.
        least: Width that it has at least.
        left: Whether its cells are on the left.
        is_hyperparameter: Whether it is of one, so that something is said where there is no room for it.
    """

    header: str
    cells: Sequence[RenderableType]
    rank: int = 0
    least: int = 0
    left: bool = False
    is_hyperparameter: bool = False

    @property
    def width(self) -> int:
        """Of the widest cell."""
        texts = [Text(line) for line in self.header.split("\n")] + [each for each in self.cells if type(each) is Text]
        return max(self.least, *(each.cell_len for each in texts))


def member_table(
    rows: Sequence[MemberRow],
    width: int,
    mode: MetricMode,
    *,
    most: int = 20,
    segments: Segments | None = None,
) -> Table:
    """One line for each member; of many the best and the worst, with how many there are between.

    Args:
        rows: All members, in their order.
        width: Columns of the terminal; what is less important is left out where they do not suffice.
        mode: Whether higher or lower is better.
        most: Lines at most.
        segments: How far the generation is; None shows only what has become of it.
    """
    shown, hidden = _chosen(rows, mode, max(most, 3))
    columns = _columns(shown, segments or Segments(1, {}), live=segments is not None)
    fitting = _fitting(columns, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold", show_edge=False)
    for column in fitting:
        table.add_column(
            column.header,
            justify="left" if column.left else "right",
            no_wrap=True,
            width=column.width,
            vertical="bottom",
        )
    for index, row in enumerate(shown):
        if index == hidden.after:
            table.add_row(Text("..."), *([""] * (len(fitting) - 1)), style="dim")
        style = "bold green" if row.is_best else "red" if row.state == "failed" else None
        table.add_row(*(column.cells[index] for column in fitting), style=style)
    left_out = [each.header.replace("\n", "") for each in columns if each not in fitting and each.is_hyperparameter]
    notes = [*hidden.words, *([f"no room for {', '.join(left_out)}"] if left_out else [])]
    if notes:
        table.caption, table.caption_style, table.caption_justify = Text("; ".join(notes)), "dim", "left"
    return table


@dataclass(frozen=True)
class _Hidden:
    """Members that are not shown: behind how many rows, and what is said of them."""

    after: int = -1
    words: tuple[str, ...] = ()


def _chosen(rows: Sequence[MemberRow], mode: MetricMode, most: int) -> tuple[list[MemberRow], _Hidden]:
    """Who is shown: all, in their order, or the best and the worst."""
    if len(rows) <= most:
        return [*rows], _Hidden()
    ranked, worst = ranked_rows(rows, mode), most // 3
    best = most - worst - 1
    middle = ranked[best : len(ranked) - worst]
    counts = {word: sum(row.state == word for row in middle) for word in ("done", "failed")}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    words = f"{len(middle)} members between the best and the worst are not shown"
    return [*ranked[:best], *ranked[len(ranked) - worst :]], _Hidden(best, (f"{words} ({told})" if told else words,))


def _columns(rows: Sequence[MemberRow], segments: Segments, *, live: bool) -> list[_Column]:
    parents = [Text("" if row.parent is None else f"<- {_cut(str(row.parent))}") for row in rows]
    speeds = [Text("" if not row.speed else number(row.speed)) for row in rows]
    counts = [Text(f"{segments.of(row)}/{segments.length}") for row in rows]
    bars = [ProgressBar(total=segments.length, completed=segments.of(row), width=_BAR) for row in rows]
    words = [Text(segments.word(row) if live else row.state) for row in rows]
    names = list(rows[0].hyperparams) if rows else []
    return [
        _Column("member", [Text(f"{'* ' if row.is_best else ''}{_cut(str(row.member_id))}") for row in rows]),
        _Column("score", [Text(score_words(row.score)) for row in rows], least=6),
        _Column("change", [Text(change_words(row.change)) for row in rows], rank=3, least=6),
        *(
            _Column(
                _folded(name),
                [Text(_cut(value_words(row.hyperparams[name]))) for row in rows],
                rank=4 + place,
                is_hyperparameter=True,
            )
            for place, name in enumerate(names)
        ),
        _Column("from", parents, rank=2, left=True),
        *([_Column("segment", bars, rank=2000, least=_BAR, left=True)] if live else []),
        *([_Column("updates", counts, rank=1)] if live else []),
        _Column("state", words, least=6, left=True),
        _Column("env\nsteps/s", speeds, rank=1000),
    ]


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Those for which there is room."""
    fitting = [*columns]
    while sum(column.width + _GAP for column in fitting) - _GAP > width:
        least = max(fitting, key=lambda column: column.rank)
        if least.rank == 0:
            break
        fitting.remove(least)
    return fitting


def _folded(name: str) -> str:
    """A name in two lines where it is long."""
    places = [index + 1 for index, letter in enumerate(name) if letter in "._" and 0 < index < len(name) - 1]
    if len(name) <= _HEADER or not places:
        return name
    place = min(places, key=lambda each: abs(2 * each - len(name)))
    return f"{name[:place]}\n{name[place:]}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
