"""A backtest as one page: what was tested, how it went, how sure one can be of it, and how it was measured."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, final

from numpy.typing import NDArray

from everlearn.core.errors import ArgumentError
from everlearn.markets.performance import Estimate, Performance
from everlearn.markets.splits import Fold
from everlearn.report.market_figures import Illustration

_UNDEFINED, _MINUS, _PNG = "\N{EN DASH}", "\N{MINUS SIGN}", "data:image/png;base64,"

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d242e; --soft: #5b6674; --line: #dfe3e8; --tint: #f4f6f8;
  --train: #0072b2; --test: #d55e00; --alarm: #fff4e5; --alarm-line: #d98200; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #171b22; --ink: #e4e9ef; --soft: #9aa6b4;
  --line: #2d343e; --tint: #1f252e; --train: #56b4e9; --test: #f08a3c; --alarm: #33270f; --alarm-line: #e6a23c; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 0.75rem; font-size: 1.2rem; break-after: avoid; }
* { box-sizing: border-box; } p, figcaption, small, .baseline td, dt, th { color: var(--soft); }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 0.75rem; font-size: 1.2rem; break-after: avoid; } p { margin: 0.4rem 0; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 0.75rem; margin: 1.75rem 0; }
.tiles div { padding: 0.9rem 1.1rem; background: var(--tint); border: 1px solid var(--line); border-radius: 0.5rem; }
.tiles b { display: block; font-size: 1.75rem; line-height: 1.3; } .warnings ul { margin: 0; padding-left: 1.2rem; }
.warnings { padding: 0.7rem 1.1rem; background: var(--alarm); border-left: 4px solid var(--alarm-line); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.35rem 1.5rem; margin: 0; }
dd { margin: 0; max-width: 50rem; overflow-wrap: anywhere; } .scroll { overflow-x: auto; }
table { min-width: 34rem; border-collapse: collapse; font-size: 0.82rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 500; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { position: sticky; left: 0; padding-left: 0; background: var(--paper); text-align: left;
  white-space: normal; overflow-wrap: break-word; }
td small { display: block; font-size: 0.72rem; line-height: 1.2; font-weight: 400; }
.whole td { font-weight: 600; border-top: 2px solid var(--line); }
.seed td:first-child { padding-left: 0.75rem; color: var(--soft); }
svg { display: block; width: 18rem; height: 0.7rem; background: var(--tint); }
.train { fill: var(--train); } .test { fill: var(--test); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure img { display: block; width: 100%; min-width: 32rem; border: 1px solid var(--line); border-radius: 0.5rem; }
figcaption { margin-bottom: 0.5rem; font-size: 0.9rem; } figcaption b { display: block; color: var(--ink); }
@media (max-width: 45rem) { body { padding-top: 1.25rem; } h1 { font-size: 1.5rem; } dl { grid-template-columns: 1fr;
  gap: 0; } dd { margin-bottom: 0.6rem; } .tiles { grid-template-columns: 1fr 1fr; } }
@media print { @page { size: A4; margin: 14mm; } body { padding: 0; font-size: 10pt; } tr { break-inside: avoid; }
  table { min-width: 0; font-size: 6.5pt; } th, td { padding: 2pt 2.5pt; } td small { font-size: 5.5pt; }
  svg { width: 8rem; } .scroll { overflow: visible; } .figures { display: block; } figure { margin-bottom: 1rem; }
  figure img { min-width: 0; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body>{content}</body></html>
"""

_COLUMNS = (
    ("Return p.a.", "annualised_return", ".1%"),
    ("Volatility p.a.", "volatility", ".1%"),
    ("Sharpe", "sharpe", ".2f"),
    ("Sortino", "sortino", ".2f"),
    ("Maximum drawdown", "maximum_drawdown", ".1%"),
    ("Calmar", "calmar", ".2f"),
    ("Turnover p.a.", "turnover_per_year", ",.1f"),
    ("Costs p.a.", "costs_per_year", ".2%"),
    ("Exposure", "exposure", ".0%"),
    ("Hit rate", "hit_rate", ".1%"),
    ("P(Sharpe&nbsp;&gt;&nbsp;0)", "probabilistic_sharpe", ".1%"),
    ("Deflated Sharpe", "deflated_sharpe", ".1%"),
)


