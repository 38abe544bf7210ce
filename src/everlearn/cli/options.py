"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="MODULE", help="Import a module that registers environments, optimizers, ...; repeatable."
    ),
]
Env = Annotated[str | None, typer.Option("--env", metavar="ID", help="Id of a gymnasium environment.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Repeats a run exactly; drawn if not given.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one setting, as in gamma=0.98; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show more, and tracebacks of errors.")]
File = Annotated[Path | None, typer.Argument(help="A YAML file; see examples/.")]


def overrides(settings: list[str] | None, **given: Any) -> dict[str, Any]:
    """Dotted key to value: what options say, then what ``--set`` says.

    Args:
        settings: ``KEY=VALUE`` texts.
        given: Values of options by key with ``__`` for the dot; None for options that were not given.

    Raises:
        ConfigError: For a text that is no assignment.
    """
    from everlearn.config import assignment

    values = {key.replace("__", "."): value for key, value in given.items() if value is not None}
    return values | dict(assignment(text) for text in settings or [])
