"""``everlearn train``."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from everlearn.cli.options import Device, Env, File, Import, Json, Quiet, Seed, Settings, Verbose, overrides
from everlearn.cli.reporting import print_json, reported_errors

if TYPE_CHECKING:
    from everlearn.runs import Run

TimeLimit = Annotated[
    str | None,
    typer.Option("--time-limit", metavar="TIME", help="End after seconds, or 90m, 1h30m, 2d; the agent is saved."),
]
SIGNALLED = 128  # a command that a signal ended returns 128 + its number


def train(
    config: File = None,
    env: Env = None,
    steps: Annotated[
        float | None, typer.Option("--steps", metavar="N", help="Environment steps, over all environments.")
    ] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Directory of the run.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out.")] = False,
    time_limit: TimeLimit = None,
    seed: Seed = None,
    device: Device = None,
    imports: Import = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train an agent and leave the run in a directory.

    Without CONFIG: everlearn train --env CartPole-v1
    """
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.report import display_for
        from everlearn.runs import train as run_training

        import_plugins(imports or [], "--import")
        replaced = overrides(settings, env__id=env, total_timesteps=steps, seed=seed, runtime__device=device)
        with closing(display_for(Console(stderr=True), quiet)) as display:
            run = run_training(
                config,
                out,
                settings=replaced,
                overwrite=overwrite,
                plugins=imports or [],
                time_limit=time_limit,
                display=display,
            )
    finish(run, as_json=as_json)


def finish(run: Run, *, as_json: bool) -> None:
    """Print what a run has come to, and how it goes on if it was stopped; a signal that did it decides the exit code.

    Raises:
        typer.Exit: After a signal.
    """
    from everlearn.report import print_summary

    summary = run.summary
    if as_json:
        print_json(summary.as_dict())
    else:
        print_summary(Console(), summary, run.config.plugins)
        if summary.stopped_by is not None:
            imports = "".join(f" --import {plugin}" for plugin in run.config.plugins)
            Console(soft_wrap=True, highlight=False).print(f"Go on with: everlearn resume {run.path}{imports}")
    if summary.stopped_by is not None and summary.stopped_by in signal.Signals.__members__:
        raise typer.Exit(SIGNALLED + signal.Signals[summary.stopped_by])
