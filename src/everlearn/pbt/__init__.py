"""Populations of agents in one directory: from a configuration to the best of them.

``train_population`` begins one, ``resume_population`` goes on with it, ``PopulationRun`` is one as an object.
"""

from everlearn.pbt.run import PopulationRun
from everlearn.pbt.training import resume_population, train_population

__all__ = ["PopulationRun", "resume_population", "train_population"]
