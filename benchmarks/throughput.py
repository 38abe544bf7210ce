"""Environment steps per second of a whole agent, beside Stable-Baselines3's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import stable_baselines3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.measure import Announce, Comparison, Target, interleave
from benchmarks.plots import draw_comparison, draw_parts, panels
from benchmarks.results import Report
from benchmarks.tables import comparison_table, part_table, target_table
from everlearn.ppo.algorithm import PPO, DistributionalPPO

PEER = "SB3 PPO"
ALGORITHMS: dict[str, Callable[..., OnPolicyAlgorithm]] = {
    PEER: stable_baselines3.PPO,
    "PPO": PPO,
    "DistributionalPPO": DistributionalPPO,
}
TARGETS = {
    "HalfCheetah-v5": (
        Target("P1", "PPO", PEER, must=0.9, aim=2.5),
        Target("P2", "DistributionalPPO", PEER, must=0.5, aim=2.0),
    ),
    "CartPole-v1": (
        Target("P3", "PPO", PEER, must=0.9, aim=3.0),
        Target("P3", "DistributionalPPO", PEER, must=0.5),
    ),
}
METHOD = (
    "Environment steps per second from end to end: a repetition is one iteration of `learn()`, collecting a rollout "
    "and learning from it, by a model that has done one before. All contestants have SB3's default settings, the same "
    "seed, and environments of their own that are built alike; DistributionalPPO has all that is its own on, as it "
    "comes. Everything runs eagerly; the aims are for compiled updates. The second row of pictures shows where the "
    "time goes."
)


@dataclass(frozen=True)
class Settings:
    """The size of an iteration, and how often it is measured.

    Attributes:
        n_envs: Environments.
        n_steps: Steps of each environment per rollout.
        batch_size: Samples per update.
        n_epochs: Passes over a rollout.
        repetitions: Iterations that count, after one to warm up.
        seed: Of every contestant.
    """

    n_envs: int = 8
    n_steps: int = 2048
    batch_size: int = 64
    n_epochs: int = 10
    repetitions: int = 7
    seed: int = 0

    @property
    def rollout_size(self) -> int:
        """Environment steps of an iteration."""
        return self.n_envs * self.n_steps


SHORT = Settings(n_envs=2, n_steps=32, n_epochs=1, repetitions=2)


@dataclass(frozen=True)
class Iteration:
    """Seconds of one iteration: in all, in the rollout, in the update."""

    seconds: float
    collect: float
    train: float


class TimedMethod:
    """A method of one object, replaced by one that also says how long its last call took.

    Args:
        owner: The object.
        name: Of the method.
    """

    def __init__(self, owner: object, name: str) -> None:
        self.seconds = 0.0
        self._method: Callable[..., Any] = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        start = time.perf_counter()
        result = self._method(*args, **kwargs)
        self.seconds = time.perf_counter() - start
        return result


def run(settings: Settings, announce: Announce) -> Report:
    """Measure all algorithms on all environments."""
    iterations = {env_id: _measure(env_id, settings, announce) for env_id in TARGETS}
    comparisons = [_comparison(env_id, turns, settings) for env_id, turns in iterations.items()]
    profiles = [_profile(turns) for turns in iterations.values()]
    figure, axes = panels("Throughput of one agent", 2, len(comparisons), size=(6.5, 2.6))
    tables = []
    for column, (comparison, profile) in enumerate(zip(comparisons, profiles, strict=True)):
        draw_comparison(axes[0][column], comparison)
        draw_parts(axes[1][column], "where the time goes", "seconds per iteration", profile)
        tables += [
            comparison_table(comparison),
            part_table(f"{comparison.title}, where the time goes", "seconds per iteration", profile),
        ]
    return Report(
        name="throughput",
        title="Throughput",
        method=METHOD,
        settings=asdict(settings),
        data=[
            {**comparison.as_dict(), "seconds": profile}
            for comparison, profile in zip(comparisons, profiles, strict=True)
        ],
        tables=[*tables, target_table(comparisons)],
        figure=figure,
    )


def _measure(env_id: str, settings: Settings, announce: Announce) -> dict[str, list[Iteration]]:
    contestants = {name: _contestant(algorithm, env_id, settings) for name, algorithm in ALGORITHMS.items()}
    return interleave(contestants, settings.repetitions, lambda what: announce(f"{env_id}: {what}"))


def _contestant(
    algorithm: Callable[..., OnPolicyAlgorithm], env_id: str, settings: Settings
) -> Callable[[], Iteration]:
    """A model, as a function that runs its next iteration."""
    model = algorithm(
        "MlpPolicy",
        make_vec_env(env_id, n_envs=settings.n_envs, seed=settings.seed),
        n_steps=settings.n_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.n_epochs,
        seed=settings.seed,
        device="cpu",
    )
    collect, train = TimedMethod(model, "collect_rollouts"), TimedMethod(model, "train")

    def iterate() -> Iteration:
        start = time.perf_counter()
        model.learn(settings.rollout_size, reset_num_timesteps=False)
        return Iteration(time.perf_counter() - start, collect.seconds, train.seconds)

    return iterate


def _comparison(env_id: str, iterations: dict[str, list[Iteration]], settings: Settings) -> Comparison:
    return Comparison(
        title=env_id,
        unit="env-steps/s",
        samples={name: [settings.rollout_size / turn.seconds for turn in turns] for name, turns in iterations.items()},
        peer=PEER,
        more_is_better=True,
        targets=TARGETS[env_id],
        references={PEER},
    )


def _profile(iterations: dict[str, list[Iteration]]) -> dict[str, dict[str, float]]:
    """Median seconds that each contestant spends in each part of an iteration."""
    parts: dict[str, Callable[[Iteration], float]] = {
        "collect": lambda turn: turn.collect,
        "train": lambda turn: turn.train,
        "other": lambda turn: turn.seconds - turn.collect - turn.train,
    }
    return {
        part: {name: median(map(seconds, turns)) for name, turns in iterations.items()}
        for part, seconds in parts.items()
    }