@final
@dataclass(frozen=True)
class Result:
    """A strategy's name, its figures by seed (such as "seed 3"), and whether it is what others are compared with."""

    strategy: str
    performances: Mapping[str, Performance]
    baseline: bool = False


@final
@dataclass(frozen=True)
class FoldTable:
    """The folds in order of time, the bars purged and embargoed before each test, and the timestamps of all bars."""

    folds: Sequence[Fold]
    purge: int
    embargo: int
    timestamps: NDArray[Any] | None = None


@final
@dataclass(frozen=True)
class BacktestPage:
    """What the page says.

    Attributes:
        facts: What was tested, by name: data, period, algorithm, ...
        results: One for each strategy; the page is about the first.
        costs: What trading costs, in a sentence.
        differences: By name of the comparison, such as the difference of Sharpe ratios to a baseline over seeds.
        warnings: What to know before believing the figures.
        notes: Further facts on method, by name.

    Raises:
        ArgumentError: If a strategy has no figures, or some have other bars per year or another confidence.
    """

    title: str
    facts: Mapping[str, str]
    results: Sequence[Result]
    costs: str
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    illustrations: Sequence[Illustration] = ()
    fold_table: FoldTable | None = None
    warnings: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = {(each.periods_per_year, each.confidence) for row in self.results for each in row.performances.values()}
        if len(kinds) != 1 or not all(result.performances for result in self.results):
            raise ArgumentError(
                f"{len(self.results)} strategies are measured in {len(kinds)} ways. Give one strategy or more, each "
                "with a record, and all with the same periods_per_year and confidence."
            )


def write_backtest_page(path: Path, page: BacktestPage) -> None:
    """Write the page to a file that needs no other file, no network and no scripts."""
    path.write_text(backtest_html(page), encoding="utf-8")


def backtest_html(page: BacktestPage) -> str:
    """The page as HTML; every text in it is escaped."""
    first, about = page.results[0], list(page.results[0].performances.values())
    bars, years = about[0].bars, about[0].bars / about[0].periods_per_year
    lead = f"{first.strategy}, {_plural(len(about), 'seed')}, {_plural(bars, 'bar')} ({years:.1f} years)"
    figures = f'<div class="figures">{"".join(map(_figure, page.illustrations))}</div>'
    sections = [
        f"<h1>{escape(page.title)}</h1><p>{escape(lead)}</p>",
        _tiles(about),
        _warnings(page.warnings),
        _section("What was tested", _definitions(page.facts)),
        _section("Performance", _performance_table(page.results)),
        _section("Compared over seeds", _difference_table(page.differences)) if page.differences else "",
        _section("Figures", figures) if page.illustrations else "",
        _section("Folds", _fold_table(page.fold_table)) if page.fold_table else "",
        _section("Method", _definitions(_method(page, about[0]))),
    ]
    return _PAGE.format(title=escape(page.title), style=_STYLE, content="\n".join(filter(None, sections)))


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>"


def _definitions(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in facts.items())}</dl>"


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<aside class="warnings"><strong>Read this first</strong><ul>{items}</ul></aside>' if items else ""


