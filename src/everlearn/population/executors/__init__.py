"""Where the members of a population are trained."""

from everlearn.population.executors.executor import Beat, Executor, MakeRunner, SegmentRunner
from everlearn.population.executors.inline import Inline
from everlearn.population.executors.processes import Processes

__all__ = ["Beat", "Executor", "Inline", "MakeRunner", "Processes", "SegmentRunner"]
