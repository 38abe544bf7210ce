"""Runs that take a moment."""

from collections.abc import Callable
from typing import Any

from everlearn.config import RunConfig, load
from everlearn.environments.build import training_environment
from everlearn.ppo.algorithm import PPO
from everlearn.report import Display, Progress
from everlearn.runs.building import build_agent, resolved

NOISY = "everlearn-tests/Noisy-v0"
TINY = {
    "env.id": NOISY,
    "env.n_envs": 2,
    "name": "PPO",
    "n_steps": 8,
    "batch_size": 8,
    "n_epochs": 1,
    "total_timesteps": 64,
    "seed": 7,
    "logging.evaluation_episodes": 3,
    "logging.baseline_episodes": 2,
    "logging.tensorboard": False,
}


def tiny(**overrides: Any) -> RunConfig:
    return load(None, {**TINY, **overrides})


def built(**overrides: Any) -> PPO:
    config = tiny(**overrides)
    venv = training_environment(config.env, config.algorithm.gamma)
    return build_agent(resolved(config, venv)[0], venv)


class Recorded(Display):
    """Remembers what it was shown; ``at_first`` is called at the first update."""

    def __init__(self, at_first: Callable[[], object] = lambda: None) -> None:
        self.announced: list[str] = []
        self.shown: list[Progress] = []
        self._at_first = at_first

    def announce(self, text: str) -> None:
        self.announced.append(text)

    def update(self, progress: Progress) -> None:
        if not self.shown:
            self._at_first()
        self.shown.append(progress)

    def close(self) -> None:
        """Nothing to close."""
