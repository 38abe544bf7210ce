"""How many members one controller serves: decisions, journal, memory of populations whose members take no time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from benchmarks.measure import Announce, in_turns
from benchmarks.plots import draw_growth, draw_parts, panels
from benchmarks.population_controller import Case, Found
from benchmarks.results import Report
from benchmarks.tables import NOTHING, Table
from everlearn.report.wording import number

METHOD = (
    "Populations of members that are imagined: a score, and the name of a file that there is not. So what is measured "
    "is the controller: it makes tasks, enters every result in the journal (a transaction that is on the disk when it "
    "is over, `synchronous=FULL`), decides by truncation and `both`, enters the decisions, and sees to files. *Pieces* "
    "are results that an executor hands out together, which are one transaction; *records* are what a segment has "
    "logged, of 30 numbers each; *files* are small ones of toys, which are verified and deleted; where a rule is named "
    "members copy or explore by that one. Each is a process of its own, {repetitions} times in turns, of which the "
    "medians are here. Time that members or executors take is not in any figure, nor is a live table or a log. "
    "*Resume* is to read the journal of all generations and to stand as before; *memory* is by how much the "
    "process has grown by the end.\n\n"
    "The second table is arithmetic on the first: with all members at once on machines of their own, a generation "
    "takes as long as a segment and then the controller's time; the share is the controller's."
)
SHARES = (0.1, 0.01)
GIGABYTE = 1e9


@dataclass(frozen=True)
class Settings:
    """The populations.

    Attributes:
        sizes: Members, from few to many; of the plain population.
        others: Populations of another kind, beside the plain one.
        generations: Of each plain one.
        repetitions: Runs of each.
    """

    sizes: Sequence[int] = (10, 100, 1000, 10_000)
    others: Sequence[Case] = (
        Case(1000, piece=100),
        Case(1000, records=5),
        Case(1000, records=5, piece=100),
        Case(1000, generations=4, files=True),
        Case(1000, exploit="binary_tournament"),
        Case(1000, exploit="k_tournament"),
        Case(1000, exploit="t_test"),
        Case(1000, exploit="threshold"),
        Case(100, explore="pb2"),
    )
    generations: int = 10
    repetitions: int = 3


SHORT = Settings(sizes=(4, 8), others=(Case(4, generations=2, piece=2, records=1),), generations=2, repetitions=1)


def run(settings: Settings, announce: Announce) -> Report:
    """Measure all populations."""
    plain = [Case(size, settings.generations) for size in settings.sizes]
    cases = {case.label: case for case in (*plain, *settings.others)}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        turns = {name: lambda case=case: _run(case, Path(folder)) for name, case in cases.items()}
        samples = in_turns(turns, settings.repetitions, announce)
    found = {name: _median(turns) for name, turns in samples.items()}
    return Report(
        name="population-scale",
        title="A population's controller",
        method=METHOD.format(repetitions=settings.repetitions),
        settings=asdict(settings),
        data=[
            {"population": name, **asdict(cases[name]), "median": asdict(found[name]), "samples": [*map(asdict, turns)]}
            for name, turns in samples.items()
        ],
        tables=[controller_table(cases, found), serving_table(cases, found)],
        figure=_figure(plain, cases, found),
    )


def _figure(plain: Sequence[Case], cases: Mapping[str, Case], found: Mapping[str, Found]) -> Figure:
    figure, axes = panels("A population's controller", 1, 2, size=(6.5, 4.2))
    each = [found[case.label] for case in plain]
    curves = {"results": [one.results for one in each], "deciding": [one.deciding for one in each]}
    sizes = [case.size for case in plain]
    draw_growth(axes[0][0], "Controller over members", "members", sizes, curves, of="a generation")
    draw_parts(axes[0][1], "Where the time goes", "milliseconds of a generation, per member", _parts(cases, found))
    return figure


def _parts(cases: Mapping[str, Case], found: Mapping[str, Found]) -> dict[str, dict[str, float]]:
    """Milliseconds of a generation for each member: part to population to size."""
    parts: dict[str, dict[str, float]] = {"results": {}, "deciding": {}, "decisions": {}, "files": {}, "other": {}}
    for name, one in found.items():
        share = (cases[name].generations - 1) / cases[name].generations  # of generations that are decided
        known = {"results": one.results, "deciding": share * one.deciding}
        known |= {"decisions": share * one.decided, "files": one.keeping}
        known["other"] = max(0.0, one.generation - sum(known.values()))
        for part, seconds in known.items():
            parts[part][name] = 1e3 * seconds / cases[name].size
    return parts


def controller_table(cases: Mapping[str, Case], found: Mapping[str, Found]) -> Table:
    """A row per population: what each thing takes, and how much there is in the end."""
    columns = [
        "members",
        "generation, s",
        "decisions/s",
        "results/s",
        "entering decisions, ms",
        "files, ms",
        "resume, s",
        "journal, MB",
        "memory, MB",
    ]
    rows = []
    for name, one in found.items():
        size = cases[name].size
        figures = [one.generation, size / one.deciding, size / one.results, 1e3 * one.decided, 1e3 * one.keeping]
        rows.append([name, *map(number, [*figures, one.resume, one.journal / 1e6, one.memory / 1e6])])
    return Table("The controller, training left out", columns, rows)


def serving_table(cases: Mapping[str, Case], found: Mapping[str, Found]) -> Table:
    """A row per population: how much it could serve, how long segments have to be, and when memory ends."""
    shares = [f"segment for {share:.0%}, s" for share in SHARES]
    columns = ["members", "segments/s at most", *shares, "largest part", "of it", "generations to 1 GB"]
    rows, all_parts = [], _parts(cases, found)
    for name, one in found.items():
        parts = {part: sizes[name] for part, sizes in all_parts.items()}
        largest = max(parts, key=lambda part: parts[part])
        segments = [one.generation * (1 - share) / share for share in SHARES]
        growth = one.memory / cases[name].generations
        lasts = f"{GIGABYTE / growth:,.0f}" if growth > 0 else NOTHING
        figures = map(number, [cases[name].size / one.generation, *segments])
        rows.append([name, *figures, largest, f"{parts[largest] / sum(parts.values()):.0%}", lasts])
    return Table("What one controller serves", columns, rows)


def _run(case: Case, folder: Path) -> Found:
    command = [sys.executable, "-m", "benchmarks.population_controller", json.dumps(asdict(case)), str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def _median(turns: Sequence[Found]) -> Found:
    each = [asdict(turn) for turn in turns]
    return Found(**{name: median(turn[name] for turn in each) for name in each[0]})
