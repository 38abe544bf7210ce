"""Training and evaluating agents from a configuration."""

from everlearn.train.building import algorithms
from everlearn.train.evaluating import evaluate_saved
from everlearn.train.running import Run, train

__all__ = ["Run", "algorithms", "evaluate_saved", "train"]
