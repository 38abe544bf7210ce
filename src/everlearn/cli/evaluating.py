"""``everlearn evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from everlearn.cli.options import Env, Import, Json, Verbose
from everlearn.cli.reporting import print_json, reported_errors


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="A run's directory or a model file.")],
    episodes: Annotated[int, typer.Option("--episodes", metavar="N", min=1, help="Episodes to play.")] = 10,
    best: Annotated[bool, typer.Option("--best", help="Play with the run's best checkpoint.")] = False,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Sample actions as in training.")] = False,
    env: Env = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seeds environments and sampling.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "cpu",
    imports: Import = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Play episodes with a trained agent and print its returns.

    Of a run that goes on still, or was killed, the newest checkpoint plays.
    """
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.report import print_evaluation
        from everlearn.runs import evaluate_saved

        import_plugins(imports or [], "--import")
        env_id, result = evaluate_saved(
            path,
            which="best" if best else "latest",
            episodes=episodes,
            deterministic=not stochastic,
            env_id=env,
            seed=seed,
            device=device,
        )
    kind = "stochastic" if stochastic else "deterministic"
    if as_json:
        print_json({"model": str(path), "environment": env_id, "policy": kind, **result.as_dict()})
    else:
        print_evaluation(Console(), result, f"{path} on {env_id}, {kind}", each=verbose)
