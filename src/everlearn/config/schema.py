"""The JSON schema of a configuration file, from which editors complete keys and mark mistakes."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel

from everlearn.config.sections import AlgorithmConfig, RunConfig
from everlearn.ppo.algorithm import PPO

_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def json_schema() -> dict[str, Any]:
    """A file is the sections of a run, or the keys of its algorithm section only; ``--env`` may add the environment."""
    run, algorithm = (model.model_json_schema(ref_template="#/$defs/{model}") for model in (RunConfig, AlgorithmConfig))
    definitions = {**run.pop("$defs", {}), **algorithm.pop("$defs", {})}
    definitions |= {RunConfig.__name__: run, AlgorithmConfig.__name__: algorithm}
    for model in _models(RunConfig):
        _describe(definitions[model.__name__], model)
    run.pop("required")
    definitions["EnvConfig"].pop("required")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of an everlearn run",
        "anyOf": [{"$ref": "#/$defs/RunConfig"}, {"$ref": "#/$defs/AlgorithmConfig"}],
        "$defs": definitions,
    }


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A section and all sections inside it."""
    inner = [type(field.default) for field in model.model_fields.values() if isinstance(field.default, BaseModel)]
    required = [field.annotation for field in model.model_fields.values() if field.is_required()]
    inner += [kind for kind in required if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [model, *(section for section in inner for section in _models(section))]


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give the keys the sentences under ``Attributes:`` in the section's docstring; the algorithm's are PPO's."""
    text, _, attributes = (inspect.getdoc(model) or "").partition("\nAttributes:\n")
    schema["description"] = text.strip()
    if model is AlgorithmConfig:
        attributes += "\n" + (inspect.getdoc(PPO) or "").partition("\nArgs:\n")[2]
    for name, sentence in _ATTRIBUTE.findall(attributes):
        if name in schema["properties"]:
            schema["properties"][name]["description"] = " ".join(sentence.split())
