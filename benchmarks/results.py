"""The files that a benchmark leaves: figures as JSON, a picture, and one page about all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.tables import Table, pairs


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        name: Stem of its files.
        title: Heading on the page.
        method: What was measured and how, in a few sentences.
        settings: What can be chosen.
        data: All figures.
        tables: The figures to read.
        figure: The figures to look at.
        environments: Contestant to the versions of the packages in its environment, where it has one of its own.
    """

    name: str
    title: str
    method: str
    settings: dict[str, Any]
    data: list[dict[str, Any]]
    tables: Sequence[Table]
    figure: Figure
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def save(report: Report, directory: Path, machine: dict[str, str], *, short: bool) -> None:
    """Write ``<name>.json`` and ``<name>.png``."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "name": report.name,
        "title": report.title,
        "method": report.method,
        "short": short,
        "machine": machine | {name: _listed(versions) for name, versions in report.environments.items()},
        "settings": report.settings,
        "data": report.data,
        "tables": [vars(table) for table in report.tables],
    }
    (directory / f"{report.name}.json").write_text(
        json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    report.figure.savefig(directory / f"{report.name}.png")


def write_page(directory: Path) -> None:
    """Write ``README.md`` about all benchmarks whose JSON is in the directory, from this run or an earlier one."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"), reverse=True)]
    introduction = (
        "# Benchmarks\n\n"
        "Written by `make bench`. Speeds and times differ between machines and hours; the ratios, taken between "
        "contestants that took turns in one run, are what to compare."
    )
    (directory / "README.md").write_text("\n\n".join([introduction, *map(_section, contents)]) + "\n", encoding="utf-8")


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def _section(content: dict[str, Any]) -> str:
    parts = [f"## {content['title']}", content["method"]]
    if content["short"]:
        parts.append("**Short form: it shows that the benchmark works, its figures mean nothing.**")
    parts += [Table(**table).markdown() for table in content["tables"]]
    parts += [
        f"![{content['title']}]({content['name']}.png)",
        pairs("Machine", ("what", "which"), content["machine"]).markdown(),
        f"All samples: [`{content['name']}.json`]({content['name']}.json)",
    ]
    return "\n\n".join(parts)
