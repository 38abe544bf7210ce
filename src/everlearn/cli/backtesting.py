"""``everlearn backtest``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from everlearn.cli.options import Import, Json, Quiet, Settings, Verbose, overrides
from everlearn.cli.reporting import print_json, reported_errors
from everlearn.cli.training import SIGNALLED


def backtest(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory, or a YAML file; see examples/.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Bars with features: parquet, csv or feather.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For trainings, pictures and the page.")],
    folds: Annotated[int, typer.Option("--folds", min=1, help="Test windows; agents are trained before each.")] = 4,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings for each window.")] = 5,
    purge: Annotated[int, typer.Option("--purge", min=0, help="Bars left out between training and test.")] = 2,
    embargo: Annotated[int, typer.Option("--embargo", min=0, help="Further bars left out.")] = 0,
    train_bars: Annotated[
        int | None, typer.Option("--train-bars", metavar="N", min=1, help="A rolling training window; else all before.")
    ] = None,
    periods_per_year: Annotated[
        float, typer.Option("--periods-per-year", metavar="N", help="Bars in a year, as 252 days or 8760 hours.")
    ] = 252.0,
    trials: Annotated[
        int, typer.Option("--trials", metavar="N", min=1, help="Configurations tried before this one was chosen.")
    ] = 1,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trainings at a time.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first training.")] = 0,
    settings: Settings = None,
    imports: Import = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier backtest in DIR.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train and test agents walk-forward on a table, with costs, several seeds, and baselines to beat."""
    progress = Console(stderr=True, quiet=quiet)
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.signals.backtest import Plan
        from everlearn.signals.backtest import backtest as tested
        from everlearn.signals.backtest_files import made_free, write_backtest
        from everlearn.signals.fold_jobs import Stopped

        import_plugins(imports or [], "--import")
        plan = Plan(folds, seeds, purge, embargo, train_bars, periods_per_year, trials, jobs, seed)
        made_free(out, overwrite=overwrite)
        announce = lambda line: progress.print(line, highlight=False, soft_wrap=True)  # noqa: E731 - said once
        how: dict[str, Any] = {"settings": overrides(settings), "plugins": imports or [], "announce": announce}
        try:
            result = tested(run, table, out, plan, **how)
        except Stopped as stop:
            progress.print(str(stop), highlight=False, soft_wrap=True)
            raise typer.Exit(SIGNALLED + signal.Signals[stop.name]) from stop
        page = write_backtest(result, out, f"Backtest of {run.name} on {table.name}", _facts(run, table, result))
    if as_json:
        print_json({"page": str(page), **result.as_dict()})
    else:
        Console().print(*_lines(result, page), sep="\n", highlight=False, markup=False, soft_wrap=True)


def _facts(run: Path, table: Path, result: Any) -> dict[str, str]:
    from everlearn.markets.instants import text_of

    return {
        "Configuration": str(run),
        "Table": str(table),
        "Bars": f"{len(result.times):,}, from {text_of(result.times[0])} to {text_of(result.times[-1])}",
        "Bars per year": f"{result.plan.periods_per_year:g}",
    }


def _lines(result: Any, page: Path) -> list[str]:
    """Medians over the seeds by strategy, what the agent earned beyond the baselines, and where the page is."""
    import numpy as np

    lines = [f"{'':<16}{'return p.a.':>12}{'Sharpe':>9}{'drawdown':>10}{'turnover p.a.':>15}"]
    for name, own in result.performances.items():
        median = {
            key: float(np.median([getattr(each, key) for each in own]))
            for key in ("annualised_return", "maximum_drawdown", "turnover_per_year")
        }
        sharpe = float(np.median([each.sharpe.value for each in own]))
        lines.append(
            f"{name:<16}{median['annualised_return']:>12.1%}{sharpe:>9.2f}{median['maximum_drawdown']:>10.1%}"
            f"{median['turnover_per_year']:>15,.1f}"
        )
    for name, excess in result.excess.items():
        interval = f" [{excess.low:+.1%}, {excess.high:+.1%}]" if excess.low == excess.low else ""  # of one seed: none
        lines.append(f"  agent less {name}: {excess.value:+.1%} a year{interval}")
    return [*lines, f"The page: {page}"]
