"""Training and scoring agents for the learning benchmark, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.scores import Floats, binned_curve
from everlearn.environments.evaluation import evaluate
from everlearn.ppo.algorithm import PPO, DistributionalPPO

PEER = "SB3 PPO"
ALGORITHMS: dict[str, Callable[..., OnPolicyAlgorithm]] = {
    PEER: stable_baselines3.PPO,
    "PPO": PPO,
    "DistributionalPPO": DistributionalPPO,
    "DistributionalPPO without VGS": partial(DistributionalPPO, variance_gradient_scaling=False),
    "DistributionalPPO with Adam": partial(DistributionalPPO, optimizer_class="adam"),
}
_POINTS = 40  # of a learning curve
_EVALUATION_ENVS, _EVALUATION_SEED = 5, 10_000


@dataclass(frozen=True)
class Task:
    """An environment with the settings for it.

    Attributes:
        total_timesteps: Environment steps of a training.
        n_envs: Environments.
        random_score: Mean return of a random policy.
        settings: Arguments of the algorithm.
    """

    total_timesteps: int
    n_envs: int
    random_score: float
    settings: Mapping[str, Any]


TASKS = {
    "CartPole-v1": Task(
        total_timesteps=100_000,
        n_envs=8,
        random_score=22.8,
        settings={
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "learning_rate": LinearSchedule(0.001, 0.0, 1.0),
            "clip_range": LinearSchedule(0.2, 0.0, 1.0),
        },
    ),
    "Pendulum-v1": Task(
        total_timesteps=150_000,
        n_envs=4,
        random_score=-1229.0,
        settings={
            "n_steps": 1024,
            "n_epochs": 10,
            "gamma": 0.9,
            "gae_lambda": 0.95,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
    ),
}


@dataclass(frozen=True)
class Settings:
    """How much is trained.

    Attributes:
        tasks: Ids of the environments.
        seeds: Trainings of every contestant on every task.
        share: Of each task's environment steps.
        episodes: Deterministic ones per score.
        jobs: Trainings at a time, each in a process of its own; 1 for this process.
        threads: Of each training.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    seeds: int = 3
    share: float = 1.0
    episodes: int = 20
    jobs: int = 2
    threads: int = 1

    def steps(self, task: str) -> int:
        """Environment steps of a training."""
        return round(self.share * TASKS[task].total_timesteps)

    def curve_edges(self, task: str) -> Floats:
        """The environment steps between which the points of a learning curve lie, (points + 1,)."""
        return np.linspace(0, self.steps(task), _POINTS + 1)


@dataclass(frozen=True)
class Training:
    """What is trained: a contestant on a task with a seed."""

    task: str
    contestant: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """The mean return after a training, and the learning curve, (points,)."""

    training: Training
    score: float
    curve: list[float]


def train_all(settings: Settings) -> Iterator[Outcome]:
    """Train every contestant on every task with every seed."""
    trainings = [
        Training(task, contestant, seed)
        for task, seed, contestant in product(settings.tasks, range(settings.seeds), ALGORITHMS)
    ]
    train = partial(train_and_score, settings=settings)
    if settings.jobs == 1:
        yield from map(train, trainings)
        return
    with ProcessPoolExecutor(settings.jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(train, trainings)


def train_and_score(training: Training, settings: Settings) -> Outcome:
    """Train one agent, then let it play deterministic episodes."""
    torch.set_num_threads(settings.threads)
    task = TASKS[training.task]
    venv = make_vec_env(training.task, n_envs=task.n_envs, seed=training.seed)
    model = ALGORITHMS[training.contestant]("MlpPolicy", venv, seed=training.seed, device="cpu", **task.settings)
    model.learn(settings.steps(training.task))
    curve = binned_curve(*episodes_of(venv), settings.curve_edges(training.task))
    return Outcome(training, _score(model, training, settings.episodes), curve.tolist())


def episodes_of(venv: VecEnv) -> tuple[Floats, Floats]:
    """Steps over all environments at which the episodes of monitored environments ended, and their returns."""
    lengths, returns = venv.env_method("get_episode_lengths"), venv.env_method("get_episode_rewards")
    ends = [venv.num_envs * np.cumsum(own, dtype=np.float64) for own in lengths]
    return np.concatenate(ends), np.concatenate(returns, dtype=np.float64)


def _score(model: OnPolicyAlgorithm, training: Training, episodes: int) -> float:
    """Mean return of deterministic episodes in environments whose seeds no training has."""
    venv = make_vec_env(training.task, n_envs=_EVALUATION_ENVS, seed=_EVALUATION_SEED + training.seed)
    return evaluate(lambda observations: model.predict(observations, deterministic=True)[0], venv, episodes).mean
