"""Tables of bars, and small agents that have traded in them, for the tests of signals."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from everlearn import PPO, DistributionalPPO
from everlearn.environments.normaliser import Normaliser
from everlearn.markets import FeatureSpec, MarketEnv
from everlearn.signals import SignalPredictor

FEATURES = ("slope", "spread")
ACCOUNT = ("position", "bars_held", "open_return")
POSITIONS = ("continuous", "discrete")


def bars(count: int = 60, symbols: tuple[str, ...] = ("gold", "salt"), seed: int = 0) -> pl.DataFrame:
    """Hourly bars, one symbol after the other."""
    generator = np.random.default_rng(seed)
    times = np.datetime64("2024-01-01", "us") + np.arange(count) * np.timedelta64(3600, "s")
    tables = []
    for symbol in symbols:
        returns = 0.02 * generator.standard_normal(count)
        columns = {
            "timestamp": times,
            "symbol": [symbol] * count,
            "close": 100 * np.exp(np.cumsum(returns)),
            "slope": returns,
            "spread": generator.standard_normal(count),
        }
        tables.append(pl.DataFrame(columns).with_columns(pl.col("timestamp").dt.replace_time_zone("UTC")))
    return pl.concat(tables)


def mixed(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The rows in another order, in which the bars of each symbol stay one after the other."""
    generator = np.random.default_rng(seed)
    order = np.argsort(generator.permutation(np.repeat(np.arange(2), table.height // 2)), kind="stable")
    return table[np.argsort(order).tolist()]


@cache
def spec_for(window: int = 1, account: bool = False) -> FeatureSpec:
    return FeatureSpec.fit(bars(seed=1), FEATURES, window=window, account=ACCOUNT if account else ())


@cache
def agent(
    positions: str = "continuous",
    window: int = 1,
    account: bool = False,
    normalised: bool = False,
    algorithm: type[PPO] = DistributionalPPO,
) -> PPO:
    """A trained agent; tests read it and do not train it further."""
    spec = spec_for(window, account)
    venv: VecEnv = DummyVecEnv([lambda: MarketEnv(bars(seed=2), spec, positions=positions, episode_bars=20)])
    if normalised:
        venv = Normaliser(venv)
    options = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "compile": False}
    model = algorithm("MlpPolicy", venv, seed=3, device="cpu", **options).learn(192)
    with torch.no_grad():
        model.policy.action_net.weight.mul_(200)  # so that it takes sides
    return model


@cache
def predictor(positions: str = "continuous", window: int = 1, account: bool = False) -> SignalPredictor:
    return SignalPredictor.of(agent(positions, window, account), model_id="m")


def bits(signals: pl.DataFrame) -> str:
    """All of a table to the bit, apart from when it was made."""
    return repr((signals.columns, signals.drop("decided_at").rows()))


def saved(table: pl.DataFrame, path: Path) -> Path:
    writers: dict[str, Any] = {".parquet": table.write_parquet, ".csv": table.write_csv}
    writers.get(path.suffix, table.write_ipc)(path)
    return path


class InPieces(SignalPredictor):
    """One that reads tables in pieces of few rows."""

    rows = 1

    def _piece_rows(self) -> int:
        return self.rows


def in_pieces(whole: SignalPredictor, rows: int) -> SignalPredictor:
    made = InPieces(whole.spec, whole._decide, whole.model_id)
    made.rows = rows
    return made
