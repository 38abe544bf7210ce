"""The commands, put together."""

from __future__ import annotations

import typer

from everlearn.cli import (
    backtesting,
    configuring,
    converting,
    evaluating,
    exporting,
    inspecting,
    populating,
    resuming,
    signalling,
    training,
)

app = typer.Typer(
    name="everlearn",
    help="Train agents that keep learning, and see what they have learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(training.train)
app.command()(resuming.resume)
app.command("verify-resume")(resuming.verify_resume)
app.command()(evaluating.evaluate)
app.command()(signalling.signals)
app.command()(backtesting.backtest)
app.command()(inspecting.inspect)
app.command()(converting.convert)
app.command()(exporting.export)
app.add_typer(populating.app, name="pbt")
app.add_typer(configuring.app, name="config")


@app.callback()
def _everlearn() -> None:
    """Train agents that keep learning, and see what they have learned."""


def main() -> None:
    """Run the command; the process ends with its exit code."""
    app()
