"""Episodes of a policy, counted without bias, and their statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

Act = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of finished episodes.

    Attributes:
        returns: One per episode, in the environment's own reward.
        lengths: Steps of each episode.
    """

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns between episodes."""
        return float(np.std(self.returns))

    def as_dict(self) -> dict[str, Any]:
        """The figures for a machine; without episodes only their number, 0."""
        if not self.returns:
            return {"episodes": 0}
        return {
            "episodes": len(self.returns),
            "mean": self.mean,
            "std": self.std,
            "min": min(self.returns),
            "max": max(self.returns),
            "mean_length": float(np.mean(self.lengths)),
            "returns": self.returns,
            "lengths": self.lengths,
        }


def evaluate(
    act: Act,
    venv: VecEnv,
    episodes: int,
    *,
    step_limit: int = 1_000_000,
    stopped: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Run ``episodes`` episodes in fresh environments.

    Every environment gets its share in advance; taking whichever end first would favour short episodes.

    Args:
        act: Observations, (n_envs, ...), to actions, (n_envs, ...).
        venv: Monitored environments that give true rewards.
        episodes: Number of episodes over all environments.
        step_limit: Give up after so many environment steps: some environments never end.
        stopped: Asked at every step; True ends the evaluation early.

    Returns:
        The finished episodes, fewer than asked for if stopped or out of steps.
    """
    todo = np.array([(episodes + index) // venv.num_envs for index in range(venv.num_envs)])
    returns: list[float] = []
    lengths: list[int] = []
    observations = venv.reset()
    for _ in range(0, step_limit, venv.num_envs):
        if stopped() or not todo.any():
            break
        observations, _, _, infos = venv.step(act(observations))
        for index, info in enumerate(infos):
            if "episode" in info and todo[index]:
                todo[index] -= 1
                returns.append(float(info["episode"]["r"]))
                lengths.append(int(info["episode"]["l"]))
    return Evaluation(returns, lengths)


def random_policy(venv: VecEnv, seed: int | None) -> Act:
    """Uniform actions from a generator of its own."""
    space = copy.deepcopy(venv.action_space)
    space.seed(seed)
    return lambda _: np.stack([space.sample() for _ in range(venv.num_envs)])


def is_better(mean: Evaluation, baseline: Evaluation, deviations: float = 2.0) -> bool:
    """Whether one mean return exceeds another by ``deviations`` standard errors of their difference."""
    variance = mean.std**2 / len(mean.returns) + baseline.std**2 / len(baseline.returns)
    return mean.mean - baseline.mean > deviations * float(np.sqrt(variance))
