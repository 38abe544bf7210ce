"""Small environments whose every observation and reward is known."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv


class Scripted(gymnasium.Env[Any, Any]):
    """Episodes of ``length`` steps that observe their step number and earn ``reward`` each."""

    action_space = spaces.Discrete(2)

    def __init__(
        self,
        length: int = 5,
        reward: float = 1.0,
        bad_reward_at: int | None = None,
        bad_observation_at: int | None = None,
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
    ) -> None:
        self.observation_space = observation_space or spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self.length, self.reward = length, reward
        self.bad_reward_at, self.bad_observation_at = bad_reward_at, bad_observation_at
        self.steps = self.total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.total += 1
        reward = np.nan if self.total == self.bad_reward_at else self.reward
        return self.observation(), reward, self.steps >= self.length, False, {}

    def observation(self) -> Any:
        if isinstance(self.observation_space, spaces.Dict):
            return {key: np.full((2,), self.steps, np.float32) for key in self.observation_space}
        bad = self.steps > 0 and self.total == self.bad_observation_at
        value = np.inf if bad else float(self.steps)
        return np.full(self.observation_space.shape, value, np.float32)


class Noisy(Scripted):
    """A scripted environment with random observations and rewards."""

    def observation(self) -> Any:
        return self.np_random.normal(3.0, 2.0, (2,)).astype(np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.np_random.normal(1.0, 4.0)), terminated, truncated, info


def vector(*environments: gymnasium.Env[Any, Any]) -> DummyVecEnv:
    """The environments, monitored, side by side."""
    return DummyVecEnv([lambda environment=environment: Monitor(environment) for environment in environments])
