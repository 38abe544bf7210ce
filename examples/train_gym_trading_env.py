"""Train on gym-trading-env: pip install gym-trading-env, then python examples/train_gym_trading_env.py.

Two things of it need care. Importing it turns every later warning of the process into an exception, so it is imported
with the filters kept. And its resets draw from numpy's global generator, whatever seed they are given: the adapter
gives it the environment's own draws and leaves the global generator as it was.
"""

import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.env_util import make_vec_env

from everlearn import DistributionalPPO
from everlearn.markets import RegimePrices

with warnings.catch_warnings():
    from gym_trading_env.environments import TradingEnv


class Seeded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Resets that follow from their seed."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset with draws of the environment's own generator."""
        if seed is not None:
            self.unwrapped.np_random = np.random.default_rng(seed)
        state = np.random.get_state()
        np.random.seed(self.unwrapped.np_random.integers(2**32))
        try:
            return self.env.reset(options=options)
        finally:
            np.random.set_state(state)


def make(bars: int = 2000) -> gymnasium.Env:
    """The environment on generated prices; positions short, flat and long."""
    prices = RegimePrices(bars=bars, seed=7).prices().to_pandas().set_index("timestamp").tz_localize(None)
    features = {f"feature_{name}": prices[name] for name in ("momentum_8", "momentum_32")}
    table = prices[["open", "high", "low", "close", "volume"]].assign(**features)
    return Seeded(TradingEnv(table, positions=[-1, 0, 1], trading_fees=0.0005, max_episode_duration=512, verbose=0))


def main(steps: int = 100_000) -> None:
    """Train, and say what an episode earns."""
    venv = make_vec_env(make, n_envs=8)
    model = DistributionalPPO("MlpPolicy", venv, n_steps=256, batch_size=256, gamma=0.9, seed=0, device="cpu")
    model.learn(steps)
    env = make()
    observation, info = env.reset(seed=0)
    started, ended = info["portfolio_valuation"], False
    while not ended:
        action, _ = model.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = env.step(int(action))
        ended = terminated or truncated
    print(f"one unit of money became {info['portfolio_valuation'] / started:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
