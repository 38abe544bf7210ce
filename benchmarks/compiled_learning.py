"""Whether agents learn the same with compiled updates as with eager ones: several seeds, intervals that overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Announce
from benchmarks.plots import draw_scores, panels
from benchmarks.results import Report
from benchmarks.scores import bootstrap_interval, interquartile_mean
from benchmarks.tables import Table, range_cell
from benchmarks.training import TASKS
from everlearn.environments.build import evaluation_environment, training_environment
from everlearn.environments.evaluation import evaluate
from everlearn.environments.spec import EnvConfig
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from everlearn.report.wording import number

ALGORITHMS: dict[str, type[PPO]] = {"PPO": PPO, "DistributionalPPO": DistributionalPPO}
SETTINGS: dict[str, Mapping[str, Any]] = {
    "CartPole-v1": TASKS["CartPole-v1"].settings,
    "HalfCheetah-v5": {"n_steps": 128, "batch_size": 64, "policy_kwargs": {"log_std_init": -1.0}},
}
EAGER, COMPILED = "eager", "compiled"
METHOD = (
    "The same trainings, eager and compiled: environment steps {steps}, {seeds} seeds, with rl-zoo3's settings on "
    "CartPole and those of `make demo` on HalfCheetah, whose observations and rewards are normalised. "
    "Compiled trainings also act by numpy. A score is the mean return of {episodes} deterministic episodes after "
    "training; the interval of the interquartile mean (IQM) is a 95 % one, from a bootstrap over the seeds. Bits "
    "differ from the first update on, so that single seeds may end elsewhere; the distributions of scores must not."
)


@dataclass(frozen=True)
class Settings:
    """How much is trained.

    Attributes:
        steps: Task to environment steps.
        seeds: Trainings of each kind.
        episodes: Per score.
        jobs: Trainings at a time.
    """

    steps: Mapping[str, int]
    seeds: int = 5
    episodes: int = 10
    jobs: int = 2


FULL = Settings({"CartPole-v1": 100_000, "HalfCheetah-v5": 150_000})
SHORT = replace(FULL, steps={"CartPole-v1": 2_000}, seeds=1, episodes=1, jobs=1)
Training = tuple[str, str, str, int]
"""Task, algorithm, eager or compiled, seed."""


def run(settings: Settings, announce: Announce) -> Report:
    """Train and score."""
    modes = (EAGER,) if settings == SHORT else (EAGER, COMPILED)
    trainings = [*product(settings.steps, ALGORITHMS, modes, range(settings.seeds))]
    scores: dict[Training, float] = {}
    for training, score in zip(trainings, _scores(trainings, settings), strict=True):
        scores[training] = score
        announce(f"{training}: {number(score)}")
    figure, axes = panels("Learning, eager and compiled", len(settings.steps), 1, size=(9.5, 3.2))
    for row, task in zip(axes, settings.steps, strict=True):
        kinds = {f"{algorithm}, {mode}": (task, algorithm, mode) for algorithm, mode in product(ALGORITHMS, modes)}
        values = {name: _of(scores, *kind, settings) for name, kind in kinds.items()}
        centres = {name: interquartile_mean(own) for name, own in values.items()}
        intervals = {name: _interval(own) for name, own in values.items()}
        draw_scores(row[0], task, "mean return", values, centres, intervals)
    return Report(
        name="compiled-learning",
        title="Learning, eager and compiled",
        method=METHOD.format(**asdict(settings)),
        settings=asdict(settings),
        data=[{"training": training, "score": score} for training, score in scores.items()],
        tables=[_table(task, scores, modes, settings) for task in settings.steps],
        figure=figure,
    )


def _scores(trainings: Sequence[Training], settings: Settings) -> Any:
    train = partial(train_and_score, settings=settings)
    if settings.jobs == 1:
        return [*map(train, trainings)]
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        return [*pool.map(train, trainings)]


def train_and_score(training: Training, settings: Settings) -> float:
    """Train one agent, then let it play deterministic episodes in environments whose seeds no training has."""
    task, algorithm, mode, seed = training
    torch.set_num_threads(1)
    env = EnvConfig(id=task)
    with closing(training_environment(env, SETTINGS[task].get("gamma", 0.99))) as venv:
        model = ALGORITHMS[algorithm](
            "MlpPolicy", venv, seed=seed, device="cpu", compile=mode == COMPILED, **SETTINGS[task]
        )
        model.learn(settings.steps[task])
        if model.update_compiler.compiled is not (mode == COMPILED):
            raise RuntimeError(f"{training}: {model.update_compiler.reason}")
        statistics = model.normaliser_state
    with closing(evaluation_environment(env, 5, 10_000 + seed, statistics)) as venv:
        act = lambda observations: model.predict(observations, deterministic=True)[0]  # noqa: E731 - said once
        return evaluate(act, venv, settings.episodes).mean


def _of(scores: Mapping[Training, float], task: str, algorithm: str, mode: str, settings: Settings) -> list[float]:
    return [scores[task, algorithm, mode, seed] for seed in range(settings.seeds)]


def _interval(scores: Sequence[float]) -> tuple[float, float]:
    return bootstrap_interval([scores], np.random.default_rng(0))


def _table(task: str, scores: Mapping[Training, float], modes: Sequence[str], settings: Settings) -> Table:
    """A row per algorithm and mode: each seed's score, the interval, and whether both modes' intervals overlap."""
    rows = []
    for algorithm in ALGORITHMS:
        own = {mode: _of(scores, task, algorithm, mode, settings) for mode in modes}
        ends = [_interval(values) for values in own.values()]
        overlap = "yes" if max(low for low, _ in ends) <= min(high for _, high in ends) else "no"
        for (mode, values), interval in zip(own.items(), ends, strict=True):
            figures = [*map(number, [*values, interquartile_mean(values)]), range_cell(*interval)]
            rows.append([f"{algorithm}, {mode}", *figures, overlap])
    seeds = [f"seed {seed}" for seed in range(settings.seeds)]
    return Table(task, ["agent", *seeds, "IQM", "95 % interval", "intervals overlap"], rows)
