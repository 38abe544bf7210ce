"""The command ``python -m benchmarks``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks import learning, machine, model_file, optimizer_step, throughput, training
from benchmarks.measure import Announce
from benchmarks.results import Report, save, write_page

RESULTS = Path(__file__).parent / "results"
SHORT_RESULTS = Path("build/benchmarks")


class Benchmark(StrEnum):
    """What can be measured."""

    THROUGHPUT = "throughput"
    OPTIMIZERS = "optimizers"
    FILES = "files"
    LEARNING = "learning"


def main(
    names: Annotated[
        list[Benchmark] | None, typer.Argument(metavar="NAME", help="throughput, optimizers, files, learning")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="See that it works; the figures mean nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help=f"Directory; benchmarks/results, in the short form {SHORT_RESULTS}.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of torch, the same for all contestants.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Of learning.")] = 3,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time in learning.")] = 2,
) -> None:
    """Measure everlearn beside its peers; without names all but learning, which takes some minutes.

    Leave the machine alone meanwhile. Learning takes an hour or more.
    """
    torch.set_num_threads(threads)
    directory = out or (SHORT_RESULTS if short else RESULTS)
    described = machine.describe(threads)
    console, progress = Console(), Console(stderr=True, style="dim", highlight=False, soft_wrap=True)
    for name in names or [Benchmark.THROUGHPUT, Benchmark.OPTIMIZERS, Benchmark.FILES]:
        studies = training.Settings(seeds=seeds, jobs=jobs, threads=threads)
        report = _run(name, short, studies, progress.print)
        save(report, directory, described, short=short)
        console.print("", *(table.rich() for table in report.tables))
    write_page(directory)
    console.print(f"{directory / 'README.md'} has the tables and pictures of all benchmarks.", soft_wrap=True)


def _run(name: Benchmark, short: bool, studies: training.Settings, announce: Announce) -> Report:
    if name is Benchmark.THROUGHPUT:
        return throughput.run(throughput.SHORT if short else throughput.Settings(), announce)
    if name is Benchmark.OPTIMIZERS:
        return optimizer_step.run(optimizer_step.SHORT if short else optimizer_step.Settings(), announce)
    if name is Benchmark.FILES:
        return model_file.run(model_file.SHORT if short else model_file.Settings(), announce)
    return learning.run(learning.shortened(studies) if short else studies, announce)


if __name__ == "__main__":
    typer.run(main)
