"""The algorithms that a configuration can name."""

from __future__ import annotations

from everlearn.core.registry import Registry
from everlearn.ppo.algorithm import PPO, DistributionalPPO

algorithms: Registry[PPO] = Registry("algorithm")
algorithms.add("PPO", PPO)
algorithms.add("DistributionalPPO", DistributionalPPO)
