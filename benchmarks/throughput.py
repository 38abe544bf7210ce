"""Environment steps per second of a whole agent, beside Stable-Baselines3's and SBX's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.contestants import OWN, SB3, SBX, Contestant
from benchmarks.measure import Announce, Comparison, Target, interleave, paired_ratios
from benchmarks.peers import interpreter
from benchmarks.plots import draw_comparison, draw_parts, panels
from benchmarks.profiling import PARTS
from benchmarks.results import Report
from benchmarks.tables import Table, comparison_table, part_table, target_table
from benchmarks.workers import Iteration, Runner, started
from everlearn.report.wording import number

PEER, JAX_PEER = "SB3 PPO", "SBX PPO"
PLAIN, FULL = "PPO", "DistributionalPPO"
LIBRARIES = {PEER: SB3, JAX_PEER: SBX, PLAIN: OWN, FULL: OWN}
ARGUMENTS: dict[str, dict[str, Any]] = {FULL: {"kl_penalty": True}}
LIMITS_OF = {PEER: PLAIN, JAX_PEER: PLAIN, PLAIN: PLAIN, FULL: FULL}
"""Whose networks are those of a contestant; the peers' are as plain PPO's."""
TARGETS = {
    "HalfCheetah-v5": (
        Target("P1", PLAIN, PEER, must=2.5, aim=3.5),
        Target("P1", PLAIN, JAX_PEER, must=1.5, aim=2.0),
        Target("P2", FULL, PEER, must=2.0, aim=3.0),
        Target("P2", FULL, JAX_PEER, must=1.2, aim=1.7),
    ),
    "CartPole-v1": (
        Target("P3", PLAIN, PEER, must=3.0, aim=5.0),
        Target("P3", PLAIN, JAX_PEER, must=1.6, aim=2.5),
    ),
}
METHOD = (
    "Environment steps per second from end to end: a repetition is one iteration of `learn()`, collecting a rollout "
    "and learning from it. Every contestant is a process of its own in the environment of its library "
    "(`benchmarks/peers.py`), they take turns, and the first iteration of each, which compiles, does not count; its "
    "seconds are a column, with nothing compiled before. All have SB3's default settings and the same seed. SB3's and "
    "SBX's environments come from `make_vec_env`, everlearn's from its own builder without normalisation, each as its "
    "users have them. DistributionalPPO has all that is its own on, and the KL penalty. {compiled} Every process is "
    "bound to as many cores as it may use threads (`sched_setaffinity`, before anything is imported, for XLA sizes its "
    "pool of threads by the cores that it may use; `OMP_NUM_THREADS` and `torch.set_num_threads` say the same): "
    "*cores* is processor time through time.\n\n"
    "Where the time goes was measured in one more iteration with a clock around the calls, which makes it a little "
    "longer. *simulation* is the vector environment's step, *inference* the policy's calls while collecting, *other* "
    "what `learn()` does besides. The limits are the same work with nothing around it: the bare environments, each "
    "stepped by itself; the networks' matrix products and activations for the rows of one step; those of forward and "
    "backward pass with fused AdamW for every minibatch, without loss, clipping, UPGD, variance scaling or penalties."
)


@dataclass(frozen=True)
class Settings:
    """The size of an iteration, how often it is measured, and by whom.

    Attributes:
        n_envs: Environments.
        n_steps: Steps of each environment per rollout.
        batch_size: Samples per update.
        n_epochs: Passes over a rollout.
        repetitions: Iterations that count, after one to warm up.
        seed: Of every contestant.
        threads: And cores, of every contestant.
        processes: Whether contestants are processes, the peers' in environments of their own; otherwise all are in this
            process, and SB3 stands in for SBX.
        compiled: Whether everlearn's updates are compiled, where it offers that.
    """

    n_envs: int = 8
    n_steps: int = 2048
    batch_size: int = 64
    n_epochs: int = 10
    repetitions: int = 7
    seed: int = 0
    threads: int = 1
    processes: bool = True
    compiled: bool = True


SHORT = Settings(n_envs=2, n_steps=32, n_epochs=1, repetitions=2, processes=False, compiled=False)


@dataclass(frozen=True)
class Measured:
    """What was found in one environment, by contestant.

    Attributes:
        iterations: Those that count.
        first: The one before them, which compiled.
        profiles: Seconds of each part of one more.
        limits: Seconds that the parts could take.
        versions: Of the packages in the contestant's environment.
    """

    iterations: Mapping[str, Sequence[Iteration]]
    first: Mapping[str, Iteration]
    profiles: Mapping[str, Mapping[str, float]]
    limits: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, Mapping[str, str]]

    @property
    def parts(self) -> dict[str, dict[str, float]]:
        """Part to contestant to seconds."""
        return {part: {name: profile[part] for name, profile in self.profiles.items()} for part in PARTS}


def run(settings: Settings, announce: Announce) -> Report:
    """Measure all contestants in all environments."""
    measured = {env_id: _measure(env_id, settings, announce) for env_id in TARGETS}
    comparisons = [_comparison(env_id, found, settings) for env_id, found in measured.items()]
    figure, axes = panels("Throughput of one agent", 2, len(comparisons), size=(6.5, 2.9))
    tables: list[Table] = []
    for column, (comparison, found) in enumerate(zip(comparisons, measured.values(), strict=True)):
        draw_comparison(axes[0][column], comparison)
        draw_parts(axes[1][column], "where the time goes", "seconds of an iteration", found.parts)
        title = f"{comparison.title}, where the time goes"
        tables += [
            comparison_table(comparison),
            part_table(title, "seconds of an iteration", found.parts),
            limit_table(f"{comparison.title}, parts beside their limits", found),
        ]
    return Report(
        name="throughput",
        title="Throughput",
        method=_method(settings, measured.values()),
        settings=asdict(settings),
        data=[
            {**comparison.as_dict(), "seconds": found.parts, "limits": found.limits}
            for comparison, found in zip(comparisons, measured.values(), strict=True)
        ],
        tables=[*tables, target_table(comparisons)],
        figure=figure,
        environments=next(iter(measured.values())).versions,
    )


def limit_table(title: str, found: Measured) -> Table:
    """A row per contestant and part that has a limit: seconds, the limit, and how many times that it is."""
    rows = []
    for name, profile in found.profiles.items():
        for part, limit in found.limits[LIMITS_OF[name]].items():
            rows.append([f"{name}: {part}", number(profile[part]), number(limit), number(profile[part] / limit)])
    return Table(title, ["part", "seconds", "limit", "times the limit"], rows)


def _method(settings: Settings, measured: Collection[Measured]) -> str:
    compiled = all(turn.compiled for found in measured for name in (PLAIN, FULL) for turn in found.iterations[name])
    method = METHOD.format(compiled=f"Everlearn's updates are {'compiled' if compiled else 'not all compiled'}.")
    short = "" if settings.processes else "\n\nAll contestants are in one process, and SB3 stands in for SBX."
    return method + short


def _measure(env_id: str, settings: Settings, announce: Announce) -> Measured:
    contestants = {}
    for name, library in LIBRARIES.items():
        library = library if settings.processes or library == OWN else SB3
        python = interpreter(library if settings.processes else OWN, announce)
        contestants[name] = (python, _contestant(name, library, env_id, settings))
    with started(contestants, settings.threads, processes=settings.processes) as runners:
        turns = {name: runner.iterate for name, runner in runners.items()}
        iterations = interleave(turns, settings.repetitions, lambda what: announce(f"{env_id}: {what}"))
        announce(f"{env_id}: where the time goes")
        return _measured(runners, iterations)


def _measured(runners: Mapping[str, Runner], iterations: Mapping[str, Sequence[Iteration]]) -> Measured:
    return Measured(
        iterations=iterations,
        first={name: runner.first for name, runner in runners.items() if runner.first},
        profiles={name: runner.profile() for name, runner in runners.items()},
        limits={name: runners[name].limits() for name in (PLAIN, FULL)},
        versions={name: runner.versions for name, runner in runners.items()},
    )


def _contestant(name: str, library: str, env_id: str, settings: Settings) -> Contestant:
    return Contestant(
        library=library,
        algorithm=FULL if name == FULL else PLAIN,
        env_id=env_id,
        n_envs=settings.n_envs,
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.n_epochs,
        seed=settings.seed,
        arguments=ARGUMENTS.get(name, {}),
        compiled=settings.compiled,
    )


def _comparison(env_id: str, found: Measured, settings: Settings) -> Comparison:
    size = settings.n_envs * settings.n_steps
    samples = {name: [size / turn.seconds for turn in turns] for name, turns in found.iterations.items()}
    return Comparison(
        title=env_id,
        unit="env-steps/s",
        samples=samples,
        peer=PEER,
        more_is_better=True,
        targets=TARGETS[env_id],
        references={PEER, JAX_PEER},
        details={
            f"ratio to {JAX_PEER}": {
                name: median(paired_ratios(own, samples[JAX_PEER])) for name, own in samples.items()
            },
            "first iteration, s": {name: turn.seconds for name, turn in found.first.items()},
            "cores": {name: median(turn.cores for turn in turns) for name, turns in found.iterations.items()},
        },
    )
