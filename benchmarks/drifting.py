"""A task whose best learning rate changes: a target that by turns runs in clear sight and creeps in noise.

The module is a plug-in: whoever imports it can train on ``DriftingTarget-v0``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

ENV_ID = "DriftingTarget-v0"
EPISODE = 32
"""Steps of an episode; an even number, so that noise cancels over it."""
_HALF_WIDTH = math.sqrt(3.0)  # of a uniform distribution with variance 1

Observation = NDArray[np.float32]


class DriftingTarget(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Say how far an observation lies in a direction that turns: ``reward = -(action - w(t) . x)^2 + noise``.

    ``w`` has length 1 and turns; observations ``x`` are uniform in a square, with variance 1 in each coordinate. In the
    first phase, the third and so on it runs, and there is no noise: who learns in large steps keeps up. In the others
    it creeps, and there is noise: large steps follow the noise, small ones stay near.

    Noise comes in pairs, ``+e`` in one step and ``-e`` in the next, so that it makes learning harder and leaves the
    return of an episode as it is. Time is the number of steps since the last reset with a seed; other resets do not
    turn ``w`` back.

    Args:
        phase: Steps of a phase.
        running: Radians per step in which ``w`` turns where it runs.
        creeping: And where it creeps.
        noise: Standard deviation of the noise where it creeps.
    """

    def __init__(
        self, phase: int = 3200, running: float = 0.0016, creeping: float = 0.00006, noise: float = 10.0
    ) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = spaces.Box(-4.0, 4.0, (1,), np.float32)
        self._phase, self._running, self._creeping, self._noise = phase, running, creeping, noise
        self._time, self._owed, self._observation = 0, 0.0, np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; with a seed begin everything anew."""
        super().reset(seed=seed)
        if seed is not None:
            self._time, self._owed = 0, 0.0
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Compare the action with the observation's place in the direction of ``w``."""
        wanted = float(self.direction() @ self._observation)
        reward = self._drawn_noise() - (float(action[0]) - wanted) ** 2
        self._time += 1
        return self._observe(), reward, False, False, {}

    def direction(self) -> NDArray[np.float64]:
        """``w``."""
        past, since = divmod(self._time, self._phase)
        ran = (past + 1) // 2 * self._phase + (since if self.runs() else 0)
        angle = self._running * ran + self._creeping * (self._time - ran)
        return np.array([math.cos(angle), math.sin(angle)])

    def runs(self) -> bool:
        """Whether it does now."""
        return self._time // self._phase % 2 == 0

    def get_state(self) -> dict[str, Any]:
        """All that the next steps depend on."""
        return {
            "time": self._time,
            "owed": self._owed,
            "observation": self._observation.copy(),
            "generator": self.np_random.bit_generator.state,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._time, self._owed = state["time"], state["owed"]
        self._observation = state["observation"].copy()
        self.np_random.bit_generator.state = state["generator"]

    def _observe(self) -> Observation:
        self._observation = self.np_random.uniform(-_HALF_WIDTH, _HALF_WIDTH, 2).astype(np.float32)
        return self._observation.copy()

    def _drawn_noise(self) -> float:
        """New noise, or what is owed for the last."""
        noise, self._owed = self._owed, 0.0
        if noise == 0.0 and not self.runs():
            noise = self._noise * float(self.np_random.standard_normal())
            self._owed = -noise
        return noise


gymnasium.register(ENV_ID, entry_point=DriftingTarget, max_episode_steps=EPISODE)
