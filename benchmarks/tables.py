"""Tables of results, for the terminal and for the results page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import rich.box
import rich.table
from rich.text import Text

from benchmarks.measure import Comparison, reaches
from everlearn.report.wording import number

NOTHING = "-"
REACHED, MISSED = "reached", "missed"
_NAME_WIDTH = 30  # narrower, and names of contestants would be cut on a narrow terminal
_STYLES = {REACHED: "green", MISSED: "red"}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown, under its title."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines])

    def rich(self) -> rich.table.Table:
        """The table for a terminal, with verdicts in colour."""
        table = rich.table.Table(title=self.title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD)
        names = [row[0] for row in self.rows]
        table.add_column(self.columns[0], min_width=min(_NAME_WIDTH, max(map(len, names))))
        for column in self.columns[1:]:
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(*(Text(cell, style=_STYLES.get(cell.rpartition(" ")[2], "")) for cell in row))
        return table


def comparison_table(comparison: Comparison) -> Table:
    """A row per contestant: median, lowest and highest sample, ratio to the peer, and the further columns."""
    columns = ["contestant", comparison.unit, "lowest", "highest", "ratio", *comparison.details]
    rows = []
    for name, samples in comparison.samples.items():
        figures = [comparison.median(name), min(samples), max(samples), comparison.ratio(name)]
        details = [column.get(name) for column in comparison.details.values()]
        rows.append([name, *(NOTHING if figure is None else number(figure) for figure in [*figures, *details])])
    return Table(f"{comparison.title}, ratio to {comparison.peer}", columns, rows)


def part_table(title: str, unit: str, parts: Mapping[str, Mapping[str, float]]) -> Table:
    """A row per contestant: the size of every part and their sum. Parts are part to contestant to size."""
    rows = []
    for name in next(iter(parts.values())):
        sizes = [part[name] for part in parts.values()]
        rows.append([name, *map(number, [*sizes, sum(sizes)])])
    return Table(title, [unit, *parts, "sum"], rows)


def target_table(comparisons: Sequence[Comparison]) -> Table:
    """A row per target: the ratio, or median, that was reached beside the ones that must and should be."""
    rows = []
    for comparison in comparisons:
        for target in comparison.targets:
            reached = comparison.reached(target)
            beside = f"in {comparison.unit}" if target.peer is None else f"to {target.peer}"
            subject = f"{target.label} {comparison.title}: {target.contestant} {beside}"
            bounds = (
                bound_cell(reached, bound, more_is_better=comparison.more_is_better)
                for bound in (target.must, target.aim)
            )
            rows.append([subject, number(reached), *bounds])
    return Table("Targets", ["target", "ratio", "must", "aim"], rows)


def pairs(title: str, columns: tuple[str, str], values: Mapping[str, str]) -> Table:
    """A table of names and values."""
    return Table(title, columns, [list(item) for item in values.items()])


def range_cell(low: float, high: float) -> str:
    """``-180.3 to -150.0``, both with as many decimals."""
    return f"{number(low, beside=high)} to {number(high, beside=low)}"


def bound_cell(value: float, bound: float | None, *, more_is_better: bool) -> str:
    """``≥ 0.9 reached``; a dash where there is no bound."""
    if bound is None:
        return NOTHING
    verdict = REACHED if reaches(value, bound, more_is_better=more_is_better) else MISSED
    return f"{'≥' if more_is_better else '≤'} {bound:g} {verdict}"
