"""B42 and the bar of learning: small tasks with the settings that are known to work for SB3's PPO, three seeds each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule

from everlearn import PPO, DistributionalPPO

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Task:
    """An environment and the settings of rl-baselines3-zoo for it."""

    environment: str
    copies: int
    steps: int
    arguments: dict[str, Any]


TASKS = {
    "CartPole": Task(
        "CartPole-v1",
        copies=8,
        steps=100_000,
        arguments={
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "learning_rate": LinearSchedule(1e-3, 0.0, 1.0),
            "clip_range": LinearSchedule(0.2, 0.0, 1.0),
        },
    ),
    "Pendulum": Task(
        "Pendulum-v1",
        copies=4,
        steps=150_000,
        arguments={
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "n_epochs": 10,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
    ),
}
VARIANTS: dict[str, tuple[type[PPO], dict[str, Any]]] = {
    "PPO": (PPO, {}),
    "PPO with AdaptiveUPGD": (PPO, {"optimizer_class": "adaptive_upgd"}),
    "DistributionalPPO": (DistributionalPPO, {}),
}


def score(variant: str, task: Task, seed: int) -> float:
    """The mean return of 20 deterministic episodes after training."""
    algorithm, changes = VARIANTS[variant]
    venv = make_vec_env(task.environment, task.copies, seed=seed)
    model = algorithm("MlpPolicy", venv, seed=seed, device="cpu", **task.arguments, **changes)
    model.learn(task.steps)
    unseen = make_vec_env(task.environment, 1, seed=1000 + seed)
    mean, _ = evaluate_policy(model, unseen, n_eval_episodes=20, deterministic=True)
    return float(mean)


@cache
def scores(variant: str, task: str) -> list[float]:
    return [score(variant, TASKS[task], seed) for seed in SEEDS]


def test_ppo_balances_the_pole() -> None:
    found = scores("PPO", "CartPole")
    assert median(found) >= 475, found
    assert min(found) >= 400, found


def test_ppo_swings_the_pendulum_up() -> None:
    found = scores("PPO", "Pendulum")
    assert median(found) > -250, found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", ["PPO with AdaptiveUPGD", "DistributionalPPO"])
def test_b42_what_everlearn_adds_is_within_a_tenth_of_ppo(variant: str, task: str) -> None:
    """B42."""
    expected, found = median(scores("PPO", task)), scores(variant, task)
    assert median(found) >= expected - 0.1 * abs(expected), found
