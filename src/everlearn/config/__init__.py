"""The typed configuration of a run: what a file, the command line or Python may say."""

from everlearn.config.reading import HEADER, assignment, dump, load
from everlearn.config.sections import (
    AlgorithmConfig,
    LoggingConfig,
    PolicyConfig,
    RunConfig,
    RuntimeConfig,
    linear_start,
)

__all__ = [
    "HEADER",
    "AlgorithmConfig",
    "LoggingConfig",
    "PolicyConfig",
    "RunConfig",
    "RuntimeConfig",
    "assignment",
    "dump",
    "linear_start",
    "load",
]
