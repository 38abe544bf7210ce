"""A gate that lets no NaN and no infinity from an environment into training.

It stands directly around the simulation, so nothing downstream (running statistics, buffers, networks) has seen a
refused value.
"""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from everlearn.core.finite import require_finite
from everlearn.environments.subprocesses import SubprocessVecEnv
from everlearn.environments.synchronous import SynchronousVecEnv


class FiniteGate:
    """Finite observations and rewards pass unchanged, and all others are refused.

    It is a base of vector environments and no wrapper around one, because SB3's ``EvalCallback`` wants as many wrappers
    around its own environments.
    """

    _steps = 0

    def reset(self) -> VecEnvObs:
        """Reset all environments; the steps of each are counted from here."""
        self._steps = 0
        observations: VecEnvObs = super().reset()  # type: ignore[misc]
        require_finite("observation", observations, step=0)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments.

        Raises:
            NonFiniteError: Naming the quantity, the environment and its step since the reset.
        """
        outcome: VecEnvStepReturn = super().step_wait()  # type: ignore[misc]
        observations, rewards, _, _ = outcome
        self._steps += 1
        require_finite("reward", rewards, step=self._steps)
        require_finite("observation", observations, step=self._steps)
        require_finite_ends(outcome, self._steps)
        return outcome


class FiniteVecEnv(FiniteGate, SynchronousVecEnv):
    """Environments one after the other, which let nothing pass that is not finite.

    Args:
        env_fns: Make one environment each.
    """


class FiniteSubprocessVecEnv(FiniteGate, SubprocessVecEnv):
    """Environments in processes of their own, which let nothing pass that is not finite.

    Args:
        env_fns: Make one environment each.
    """


def require_finite_ends(outcome: VecEnvStepReturn, step: int) -> None:
    """Refuse last observations of episodes that are not finite.

    Args:
        outcome: What a step of several environments returned.
        step: Which step of each it was.

    Raises:
        NonFiniteError: Naming the environment and its step.
    """
    _, _, dones, infos = outcome
    for index in np.flatnonzero(dones):
        terminal = infos[index].get("terminal_observation")
        if terminal is not None:
            require_finite("terminal observation", terminal, step=step, environment=int(index))
