"""``everlearn inspect``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from everlearn.cli.options import Json, Verbose
from everlearn.cli.reporting import print_json, reported_errors

_LINES = {
    "kind": "holds a",
    "algorithm": "algorithm",
    "policy_class": "policy",
    "observation_space": "observations",
    "action_space": "actions",
    "weights": "weights",
    "step": "step",
    "performance": "performance",
    "created": "created",
    "parent": "made from",
    "content_id": "content",
    "bytes": "bytes",
    "sha256": "sha256",
}


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE_OR_RUN", help="A model file, a checkpoint or a run.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what a file holds, with every bit of it verified; of a run, which checkpoints can be used.

    Nothing is unpickled and no model is built. The sha256 is what load(..., sha256=...) takes.
    """
    with reported_errors(verbose):
        from everlearn.checkpoint.files import is_directory
        from everlearn.cli.file_report import directory_report, file_report, require_some_whole

        of_directory = is_directory(path)
        report = directory_report(path) if of_directory else file_report(path)
        if of_directory:
            require_some_whole(report)
    if as_json:
        print_json(report)
    elif of_directory:
        _print_directory(Console(), report)
    else:
        _print_file(Console(), report)


def _print_directory(console: Console, report: dict[str, Any]) -> None:
    table = Table(box=None, padding=(0, 2))
    for heading in ("step", "performance", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in report["checkpoints"]:
        marks = [name for name in ("latest", "best") if report[name] == row["file"]]
        performance = "" if row["performance"] is None else f"{row['performance']:.6g}"
        state = "damaged" if row["damage"] else ", ".join(marks)
        table.add_row(f"{row['step']:,}", performance, f"{row['bytes']:,}", state)
    lines = [] if report["model"] is None else [f"model.zip: {report['model']['damage'] or 'whole'}"]
    lines += [f"damaged: {row['damage']}" for row in report["checkpoints"] if row["damage"]]
    lines += [f"set aside: {file}" for file in report["set_aside"]]
    _print(console, [f"[bold]{escape(report['directory'])}[/]"])
    console.print(table)
    _print(console, map(escape, lines))


def _print_file(console: Console, report: dict[str, Any]) -> None:
    title = f"[bold]{escape(report['file'])}[/]"
    if report["format"] is None:
        _print(console, [f"{title}: {report['what']}, which everlearn does not load as it is", *_foreign(report)])
        return
    facts = [f"  {word:<14}{_shown(report[name])}" for name, word in _LINES.items() if report.get(name) is not None]
    members = [f"  {name:<26}{entry['bytes']:>12,}  {entry['sha256']}" for name, entry in report["members"].items()]
    hyperparameters = report["hyperparameters"] or report["config"] or {}
    settings = [f"  {name:<32}{json.dumps(value)}" for name, value in hyperparameters.items()]
    lines = [*facts, *_resume(report), *_versions(report)]
    for heading, listed in (("hyper-parameters", settings), ("members, verified", members)):
        lines += ["", heading, *listed] if listed else []
    _print(console, [f"{title}: {report['format']}, whole", *map(escape, lines)])


def _foreign(report: dict[str, Any]) -> Iterable[str]:
    facts = {
        "made by": report["stable_baselines3"] and f"Stable-Baselines3 {report['stable_baselines3']}",
        **(report["spaces"] or {}),
        "pickled": ", ".join(report["pickled"] or []),
        "members": ", ".join(report["members"] or []),
        "bytes": f"{report['bytes']:,}",
        "sha256": report["sha256"],
    }
    yield from (escape(f"  {name:<20}{value}") for name, value in facts.items() if value)
    yield escape(report["remedy"])


def _resume(report: dict[str, Any]) -> list[str]:
    resume = report.get("resume")
    if not isinstance(resume, dict):
        return []
    reasons = "; ".join(map(str, resume.get("reasons") or []))
    return [f"  {'resume level':<14}{resume.get('level')}{f' ({reasons})' if reasons else ''}"]


def _versions(report: dict[str, Any]) -> list[str]:
    parts = {"written with": report.get("libraries"), "on": report.get("runtime")}
    return [
        f"  {word:<14}{', '.join(f'{name} {value}' for name, value in part.items())}"
        for word, part in parts.items()
        if isinstance(part, dict)
    ]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print(console: Console, lines: Iterable[str]) -> None:
    console.print(*map(_harmless, lines), sep="\n", highlight=False, soft_wrap=True)


def _harmless(text: str) -> str:
    """Without anything that a terminal would obey: whoever made the file has chosen these words."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
