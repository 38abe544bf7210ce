"""Train on an environment of gym-anytrading: pip install gym-anytrading, then python examples/train_gym_anytrading.py.

It needs no adapter: two actions (short, long), windows of features as observations, rewards without fees unless its
subclass has them. Unlike a MarketEnv it says nothing of its observations: a model trained here cannot score tables.
"""

import sys

import gymnasium
import numpy as np
from gym_anytrading.envs import StocksEnv
from stable_baselines3.common.env_util import make_vec_env

from everlearn import DistributionalPPO
from everlearn.markets import RegimePrices

WINDOW = 16


class Momentum(StocksEnv):
    """Its stocks, seen by features of ours: what the policy observes is made in this one method."""

    def _process_data(self) -> tuple[np.ndarray, np.ndarray]:
        first, last = self.frame_bound
        rows = self.df.iloc[first - self.window_size : last]
        return rows["Close"].to_numpy(), rows[["momentum_8", "momentum_32"]].to_numpy(np.float32)


def make(bars: int = 2000, start: int = WINDOW) -> gymnasium.Env:
    """The environment on generated prices, from one bar on."""
    prices = RegimePrices(bars=bars, seed=7).prices().to_pandas().rename(columns={"close": "Close"})
    return Momentum(df=prices, window_size=WINDOW, frame_bound=(start, bars))


def main(steps: int = 100_000) -> None:
    """Train, and say what an episode earns."""
    venv = make_vec_env(make, n_envs=8)
    model = DistributionalPPO("MlpPolicy", venv, n_steps=256, batch_size=256, gamma=0.9, seed=0, device="cpu")
    model.learn(steps)
    env = make()
    observation, info = env.reset(seed=0)
    truncated = False
    while not truncated:
        action, _ = model.predict(observation, deterministic=True)
        observation, _, _, truncated, info = env.step(int(action))
    print(f"one unit of money became {info['total_profit']:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
