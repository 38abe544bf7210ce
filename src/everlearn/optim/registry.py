"""Optimizers by name."""

from __future__ import annotations

import torch

from everlearn.core.registry import Registry

optimizers: Registry[torch.optim.Optimizer] = Registry("optimizer", runtime=("params",))
optimizers.add("adam", torch.optim.Adam)
optimizers.add("adamw", torch.optim.AdamW)
optimizers.add("sgd", torch.optim.SGD)
