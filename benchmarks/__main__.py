"""The command ``python -m benchmarks``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks import (
    compiled_learning,
    growth,
    learning,
    machine,
    model_file,
    optimizer_step,
    population,
    population_learning,
    population_scale,
    signals,
    startup,
    throughput,
    training,
)
from benchmarks.measure import Announce
from benchmarks.results import Report, save, write_page

RESULTS = Path(__file__).parent / "results"
SHORT_RESULTS = Path("build/benchmarks")


class Benchmark(StrEnum):
    """What can be measured."""

    THROUGHPUT = "throughput"
    OPTIMIZERS = "optimizers"
    FILES = "files"
    GROWTH = "growth"
    STARTUP = "startup"
    SIGNALS = "signals"
    POPULATION = "population"
    POPULATION_SCALE = "population-scale"
    LEARNING = "learning"
    COMPILED_LEARNING = "compiled-learning"
    POPULATION_LEARNING = "population-learning"


LEARNING = (Benchmark.LEARNING, Benchmark.COMPILED_LEARNING, Benchmark.POPULATION_LEARNING)
"""Those that take long."""


@dataclass(frozen=True)
class Options:
    """What the command line says, for any benchmark.

    Attributes:
        short: Whether only to see that it works.
        threads: Of all contestants.
        repetitions: Samples of each contestant; None for as many as a benchmark wants.
        seeds: Of learning.
        jobs: Trainings at a time in learning.
    """

    short: bool
    threads: int
    repetitions: int | None
    seeds: int
    jobs: int


def main(
    names: Annotated[
        list[Benchmark] | None,
        typer.Argument(metavar="NAME", help=", ".join(Benchmark)),
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="See that it works; the figures mean nothing.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help=f"Directory; benchmarks/results, in the short form {SHORT_RESULTS}.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of torch, the same for all contestants.")] = 1,
    repetitions: Annotated[
        int | None, typer.Option("--repetitions", min=1, help="Samples of each contestant, but in learning.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Of learning.")] = 3,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time in learning.")] = 2,
) -> None:
    """Measure everlearn beside its peers; without names all but the three of learning, which takes 45 minutes.

    Leave the machine alone meanwhile. The first runs of throughput and of population make virtual environments for the
    peers, under .cache/peers; they need a package index for that. Learning takes an hour or more.
    """
    torch.set_num_threads(threads)
    directory = out or (SHORT_RESULTS if short else RESULTS)
    described = machine.describe(threads)
    console, progress = Console(), Console(stderr=True, style="dim", highlight=False, soft_wrap=True)
    options = Options(short, threads, repetitions, seeds, jobs)
    for name in names or [each for each in Benchmark if each not in LEARNING]:
        report = _run(name, options, progress.print)
        save(report, directory, described, short=short)
        console.print("", *(table.rich() for table in report.tables))
    write_page(directory)
    console.print(f"{directory / 'README.md'} has the tables and pictures of all benchmarks.", soft_wrap=True)


def _run(name: Benchmark, options: Options, announce: Announce) -> Report:
    if name is Benchmark.LEARNING:
        studies = training.Settings(seeds=options.seeds, jobs=options.jobs, threads=options.threads)
        return learning.run(learning.shortened(studies) if options.short else studies, announce)
    if name is Benchmark.COMPILED_LEARNING:
        return compiled_learning.run(compiled_learning.SHORT if options.short else compiled_learning.FULL, announce)
    module: Any = {
        Benchmark.THROUGHPUT: throughput,
        Benchmark.OPTIMIZERS: optimizer_step,
        Benchmark.FILES: model_file,
        Benchmark.GROWTH: growth,
        Benchmark.STARTUP: startup,
        Benchmark.SIGNALS: signals,
        Benchmark.POPULATION: population,
        Benchmark.POPULATION_SCALE: population_scale,
        Benchmark.POPULATION_LEARNING: population_learning,
    }[name]
    settings = module.SHORT if options.short else module.Settings()
    chosen = {"threads": options.threads, "repetitions": options.repetitions}
    wanted = {key: each for key, each in chosen.items() if each is not None and hasattr(settings, key)}
    return module.run(replace(settings, **wanted), announce)


if __name__ == "__main__":
    typer.run(main)
