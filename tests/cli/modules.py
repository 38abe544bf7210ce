"""Modules of a user that register environments, as source."""

BROKEN = """\
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Broken(CartPoleEnv):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest

gymnasium.register("Broken-v0", Broken, disable_env_checker=True)
"""
