"""Reinforcement-learning agents that keep learning, on Stable-Baselines3 and PyTorch.

Public names are imported on first use, so that ``import everlearn`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everlearn.gradients.variance_scaling import VarianceGradientScaler
    from everlearn.markets import FeatureSpec, MarketEnv
    from everlearn.optim.adaptive_upgd import AdaptiveUPGD
    from everlearn.optim.upgd import UPGD
    from everlearn.optim.upgdw import UPGDW
    from everlearn.pbt.run import PopulationRun
    from everlearn.pbt.training import resume_population, train_population
    from everlearn.population.config import PBTConfig
    from everlearn.population.members import PopulationMember
    from everlearn.population.scheduler import PBTScheduler
    from everlearn.population.space import HyperparamConfig
    from everlearn.ppo.algorithm import PPO, DistributionalPPO
    from everlearn.runs.resuming import resume
    from everlearn.runs.run import Run
    from everlearn.runs.running import train
    from everlearn.signals import SignalPredictor

    __version__: str

__all__ = [
    "PPO",
    "UPGD",
    "UPGDW",
    "AdaptiveUPGD",
    "DistributionalPPO",
    "FeatureSpec",
    "HyperparamConfig",
    "MarketEnv",
    "PBTConfig",
    "PBTScheduler",
    "PopulationMember",
    "PopulationRun",
    "Run",
    "SignalPredictor",
    "VarianceGradientScaler",
    "__version__",
    "resume",
    "resume_population",
    "train",
    "train_population",
]

_HOMES = {
    "PPO": "everlearn.ppo.algorithm",
    "DistributionalPPO": "everlearn.ppo.algorithm",
    "FeatureSpec": "everlearn.markets",
    "MarketEnv": "everlearn.markets",
    "HyperparamConfig": "everlearn.population.space",
    "PBTConfig": "everlearn.population.config",
    "PBTScheduler": "everlearn.population.scheduler",
    "PopulationMember": "everlearn.population.members",
    "PopulationRun": "everlearn.pbt.run",
    "Run": "everlearn.runs.run",
    "SignalPredictor": "everlearn.signals",
    "resume": "everlearn.runs.resuming",
    "resume_population": "everlearn.pbt.training",
    "train": "everlearn.runs.running",
    "train_population": "everlearn.pbt.training",
    "UPGD": "everlearn.optim.upgd",
    "AdaptiveUPGD": "everlearn.optim.adaptive_upgd",
    "UPGDW": "everlearn.optim.upgdw",
    "VarianceGradientScaler": "everlearn.gradients.variance_scaling",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use, and keep it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = _version() if name == "__version__" else _imported(name)
    return value


def _imported(name: str) -> Any:
    return getattr(importlib.import_module(_HOMES[name]), name)


def _version() -> str:
    from importlib.metadata import version

    return version("everlearn")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
