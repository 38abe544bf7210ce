"""A gate that lets no NaN and no infinity from an environment into training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from everlearn.core.errors import NonFiniteError


class FiniteGate(VecEnvWrapper):
    """Passes finite observations and rewards on unchanged and refuses all others.

    It stands directly around the simulation, so nothing downstream (running statistics, buffers, networks)
    has seen a refused value.

    Args:
        venv: The environments as the simulation provides them.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self._steps = 0

    def reset(self) -> VecEnvObs:
        """Reset all environments; the steps of each are counted from here."""
        self._steps = 0
        observations = self.venv.reset()
        self._check_observations(observations)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments.

        Raises:
            NonFiniteError: Naming the quantity, the environment and its step since the reset.
        """
        observations, rewards, dones, infos = self.venv.step_wait()
        self._steps += 1
        if not np.isfinite(rewards).all():
            self._refuse("reward", int(np.argmin(np.isfinite(rewards))), rewards)
        self._check_observations(observations)
        for index in np.flatnonzero(dones):
            self._check_terminal(int(index), infos[index])
        return observations, rewards, dones, infos

    def _check_observations(self, observations: VecEnvObs) -> None:
        for name, values in _named_parts(observations):
            if not np.isfinite(values).all():
                finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
                self._refuse(name, int(np.argmin(finite)), values)

    def _check_terminal(self, index: int, info: Mapping[str, Any]) -> None:
        for name, values in _named_parts(info.get("terminal_observation")):
            if not np.isfinite(values).all():
                self._refuse(f"terminal {name}", index, {index: values})

    def _refuse(self, name: str, index: int, values: Any) -> None:
        raise NonFiniteError(
            f"Environment {index} returned a non-finite {name} at its step {self._steps}: {values[index]}. "
            "No statistic has seen it. Correct the environment, or wrap it so that it ends the episode with "
            "a finite reward and observation instead."
        )


def _named_parts(observations: Any) -> list[tuple[str, np.ndarray]]:
    """Name and values of each floating-point part of (dictionary) observations."""
    if observations is None:
        return []
    parts = observations if isinstance(observations, Mapping) else {"": observations}
    arrays = {key: np.asarray(values) for key, values in parts.items()}
    return [
        (f"observation '{key}'" if key else "observation", values)
        for key, values in arrays.items()
        if np.issubdtype(values.dtype, np.floating)
    ]
