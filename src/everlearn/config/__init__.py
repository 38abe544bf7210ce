"""The typed configuration of a run: what a file, the command line or Python may say."""

from everlearn.config.document import Document
from everlearn.config.plugins import import_plugins, require_imported
from everlearn.config.population_section import HyperparamSection, PopulationConfig
from everlearn.config.ray_section import RayConfig
from everlearn.config.reading import HEADER, as_yaml, assignment, dump, load, load_document
from everlearn.config.schema import json_schema
from everlearn.config.sections import (
    AlgorithmConfig,
    CheckpointConfig,
    EvaluationConfig,
    LoggingConfig,
    PolicyConfig,
    RunConfig,
    RuntimeConfig,
    StretchConfig,
)

__all__ = [
    "HEADER",
    "AlgorithmConfig",
    "CheckpointConfig",
    "Document",
    "EvaluationConfig",
    "HyperparamSection",
    "LoggingConfig",
    "PolicyConfig",
    "PopulationConfig",
    "RayConfig",
    "RunConfig",
    "RuntimeConfig",
    "StretchConfig",
    "as_yaml",
    "assignment",
    "dump",
    "import_plugins",
    "json_schema",
    "load",
    "load_document",
    "require_imported",
]
