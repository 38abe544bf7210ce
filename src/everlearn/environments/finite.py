"""A gate that lets no NaN and no infinity from an environment into training."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from everlearn.core.finite import require_finite


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
        require_finite("observation", observations, step=0)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments.

        Raises:
            NonFiniteError: Naming the quantity, the environment and its step since the reset.
        """
        observations, rewards, dones, infos = self.venv.step_wait()
        self._steps += 1
        require_finite("reward", rewards, step=self._steps)
        require_finite("observation", observations, step=self._steps)
        for index in np.flatnonzero(dones):
            terminal = infos[index].get("terminal_observation")
            if terminal is not None:
                require_finite("terminal observation", terminal, step=self._steps, environment=int(index))
        return observations, rewards, dones, infos
