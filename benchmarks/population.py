"""Environment steps per second of a whole population, with exploits and checkpoints, beside Ray Tune's."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median

from benchmarks.measure import Announce, Comparison, Target, in_turns
from benchmarks.peers import RAY, ROOT, interpreter
from benchmarks.plots import draw_comparison, panels
from benchmarks.population_runs import PopulationRun, own_run, tune_run
from benchmarks.population_task import Population
from benchmarks.results import Report
from benchmarks.tables import comparison_table, target_table

PEER = "Ray Tune PBT, SB3 PPO"
TUNED = "Ray Tune PBT, everlearn's PPO"
_EXECUTORS = ("vectorised", "processes", "ray", "inline")
VECTORISED, PROCESSES, ON_RAY, INLINE = (f"everlearn pbt, {name}" for name in _EXECUTORS)
EXECUTORS = dict(zip((VECTORISED, PROCESSES, ON_RAY, INLINE), _EXECUTORS, strict=True))
TARGETS = (Target("P5", VECTORISED, PEER, must=3.0, aim=5.0),)
METHOD = (
    "A population of {members} agents on {env_id}, truncation of the best and the worst {truncation:.0%}, trains for "
    "{generations} generations and one before them that does not count: environment steps of all members together "
    "per second, with everything that happens between generations, exploits and checkpoints among it. In a generation "
    "every member has {interval} training updates: {n_envs} environments (`make_vec_env` for the peer, everlearn's own "
    "builder, neither with normalisation), {n_steps} steps each, {n_epochs} epochs, minibatches of {batch_size}. "
    "Learning rate, entropy coefficient and clip range are learned, in the same ranges; all else has SB3's defaults. "
    "A turn is a whole run, a process with all its own bound to {cores} cores (`sched_setaffinity`), with one thread "
    "of torch per worker; runs take turns. *start and first generation* is all the time of a contestant's first run "
    "that does not count: the start of the process, compilation with nothing compiled before, the first generation, "
    "the end. *cores* is processor time through time, of all its processes. Everlearn's updates are {updates}.\n\n"
    "{peer}"
)
RAY_METHOD = (
    "Ray is as fast as it went: one processor for each of {cores} members at a time, a `Trainable` whose actors are "
    "reused, members that do not wait for each other (`synch=False`), no logs, no dashboard, no metrics. "
    "A member's step is the whole generation; its checkpoint is `model.save`, and that of everlearn's "
    "(`everlearn.population.tune.Trainable`) a whole member as in its own populations."
)
NO_PEER = "Without the peer: everlearn alone, all members one after the other in one process."
FULL = Population()


@dataclass(frozen=True)
class Settings:
    """What is trained, by whom, and how often.

    Attributes:
        population: Of everybody.
        contestants: Names of everlearn's.
        peer: Whether Ray Tune is beside them, in an environment of its own.
        repetitions: Runs of each contestant.
    """

    population: Population = FULL
    contestants: Sequence[str] = (VECTORISED, PROCESSES, ON_RAY, TUNED)
    peer: bool = True
    repetitions: int = 3


SHORT = Settings(
    Population(
        members=2, n_envs=2, n_steps=16, batch_size=16, n_epochs=1, interval=1, generations=1, cores=1, compiled=False
    ),
    contestants=(INLINE,),
    peer=False,
    repetitions=1,
)


def run(settings: Settings, announce: Announce) -> Report:
    """Train populations."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        contestants = _own_contestants(settings, Path(folder))
        environments: dict[str, Mapping[str, str]] = {}
        if settings.peer:
            python = interpreter(RAY, announce)
            contestants = {PEER: partial(tune_run, settings.population, python, "stable-baselines3"), **contestants}
            environments = {PEER: peer_versions(python)}
        runs = in_turns(contestants, settings.repetitions, lambda what: announce(f"Population: {what}"))
    comparison = compared(runs, settings)
    figure, axes = panels("Throughput of a population", 1, 1, size=(9.5, 2.6))
    draw_comparison(axes[0][0], comparison)
    tables = [comparison_table(comparison)]
    return Report(
        name="population",
        title="Population",
        method=_method(settings),
        settings=asdict(settings),
        data=[{**comparison.as_dict(), "runs": {name: list(map(asdict, own)) for name, own in runs.items()}}],
        tables=[*tables, target_table([comparison])] if comparison.targets else tables,
        figure=figure,
        environments=environments,
    )


def compared(runs: Mapping[str, Sequence[PopulationRun]], settings: Settings) -> Comparison:
    """Speeds and what else was found, of each contestant; cores where they are known."""
    cores = {name: [turn.cores for turn in own if turn.cores is not None] for name, own in runs.items()}
    return Comparison(
        title=f"{settings.population.members} x {settings.population.env_id}",
        unit="env-steps/s",
        samples={name: [turn.speed for turn in own] for name, own in runs.items()},
        peer=PEER if settings.peer else next(iter(runs)),
        more_is_better=True,
        targets=[target for target in TARGETS if settings.peer and target.contestant in runs],
        references=[PEER],
        details={
            "start and first generation, s": {name: own[0].start for name, own in runs.items()},
            "cores": {name: median(known) for name, known in cores.items() if known},
            "exploits": {name: mean(turn.exploits for turn in own) for name, own in runs.items()},
        },
    )


def peer_versions(python: Path) -> dict[str, str]:
    """Of the packages in a peer's environment."""
    program = "import json; from benchmarks.peer_worker import versions; print(json.dumps(versions()))"
    found: dict[str, str] = json.loads(subprocess.check_output([python, "-c", program], cwd=ROOT, text=True))
    return found


def _own_contestants(settings: Settings, folder: Path) -> dict[str, Callable[[], PopulationRun]]:
    """Each with a directory for compiled code that is empty at first, and stays for its further runs."""
    contestants: dict[str, Callable[[], PopulationRun]] = {}
    for number, name in enumerate(settings.contestants):
        caches = folder / str(number)
        caches.mkdir()
        if name == TUNED:
            contestants[name] = partial(tune_run, settings.population, Path(sys.executable), "everlearn", caches)
        else:
            contestants[name] = partial(own_run, settings.population, EXECUTORS[name], caches)
    return contestants


def _method(settings: Settings) -> str:
    population = asdict(settings.population)
    peer = RAY_METHOD.format(**population) if settings.peer else NO_PEER
    return METHOD.format(peer=peer, updates="compiled" if settings.population.compiled else "eager", **population)
