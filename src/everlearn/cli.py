"""The command ``everlearn``."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from everlearn.core.errors import (
    ArgumentError,
    ConfigError,
    EverlearnError,
    MissingExtraError,
    NonFiniteError,
    StateError,
)

app = typer.Typer(
    name="everlearn",
    help="Train agents that keep learning, and see what they have learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_EXIT_CODES: tuple[tuple[type[EverlearnError], int], ...] = (
    (ConfigError, 2),
    (ArgumentError, 2),
    (MissingExtraError, 2),
    (StateError, 3),
    (NonFiniteError, 4),
)
_SIGNALLED = 128  # a command that a signal ended returns 128 + its number

Import = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="Import a module that registers environments; repeatable."),
]
Env = Annotated[str | None, typer.Option("--env", metavar="ID", help="Id of a gymnasium environment.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Repeats a run exactly; drawn if not given.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more, and tracebacks of errors.")]


@app.callback()
def _everlearn() -> None:
    """Train agents that keep learning, and see what they have learned."""


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="A YAML file; see examples/.")] = None,
    env: Env = None,
    steps: Annotated[
        float | None, typer.Option("--steps", metavar="N", help="Environment steps, over all environments.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace one setting, as in gamma=0.98; repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Directory of the run.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out.")] = False,
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
    with _reported_errors(verbose):
        _import_modules(imports or [])
        from everlearn.config import assignment, load
        from everlearn.report import display_for, print_summary
        from everlearn.train import train as run_training

        given = {"env.id": env, "total_timesteps": steps, "seed": seed, "runtime.device": device}
        overrides = {key: value for key, value in given.items() if value is not None}
        overrides |= dict(assignment(text) for text in settings or [])
        with closing(display_for(Console(stderr=True), quiet)) as display:
            run = run_training(load(config, overrides), out, overwrite=overwrite, display=display)
    if as_json:
        _print_json(run.summary.as_dict())
    else:
        print_summary(Console(), run.summary)
    if run.summary.stopped_by:
        raise typer.Exit(_SIGNALLED + run.summary.stopped_by)


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run's directory or a model file.")],
    episodes: Annotated[int, typer.Option("--episodes", metavar="N", min=1, help="Episodes to play.")] = 10,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Sample actions as in training.")] = False,
    env: Env = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds environments and sampling.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    imports: Import = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Play episodes with a trained agent and print its returns."""
    with _reported_errors(verbose):
        _import_modules(imports or [])
        from everlearn.report import print_evaluation
        from everlearn.train import evaluate_saved

        env_id, result = evaluate_saved(
            path, episodes=episodes, deterministic=not stochastic, env_id=env, seed=seed, device=device
        )
    kind = "stochastic" if stochastic else "deterministic"
    if as_json:
        _print_json({"model": str(path), "environment": env_id, "policy": kind, **result.as_dict()})
    else:
        print_evaluation(Console(), result, f"{path} on {env_id}, {kind}", each=verbose)


def main() -> None:
    """Run the command; the process ends with its exit code."""
    app()


def _import_modules(names: list[str]) -> None:
    """Import what the user named, from the current directory too, as ``python -m`` would."""
    if names:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ConfigError(
                f"--import {name}: there is no such module. Run in its directory, or add that to PYTHONPATH."
            ) from error


def _print_json(result: dict[str, Any]) -> None:
    typer.echo(json.dumps(result, allow_nan=False))


@contextmanager
def _reported_errors(verbose: bool) -> Iterator[None]:
    """Errors made on purpose become one message and an exit code; warnings become one line each."""
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _complain(console, "warning", "yellow", str(message))
        try:
            yield
        except (EverlearnError, OSError) as error:
            if verbose:
                traceback.print_exc()
            _complain(console, "error", "bold red", str(error))
            raise typer.Exit(_exit_code(error)) from error


def _complain(console: Console, kind: str, style: str, message: str) -> None:
    console.print(Text.assemble((f"{kind}: ", style), Text.from_ansi(message)), soft_wrap=True)


def _exit_code(error: Exception) -> int:
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
