"""Training and evaluating agents from a configuration."""

from everlearn.runs.converting import convert
from everlearn.runs.deciding import decided_settings
from everlearn.runs.evaluating import evaluate_saved
from everlearn.runs.names import algorithms
from everlearn.runs.resuming import resume
from everlearn.runs.run import Run
from everlearn.runs.running import train

__all__ = ["Run", "algorithms", "convert", "decided_settings", "evaluate_saved", "resume", "train"]
