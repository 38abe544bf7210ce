"""Models, and files that they were exported to, made once for all tests of a process: an export takes seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from everlearn.environments.normaliser import Normaliser
from everlearn.markets import MarketEnv, RegimePrices
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from everlearn.signals.onnx_export import OnnxReport, export_onnx

FEATURES = ("return_1", "momentum_8", "volatility_32")
SPEC = {"features": list(FEATURES), "window": 4, "max_gap_seconds": 86_400.0}
SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "device": "cpu", "seed": 0}
NET = {"net_arch": [16]}
SQUASHED = {**NET, "squash_output": True}
_FOLDER = tempfile.TemporaryDirectory(prefix="everlearn-onnx-")


def bars() -> pl.DataFrame:
    """Two symbols; some bars cannot be decided on, for every reason that there is."""
    table = RegimePrices(bars=300, symbols=2, seed=1).prices()
    values = table["momentum_8"].to_numpy().copy()
    values[[40, 350]], values[60], values[61] = np.nan, 100.0, np.inf
    return table.with_columns(momentum_8=pl.Series(values)).filter(pl.int_range(pl.len()) != 90)


def market(normalised: bool = False, account: tuple[str, ...] = (), **options: Any) -> VecEnv:
    table = RegimePrices(bars=200, symbols=2).prices()
    venv = DummyVecEnv([lambda: MarketEnv(table, {**SPEC, "account": account}, **options)])
    return Normaliser(venv, clip_obs=2.0) if normalised else venv


def _continuous() -> PPO:
    """All at once: normalised, with an account, two critics that predict quantiles, a scale of returns."""
    return DistributionalPPO("MlpPolicy", market(True, ("position", "open_return")), policy_kwargs=NET, **SMALL)


def _discrete() -> PPO:
    return PPO("MlpPolicy", market(positions="discrete"), policy_kwargs=NET, **SMALL)


def _categorical() -> PPO:
    venv = market(positions="discrete")
    return DistributionalPPO("MlpPolicy", venv, value_head="categorical", policy_kwargs=NET, **SMALL)


def _squashed_market() -> PPO:
    return PPO("MlpPolicy", market(), use_sde=True, policy_kwargs=SQUASHED, **SMALL)


def _cartpole() -> PPO:
    return PPO("MlpPolicy", "CartPole-v1", policy_kwargs=NET, **SMALL)


def _pendulum() -> PPO:
    """Its normaliser has seen rewards of another size than 1, and many of its actions are beyond the bounds."""
    model = DistributionalPPO("MlpPolicy", Normaliser(make_vec_env("Pendulum-v1")), policy_kwargs=NET, **SMALL)
    with torch.no_grad():
        model.policy.action_net.weight *= 400
        model.policy.action_net.bias += 1.9
    return model


def _squashed_pendulum() -> PPO:
    return PPO("MlpPolicy", "Pendulum-v1", use_sde=True, policy_kwargs=SQUASHED, **SMALL)


MAKERS: dict[str, Callable[[], PPO]] = {
    "continuous": _continuous,
    "discrete": _discrete,
    "categorical": _categorical,
    "squashed market": _squashed_market,
    "cartpole": _cartpole,
    "pendulum": _pendulum,
    "squashed pendulum": _squashed_pendulum,
}


@cache
def trained(name: str) -> PPO:
    """The model, after a little training; tests leave it as it is."""
    model = MAKERS[name]()
    model.learn(128)
    return model


@cache
def export(name: str) -> tuple[Path, OnnxReport]:
    """The file that it was exported to, which stays as it is, and what was said of it."""
    path = Path(_FOLDER.name) / f"{name}.onnx"
    return path, export_onnx(trained(name), path)


def already_traced(name: str) -> Callable[[Any], Any]:
    """To stand where ``trace`` stands: the graph of a file, whatever model is to be exported now."""
    model = onnx.load(export(name)[0])
    del model.metadata_props[:]
    return lambda graph: model