def _tiles(about: Sequence[Performance]) -> str:
    """The four figures that count: the median over seeds, and their range or the interval of the only one."""
    tiles = []
    for heading, name, form in (_COLUMNS[2], _COLUMNS[0], _COLUMNS[4], _COLUMNS[11]):
        values = _defined(about, name)
        below = [f"seeds {_words(min(values), form)} to {_words(max(values), form)}"] if len(values) > 1 else []
        if len(about) == 1 and name == "sharpe":
            below.append(f"{about[0].confidence:.0%} interval {_interval(about[0].sharpe)}")
        if name == "deflated_sharpe":
            below.append(f"best of {_plural(about[0].trials, 'trial')}")
        tiles.append(f"<div>{heading}<b>{_words(_middle(values), form)}</b><small>{'<br>'.join(below)}</small></div>")
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _performance_table(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        kind, members = " baseline" * result.baseline, result.performances
        below = next(iter(members)) if len(members) == 1 else f"median of {len(members)} seeds"
        whole = f"{escape(result.strategy)}<small>{escape(below)}</small>"
        rows.append(_row(f"whole{kind}", (whole, *_figures(list(members.values())))))
        if len(members) > 1:
            rows += [_row(f"seed{kind}", (escape(name), *_figures([each]))) for name, each in members.items()]
    return _table(("Strategy", *(heading for heading, _, _ in _COLUMNS)), rows)


def _figures(performances: Sequence[Performance]) -> list[str]:
    """A cell for each column: the median of several records, or the figure of one, with its interval if it has one."""
    cells = [_words(_middle(_defined(performances, name)), form) for _, name, form in _COLUMNS]
    if len(performances) == 1:
        cells[2] += f"<small>{_interval(performances[0].sharpe)}</small>"
    return cells


def _difference_table(differences: Mapping[str, Estimate]) -> str:
    rows = [_row("", (escape(name), _words(each.value, "+.2f"), _interval(each))) for name, each in differences.items()]
    return _table(("Difference", "Interquartile mean over seeds", "Interval"), rows)


def _fold_table(table: FoldTable) -> str:
    rows = []
    for number, fold in enumerate(table.folds, start=1):
        train, test = (_period(part, table.timestamps) for part in (fold.train, fold.test))
        cells = (number, train, table.purge, table.embargo, test, _timeline(fold, table.folds[-1].test.stop))
        rows.append(_row("", cells))
    return _table(("Fold", "Trained on", "Purged bars", "Embargoed bars", "Tested on", "Trained, then tested"), rows)


def _period(bars: range, timestamps: NDArray[Any] | None) -> str:
    """Dates of the first and last bar, with times if any bar has one; numbers where there are no dates."""
    if timestamps is None or timestamps.dtype.kind != "M":
        return f"{bars[0]:,} to {bars[-1]:,}"
    unit = "datetime64[D]" if (timestamps == timestamps.astype("datetime64[D]")).all() else "datetime64[m]"
    ends = timestamps[[bars[0], bars[-1]]].astype(unit)
    return " to ".join(str(end).replace("T", " ") for end in ends)


def _timeline(fold: Fold, bars: int) -> str:
    parts = "".join(
        f'<rect class="{name}" x="{100 * part.start / bars:.2f}" width="{100 * len(part) / bars:.2f}" height="9"/>'
        for name, part in (("train", fold.train), ("test", fold.test))
    )
    return f'<svg viewBox="0 0 100 9" preserveAspectRatio="none" aria-hidden="true">{parts}</svg>'


def _figure(illustration: Illustration) -> str:
    light, dark = (base64.b64encode(each).decode() for each in (illustration.light, illustration.dark))
    title, caption = escape(illustration.title), escape(illustration.caption)
    return (
        f"<figure><figcaption><b>{title}</b>{caption}</figcaption>"
        f'<div class="scroll"><picture><source media="screen and (prefers-color-scheme: dark)" srcset="{_PNG}{dark}">'
        f'<img src="{_PNG}{light}" alt="{title}: {caption}"></picture></div></figure>'
    )


def _method(page: BacktestPage, measured: Performance) -> dict[str, str]:
    return {
        "Execution": "A decision at the close of a bar is executed at the next bar and earns from there on.",
        "Costs": page.costs,
        "Returns": f"Net of costs, annualised with {measured.periods_per_year:,.6g} bars per year; riskless rate 0.",
        "Intervals": f"{measured.confidence:.0%}. Of one record by the stationary bootstrap of its bars (Politis and "
        "Romano 1994), of differences by a bootstrap of the seeds.",
        "Deflated Sharpe": "Probability that the true Sharpe ratio exceeds the best that luck alone would show among "
        f"{_plural(measured.trials, 'trial')} (Bailey and Lopez de Prado 2014).",
        "Other figures": "Sortino: against losses below 0. Calmar: return p.a. over maximum drawdown. Turnover: times "
        "the equity. Exposure: mean absolute position. Hit rate: gains among bars with a position and a result. "
        f"{_UNDEFINED} is a figure that is not defined.",
        **page.notes,
    }


def _table(headings: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _row(kind: str, cells: Iterable[str | int]) -> str:
    return f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _defined(performances: Sequence[Performance], name: str) -> list[float]:
    return [value for each in performances if (value := each.as_dict()[name]) is not None]


def _middle(values: Sequence[float]) -> float:
    return median(values) if values else math.nan


def _interval(estimate: Estimate) -> str:
    return f"{_words(estimate.low, '.2f')} to {_words(estimate.high, '.2f')}"


def _words(value: float, form: str) -> str:
    return format(value, form).replace("-", _MINUS) if math.isfinite(value) else _UNDEFINED


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
