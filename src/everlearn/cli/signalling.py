"""``everlearn signals``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from everlearn.cli.options import Json, Verbose
from everlearn.cli.reporting import print_json, reported_errors


def signals(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file (also .onnx), or a run's directory.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Bars with features: parquet, csv or feather.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The signals: parquet, csv or feather.")],
    append: Annotated[bool, typer.Option("--append", help="Add the rows that OUT does not have yet.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Of a run, decide with its best checkpoint.")] = False,
    quantiles: Annotated[
        str | None, typer.Option("--quantiles", metavar="LEVELS", help="Of the value, as in 0.05,0.5,0.95; or none.")
    ] = None,
    buy: Annotated[float | None, typer.Option("--buy", help="BUY at or above this score.")] = None,
    sell: Annotated[float | None, typer.Option("--sell", help="SELL at or below this score.")] = None,
    dead_zone: Annotated[float | None, typer.Option("--dead-zone", help="Smaller scores are reported as 0.")] = None,
    check_causality: Annotated[
        bool, typer.Option("--check-causality", help="Score random prefixes too: no row may depend on later ones.")
    ] = False,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="What the SHA-256 of MODEL has to be.")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score a table of bars with a trained policy: one row of signals for each row, in the same order.

    All that is needed is in MODEL. A row that cannot be decided on says why, and holds no number.
    """
    with reported_errors(verbose):
        from everlearn.runs.model_files import model_at
        from everlearn.signals.predictor import SignalPredictor
        from everlearn.signals.writing import write_signals

        source = model_at(model, "best" if best else "latest")
        predictor = SignalPredictor.load(source, quantiles=_levels(quantiles), sha256=sha256)
        given = {"buy": buy, "sell": sell, "dead_zone": dead_zone}
        predictor = predictor.with_thresholds({name: value for name, value in given.items() if value is not None})
        checked = predictor.require_causal(table) if check_causality else None
        summary = write_signals(predictor, table, out, append=append, overwrite=overwrite)
    if as_json:
        print_json({**summary.as_dict(), "causality_prefixes": checked})
    else:
        Console().print(*_lines(summary, checked), sep="\n", highlight=False, markup=False, soft_wrap=True)


def _levels(text: str | None) -> tuple[float, ...] | None:
    from everlearn.core.errors import ConfigError

    if text is None:
        return None
    try:
        return () if text.strip() in ("", "none") else tuple(float(level) for level in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--quantiles {text}: write levels between 0 and 1, as in 0.05,0.5,0.95, or none.") from error


def _lines(summary: Any, checked: list[int] | None) -> list[str]:
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.signals.items()))
    reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.reasons.items()) if name != "ok")
    lines = [
        f"{summary.file}: {summary.written:,} rows written of {summary.rows:,} scored in {summary.seconds:.1f} s "
        f"({counts or 'none'})",
        *([f"  not valid: {reasons}"] if reasons else []),
        f"  from {summary.first} to {summary.last}, model {summary.model_id[:16]}" if summary.rows else "  no rows",
    ]
    return lines + ([f"  causal on {len(checked)} prefixes"] if checked is not None else [])
