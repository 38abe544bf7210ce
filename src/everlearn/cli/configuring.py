"""``everlearn config``: what can be set, what is set, and whether it is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from everlearn.cli.options import Env, File, Import, Json, Settings, Verbose, overrides
from everlearn.cli.reporting import print_json, reported_errors
from everlearn.core.errors import ArgumentError, ConfigError

app = typer.Typer(
    help="Show, check and describe configurations.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to a file instead of stdout.")]

_EXAMPLE = "CartPole-v1"


@app.command()
def show(
    config: File = None,
    env: Env = None,
    settings: Settings = None,
    imports: Import = None,
    out: Out = None,
    verbose: Verbose = False,
) -> None:
    """Print every setting with the value that training would use, as YAML that trains."""
    with reported_errors(verbose):
        from everlearn.config import import_plugins
        from everlearn.runs import decided_settings

        import_plugins(imports or [], "--import")
        example = _EXAMPLE if config is None and env is None and not _names_environment(settings) else None
        text = decided_settings(config, overrides(settings, env__id=env or example), imports or [])
        if example:
            text = f"# No environment was named: {example} stands here as an example.\n{text}"
        _write(text, out)
    _print_unless_written(text, out)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="A YAML file; see examples/.")],
    env: Env = None,
    settings: Settings = None,
    imports: Import = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check a file without training: keys, values, names, and that environment and agent can be built from it."""
    with reported_errors(verbose), _complaints_as_json(config, as_json):
        from everlearn.config import import_plugins
        from everlearn.runs import decided_settings

        import_plugins(imports or [], "--import")
        decided_settings(config, overrides(settings, env__id=env), imports or [])
    if as_json:
        print_json({"file": str(config), "valid": True})
    else:
        Console().print(f"{config}: right.", highlight=False, markup=False, soft_wrap=True)


@app.command()
def schema(out: Out = None, verbose: Verbose = False) -> None:
    """Print the JSON schema of a configuration file, for editors.

    An editor with a YAML language server reads it where the first line of a file is
    # yaml-language-server: $schema=FILE
    """
    with reported_errors(verbose):
        from everlearn.config import json_schema

        text = json.dumps(json_schema(), indent=2) + "\n"
        _write(text, out)
    _print_unless_written(text, out)


@contextmanager
def _complaints_as_json(config: Path, wanted: bool) -> Iterator[None]:
    """Where wanted, complaints about the configuration are printed as JSON too, before they are reported."""
    try:
        yield
    except (ConfigError, ArgumentError) as error:
        if wanted:
            print_json({"file": str(config), "valid": False, "complaints": str(error).split("\n")})
        raise


def _names_environment(settings: list[str] | None) -> bool:
    return any(text.startswith(("env=", "env.id=")) for text in settings or [])


def _write(text: str, out: Path | None) -> None:
    if out is None:
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--out {out}: it cannot be written ({error.strerror}). Name a file in another place."
        ) from error


def _print_unless_written(text: str, out: Path | None) -> None:
    """Outside of ``reported_errors``: a reader who has seen enough, as ``head``, is no failure."""
    if out is None:
        typer.echo(text, nl=False)
