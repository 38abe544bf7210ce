"""``everlearn pbt``, with ``status`` and ``replay``."""

from __future__ import annotations

import signal
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from everlearn.cli.options import Device, Env, File, Import, Json, Quiet, Seed, Settings, Verbose, overrides
from everlearn.cli.reporting import print_json, reported_errors
from everlearn.cli.training import SIGNALLED, TimeLimit, finish
from everlearn.core.errors import ConfigError

if TYPE_CHECKING:
    from everlearn.pbt import PopulationRun

_TRAIN = "train"


class _TrainingIsUnsaid(TyperGroup):
    """A group whose command ``train`` is meant where none is named: ``everlearn pbt CONFIG``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Supply the command."""
        first = args[0] if args else ""
        asks_for_help = first in ctx.help_option_names
        if args and first not in self.commands and not asks_for_help:
            args = [_TRAIN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_TrainingIsUnsaid,
    no_args_is_help=True,
    help="Population based training: everlearn pbt CONFIG, everlearn pbt --resume RUN, and what follows.",
)
Population = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a population.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Directory of the run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out.")]


@app.command(_TRAIN)
def train(
    config: File = None,
    env: Env = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a population that was interrupted.")
    ] = None,
    steps: Annotated[
        float | None, typer.Option("--steps", metavar="N", help="Environment steps of each member.")
    ] = None,
    settings: Settings = None,
    executor: Annotated[
        str | None, typer.Option("--executor", help="auto, vectorised, processes, inline or ray.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes; one per core if not given; with ray, one per member.")
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    time_limit: TimeLimit = None,
    seed: Seed = None,
    device: Device = None,
    imports: Import = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a population of agents that copy from each other; the word train may be left out.

    Without CONFIG: everlearn pbt --env CartPole-v1
    """
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.pbt import resume_population, train_population
        from everlearn.report.population_display import population_display_for

        import_plugins(imports or [], "--import")
        chosen = {"population__executor": executor, "population__workers": workers}
        replaced = overrides(settings, env__id=env, total_timesteps=steps, seed=seed, runtime__device=device, **chosen)
        if resume is not None and (config is not None or replaced or out is not None or overwrite):
            raise ConfigError(
                "--resume RUN goes on with a population as it is: leave out CONFIG, --out and what would change "
                "settings, or begin another population."
            )
        display = population_display_for(Console(stderr=True), quiet)
        with closing(display), redirect_stdout(sys.stderr):  # whatever prints meanwhile, stdout is for what comes of it
            if resume is not None:
                run = resume_population(resume, time_limit=time_limit, display=display)
            else:
                plugins = imports or []
                run = train_population(
                    config,
                    out,
                    settings=replaced,
                    overwrite=overwrite,
                    plugins=plugins,
                    time_limit=time_limit,
                    display=display,
                )
    _finish(run, as_json=as_json)


@app.command()
def status(run: Population, as_json: Json = False, verbose: Verbose = False) -> None:
    """Show how a population stands, also while it trains."""
    with reported_errors(verbose):
        from everlearn.pbt import PopulationRun
        from everlearn.report.population_summary import print_population

        summary = PopulationRun(run).summary()
        if as_json:
            print_json(summary.as_dict())
        else:
            print_population(Console(), summary)


@app.command()
def replay(
    run: Population,
    member: Annotated[str | None, typer.Option("--member", metavar="ID", help="The best one if not given.")] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    seed: Seed = None,
    imports: Import = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train one agent along the hyper-parameters that led to the best member."""
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.pbt.replay import replay as replay_member
        from everlearn.report import display_for

        import_plugins(imports or [], "--import")
        chosen = int(member) if member is not None and member.isdecimal() else member
        with closing(display_for(Console(stderr=True), quiet)) as display:
            done = replay_member(
                run,
                out,
                member=chosen,
                seed=seed,
                settings=overrides(settings),
                overwrite=overwrite,
                display=display,
            )
    finish(done, as_json=as_json)


def _finish(run: PopulationRun, *, as_json: bool) -> None:
    """Print what a population has come to, and how it goes on if it was stopped; a signal decides the exit code."""
    from everlearn.report.population_summary import print_population

    summary = run.summary()
    if as_json:
        print_json(summary.as_dict())
    else:
        print_population(Console(), summary)
        if summary.stopped_by is not None:
            imports = "".join(f" --import {plugin}" for plugin in run.config.plugins)
            Console(soft_wrap=True, highlight=False).print(f"Go on with: everlearn pbt --resume {run.path}{imports}")
    if summary.stopped_by is not None and summary.stopped_by in signal.Signals.__members__:
        raise typer.Exit(SIGNALLED + signal.Signals[summary.stopped_by])
