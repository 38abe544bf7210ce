"""The command ``python -m compatibility``."""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from compatibility import page, zoo
from compatibility.exceptions import LIMITS, excused_tests
from compatibility.source import required_version, tests_of_sb3
from compatibility.suite import BASELINE, Baseline, Work, measure_baseline, run_all
from compatibility.verdict import Verdict, judge

app = typer.Typer(add_completion=False, help="Run the neighbours' tests on everlearn's classes.")
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Test files at a time.")]
Verdicts = dict[tuple[str, str], Verdict]


@app.command()
def sb3(
    jobs: Jobs = 2,
    baseline: Annotated[bool, typer.Option("--baseline", help="Measure anew what SB3's own PPO passes.")] = False,
) -> None:
    """Run SB3's tests of PPO with everlearn's classes in its place; print a table."""
    begin = time.monotonic()
    wanted = required_version()
    if version("stable-baselines3") != wanted:
        sys.exit(f"The tests are those of Stable-Baselines3 {wanted}; {version('stable-baselines3')} is installed.")
    suite = tests_of_sb3()
    if baseline:
        measure_baseline(suite, wanted, jobs).write(BASELINE)
    known = Baseline.read(BASELINE)
    if known.version != wanted:
        sys.exit(f"The baseline is of Stable-Baselines3 {known.version}; measure it anew with --baseline.")
    work = [Work(algorithm, file, known.seconds[file]) for algorithm in LIMITS for file in known.files]
    results = run_all(suite, work, jobs)
    verdicts = {
        (each.algorithm, each.file): judge(
            each.file, known.expected(each.file), excused_tests(each.algorithm).get(each.file, set()), result.outcomes
        )
        for each, result in results.items()
    }
    Console(width=120).print(as_table(known, verdicts))
    print(f"{time.monotonic() - begin:.0f} s; SB3's PPO passes {' by name and '.join(map(str, known.count()))} by use")
    finish([complaint for verdict in verdicts.values() for complaint in verdict.complaints])


def as_table(known: Baseline, verdicts: Verdicts) -> Table:
    """Passed tests by file and class, and the listed exceptions."""
    table = Table("file", "SB3's PPO", *LIMITS, "exceptions", title="Tests of SB3 passed")
    for file in known.files:
        row = [verdicts[algorithm, file] for algorithm in LIMITS]
        passed = [str(verdict.passed) for verdict in row]
        table.add_row(file, str(len(known.expected(file))), *passed, str(sum(verdict.excused for verdict in row)))
    table.add_section()
    totals = [sum(verdicts[algorithm, file].passed for file in known.files) for algorithm in LIMITS]
    excused = sum(verdict.excused for verdict in verdicts.values())
    table.add_row("all", str(sum(known.count())), *map(str, totals), str(excused))
    return table


def finish(complaints: list[str]) -> None:
    """End with 1 if there is anything to complain about, or a class has more exceptions than it may have."""
    for algorithm, limit in LIMITS.items():
        count = sum(map(len, excused_tests(algorithm).values()))
        if count > limit:
            complaints.append(f"{algorithm} has {count} exceptions; it may have {limit}")
    if complaints:
        sys.exit("\n".join(complaints))


@app.command()
def contents() -> None:
    """Write docs/sb3_suite.md from the baseline and the exceptions."""
    page.PATH.write_text(page.written(Baseline.read(BASELINE)), encoding="utf-8")


@app.command("zoo")
def rl_zoo3() -> None:
    """Train, enjoy and train on with rl_zoo3's commands, as the recipe in docs/how-to/rl_zoo3.md says."""
    zoo.run()


if __name__ == "__main__":
    app()
