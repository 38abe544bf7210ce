"""The algorithms and activation functions that a configuration can name."""

from __future__ import annotations

from torch import nn

from everlearn.core.registry import Registry
from everlearn.ppo.algorithm import PPO, DistributionalPPO

algorithms: Registry[PPO] = Registry("algorithm")
algorithms.add("PPO", PPO)
algorithms.add("DistributionalPPO", DistributionalPPO)

activations: Registry[nn.Module] = Registry("activation function")
activations.add("tanh", nn.Tanh)
activations.add("relu", nn.ReLU)
activations.add("elu", nn.ELU)
activations.add("gelu", nn.GELU)
activations.add("silu", nn.SiLU)
activations.add("leaky_relu", nn.LeakyReLU)
activations.add("mish", nn.Mish)
