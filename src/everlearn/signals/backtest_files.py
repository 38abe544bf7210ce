"""A backtest in files: figures for a machine, pictures, and one page for people."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from everlearn.checkpoint.files import write_file
from everlearn.core.errors import ConfigError
from everlearn.report.backtest_page import BacktestPage, FoldTable, Result, backtest_html
from everlearn.report.market_figures import (
    Illustration,
    Strategy,
    Theme,
    drawdown_figure,
    equity_figure,
    position_figure,
    turnover_figure,
)
from everlearn.signals.backtest import AGENT, Backtest
from everlearn.signals.records import HOLDING

PAGE, FIGURES = "report.html", "backtest.json"
_CAPTIONS = {
    "equity": "What one unit of money becomes, after costs; a thin line for each seed, their median thick.",
    "drawdown": "How far below its highest point the account is.",
    "positions": "What is held: the mean over the seeds.",
    "turnover": "How much is traded, in units of the account's value per year.",
}


def write_backtest(result: Backtest, out: Path, title: str, facts: dict[str, str]) -> Path:
    """Write the figures, the pictures and the page.

    Args:
        result: What came out.
        out: The directory.
        title: Of the page.
        facts: What was tested, by name.

    Returns:
        The page's path.

    Raises:
        SaveError: If a file cannot be written.
    """
    plan, costs, pictures = result.plan, result.costs, _illustrations(result)
    for name, picture in pictures.items():
        write_file(out / f"{name}.png", [picture.light])
    document = {"facts": facts, **result.as_dict()}
    write_file(out / FIGURES, [json.dumps(document, indent=1, allow_nan=False).encode()])
    page = BacktestPage(
        title=title,
        facts=facts,
        results=[
            Result(name, {_seed(result, name, number): each for number, each in enumerate(own)}, baseline=name != AGENT)
            for name, own in result.performances.items()
        ],
        costs=f"A fee of {costs.fee:.3%} and slippage of {costs.slippage:.3%} of each change of position.",
        differences={f"Return p.a. less {name}": estimate for name, estimate in result.excess.items()},
        illustrations=list(pictures.values()),
        fold_table=FoldTable(result.folds, plan.purge, plan.embargo, result.times.astype("datetime64[us]")),
        warnings=_warnings(result),
        notes=_NOTES,
    )
    write_file(out / PAGE, [backtest_html(page).encode()])
    return out / PAGE


def made_free(out: Path, *, overwrite: bool) -> None:
    """See that a directory is new or empty; where asked, by taking an earlier backtest away.

    Raises:
        ConfigError: If there is anything else in it, or a backtest and it is not to be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if (
        not out.is_dir()
        or (out / "config.yaml").exists()
        or not ((out / FIGURES).exists() or (out / "fold-1").is_dir())
    ):
        raise ConfigError(f"{out}: this is no backtest's directory. Name a new one.")
    if not overwrite:
        raise ConfigError(f"{out}: a backtest is there already. Name another directory, or use --overwrite.")
    for name in (PAGE, FIGURES, *(f"{picture}.png" for picture in _CAPTIONS)):
        (out / name).unlink(missing_ok=True)
    for folder in out.glob("fold-*"):
        shutil.rmtree(folder)


def _illustrations(result: Backtest) -> dict[str, Illustration]:
    strategies = [Strategy(name, own, baseline=name != AGENT) for name, own in result.records.items()]
    year = result.plan.periods_per_year
    draw: dict[str, Callable[[Theme], Figure]] = {
        "equity": lambda theme: equity_figure(strategies, theme=theme),
        "drawdown": lambda theme: drawdown_figure(strategies, theme=theme),
        "positions": lambda theme: position_figure(strategies[:1], theme=theme),
        "turnover": lambda theme: turnover_figure(strategies[:2], year, theme=theme),
    }
    return {name: Illustration.of(name.capitalize(), _CAPTIONS[name], partial(each)) for name, each in draw.items()}


def _seed(result: Backtest, name: str, number: int) -> str:
    return "" if name == HOLDING else f"seed {result.plan.seed + number}"


def _warnings(result: Backtest) -> list[str]:
    found = []
    if result.plan.seeds < 5:
        found.append(f"Only {result.plan.seeds} seeds: how much depends on luck in training is hardly known.")
    if result.plan.trials == 1:
        found.append("One configuration is said to have been tried. If it was chosen among several, say --trials.")
    for name, estimate in result.excess.items():
        if math.isfinite(estimate.low) and estimate.low <= 0:
            found.append(f"Over the seeds, the agent is not shown to earn more than '{name}': the interval reaches 0.")
    return found


_NOTES = {
    "Training": "For each window and seed an agent is trained on the bars before it, less those purged and embargoed; "
    "feature statistics are fitted on the same bars.",
    "Random": "The agent's own positions in random order: its exposure, and a turnover that is far larger.",
    "Random timing": "The agent's own positions, begun at another bar: its exposure and its turnover.",
}
