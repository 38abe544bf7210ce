"""``everlearn convert``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from everlearn.cli.options import Env, Import, Json, Settings, Verbose, overrides
from everlearn.cli.reporting import print_json, reported_errors


class Target(StrEnum):
    """What a file can be made into."""

    EVERLEARN = "everlearn"
    SB3 = "sb3"


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A zip of Stable-Baselines3, a v1 or v2 file, or ours.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The new file.")],
    to: Annotated[Target, typer.Option("--to", help="What to make of it.")] = Target.EVERLEARN,
    env: Env = None,
    algorithm: Annotated[
        str | None, typer.Option("--algorithm", metavar="NAME", help="Of the new model; PPO if nothing names one.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A YAML file with environment and algorithm.")
    ] = None,
    settings: Settings = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Read IN with Stable-Baselines3's loader, WHICH RUNS CODE OF THE FILE.")
    ] = False,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="What the SHA-256 of IN has to be.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    imports: Import = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a model file of another system into ours, or ours into one of Stable-Baselines3.

    Nothing in IN is executed unless --trust is given; what is left behind is said as warnings.
    Weights need the environment they are for: --env ID, or a file that names it.
    """
    with reported_errors(verbose):
        from everlearn.checkpoint.places import written_path
        from everlearn.config import import_plugins
        from everlearn.runs import convert as converted

        import_plugins(imports or [], "--import")
        agent = converted(
            source,
            out,
            to=to.value,
            config=config,
            settings=overrides(settings, env__id=env, algorithm__name=algorithm),
            trust=trust,
            sha256=sha256,
            overwrite=overwrite,
        )
    written, name = written_path(out), type(agent).__name__
    if as_json:
        print_json({"file": str(written), "format": to.value, "algorithm": name, "step": int(agent.num_timesteps)})
    else:
        text = f"{written}: {name} after {agent.num_timesteps:,} steps, as a file of {_NAMES[to]}."
        Console().print(text, highlight=False, markup=False, soft_wrap=True)


_NAMES = {Target.EVERLEARN: "everlearn", Target.SB3: "Stable-Baselines3"}
