"""Optimizers that protect useful weights and refresh useless ones."""

from everlearn.optim.adaptive_upgd import AdaptiveUPGD
from everlearn.optim.registry import optimizers
from everlearn.optim.upgd import UPGD
from everlearn.optim.upgdw import UPGDW

__all__ = ["UPGD", "UPGDW", "AdaptiveUPGD", "optimizers"]
