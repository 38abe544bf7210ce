"""An environment that fails after some steps; a plug-in."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Misfortune(gymnasium.Env):
    """Fails in its forty-first step."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps > 40:
            raise ValueError("a misfortune")
        return np.zeros(2, np.float32), 1.0, self.steps % 10 == 0, False, {}


if "Misfortune-v0" not in gymnasium.registry:
    gymnasium.register("Misfortune-v0", "tests.pbt.misfortune:Misfortune")
