"""Small environments of every kind, which behave the same each time they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.envs import (
    FakeImageEnv,
    IdentityEnv,
    IdentityEnvMultiBinary,
    IdentityEnvMultiDiscrete,
    SimpleMultiObsEnv,
)
from stable_baselines3.common.vec_env import DummyVecEnv

Environment = gymnasium.Env[Any, Any]
Script = Sequence[tuple[float, str]]
"""One pair for each step: the reward, and "goes on", "terminates" or "runs out of time"."""


def seeded(environment: Environment) -> Environment:
    """Its spaces, from which SB3's fake environments sample, start at the same point each time."""
    environment.observation_space.seed(0)
    environment.action_space.seed(0)
    return environment


def of_images() -> Environment:
    return seeded(FakeImageEnv(screen_height=36, screen_width=36))


def of_dictionaries() -> Environment:
    np.random.seed(0)  # from which this environment draws its observations
    return seeded(SimpleMultiObsEnv(random_start=False))


class Scripted(gymnasium.Env[Any, Any]):
    """Observes ``sin`` and ``cos`` of its number of steps, and gets rewards and ends from a script, over and over.

    Args:
        script: What happens at each step.
        bad_observation_at: The step, from 1, that observes a NaN; 0 is the first reset.
        action_space: Discrete(2) by default.
    """

    def __init__(
        self,
        script: Script,
        bad_observation_at: int | None = None,
        action_space: spaces.Space[Any] | None = None,
    ) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self.script = script
        self.bad_observation_at = bad_observation_at
        self.steps = 0

    def observation(self) -> np.ndarray:
        return np.array([np.sin(self.steps), np.cos(self.steps)], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        bad = self.steps == self.bad_observation_at == 0
        return self.observation() * (np.nan if bad else 1), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, ending = self.script[self.steps % len(self.script)]
        self.steps += 1
        observation = self.observation() * (np.nan if self.steps == self.bad_observation_at else 1)
        return observation, reward, ending == "terminates", ending == "runs out of time", {}


def acting_in(action_space: spaces.Space[Any]) -> Environment:
    return Scripted([(1.0, "goes on")] * 9 + [(0.0, "terminates")], action_space=action_space)


WORLDS: dict[str, Callable[[], Environment]] = {
    "cartpole": lambda: gymnasium.make("CartPole-v1"),
    "pendulum": lambda: gymnasium.make("Pendulum-v1"),
    "images": of_images,
    "dictionaries": of_dictionaries,
    "numbers": lambda: seeded(IdentityEnv(4, ep_length=10)),
    "several numbers": lambda: seeded(IdentityEnvMultiDiscrete(3, ep_length=10)),
    "switches": lambda: seeded(IdentityEnvMultiBinary(3, ep_length=10)),
    "scripted": lambda: acting_in(spaces.Discrete(2)),
    "scripted, several numbers": lambda: acting_in(spaces.MultiDiscrete([3, 2])),
    "scripted, switches": lambda: acting_in(spaces.MultiBinary(3)),
}


def world(name: str, copies: int = 1) -> DummyVecEnv:
    """The named environment, so many times."""
    return DummyVecEnv([WORLDS[name]] * copies)


def scripted(*scripts: Script) -> DummyVecEnv:
    """One scripted environment for each script."""
    return DummyVecEnv([lambda script=script: Scripted(script) for script in scripts])
