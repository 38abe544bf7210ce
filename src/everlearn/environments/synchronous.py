"""Environments that step one after the other, and little else that would take time."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs

from everlearn.environments.conforming import FIRST_STEPS, require_conforming

_IMMUTABLE = frozenset({bool, bytes, complex, float, int, str, type(None), np.bool_, np.float32, np.float64, np.int64})


class SynchronousVecEnv(DummyVecEnv):
    """SB3's ``DummyVecEnv`` with the same results, without its deep copies.

    What is handed out stays as it is, as it does there: each reset and each step writes into arrays of its own, so that
    nothing has to be copied afterwards. Infos are copied as deeply as they can change.

    What does not conform to its spaces is refused in the first steps.

    Args:
        env_fns: Make one environment each.
    """

    _first_steps = 0

    def reset(self) -> VecEnvObs:
        """Reset all environments, with the seeds and options given for this reset."""
        self._take_new_arrays()
        self._first_steps = 0
        return super().reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments; one whose episode ended is reset, and its info has the last observation."""
        self._take_new_arrays()
        actions, rewards, dones, infos = self.actions, self.buf_rews, self.buf_dones, self.buf_infos
        self._first_steps = step = min(self._first_steps + 1, FIRST_STEPS + 1)
        for index, env in enumerate(self.envs):
            outcome = env.step(actions[index])
            if step <= FIRST_STEPS:
                require_conforming(index, env.observation_space, outcome, step)
            observation, rewards[index], terminated, truncated, info = outcome
            done = dones[index] = terminated or truncated
            info["TimeLimit.truncated"] = truncated and not terminated
            if done:
                info["terminal_observation"] = observation
                observation, self.reset_infos[index] = env.reset()
            self._save_obs(index, observation)
            infos[index] = independent(info)
        return self._obs_from_buf(), rewards, dones, infos

    def _take_new_arrays(self) -> None:
        """Leave what was handed out to those who hold it."""
        self.buf_obs = OrderedDict((key, np.empty_like(array)) for key, array in self.buf_obs.items())
        self.buf_rews = np.empty_like(self.buf_rews)
        self.buf_dones = np.empty_like(self.buf_dones)
        self.buf_infos = [{}] * self.num_envs

    def _obs_from_buf(self) -> VecEnvObs:
        return dict_to_obs(self.observation_space, self.buf_obs.copy())  # the dictionary; the arrays are its reader's


def independent(info: dict[str, Any]) -> dict[str, Any]:
    """An equal info that does not change when the environment changes its own, as by ``deepcopy``."""
    if type(info) is not dict:
        return deepcopy(info)
    if _IMMUTABLE.issuperset(map(type, info.values())):
        return info.copy()
    return {key: value if type(value) in _IMMUTABLE else deepcopy(value) for key, value in info.items()}
