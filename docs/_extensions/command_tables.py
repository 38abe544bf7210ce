"""The commands of ``everlearn`` and their options, as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any


def commands() -> str:
    """Every command with its arguments and options."""
    import typer

    from everlearn.cli import app

    return "\n\n".join(_command(path, command) for path, command in _leaves("everlearn", typer.main.get_command(app)))


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inside = getattr(command, "commands", None)
    if inside is None:
        yield path, command
        return
    for name, child in inside.items():
        yield from _leaves(f"{path} {name}", child)


def _command(path: str, command: Any) -> str:
    parameters = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = " ".join(_argument(each) for each in parameters if each.param_type_name == "argument")
    rows = [_row(each) for each in parameters]
    return "\n".join(
        [
            f"## `{path}`",
            "",
            f"```text\n{path} [OPTIONS] {arguments}\n```",
            "",
            _escaped(inspect.cleandoc(command.help or "")),
            "",
            "| argument or option | default | meaning |",
            "|---|---|---|",
            *rows,
        ]
    )


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{_argument(parameter)}`"
    else:
        value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
        names = ", ".join(f"`{name}{value}`" for name in parameter.opts)
    shown = (
        parameter.default is not None and not callable(parameter.default) and not getattr(parameter, "is_flag", False)
    )
    default = f"`{parameter.default}`" if shown and not parameter.required else ""
    return f"| {names} | {default} | {_escaped(parameter.help or '')} |"


def _escaped(text: str) -> str:
    """Plain text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#$|])", r"\\\1", text)
