"""The JSON schema of a configuration file, from which editors complete keys and mark mistakes."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel

from everlearn.config.population_section import PopulationConfig
from everlearn.config.sections import AlgorithmConfig, RunConfig
from everlearn.ppo.algorithm import PPO

_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def json_schema() -> dict[str, Any]:
    """A file is the sections of a run, or keys of algorithm and population only; ``--env`` may add the environment."""
    definitions: dict[str, Any] = {}
    models: tuple[type[BaseModel], ...] = (RunConfig, AlgorithmConfig, PopulationConfig)
    for model in models:
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= {**schema.pop("$defs", {}), model.__name__: schema}
    run = definitions[RunConfig.__name__]
    for section in _models(RunConfig):
        _describe(definitions[section.__name__], section)
    run.pop("required")
    loose = {**definitions["AlgorithmConfig"]["properties"], **definitions["PopulationConfig"]["properties"]}
    headless = {"type": "object", "properties": loose, "additionalProperties": False}
    definitions["WithoutSections"] = {**headless, "description": "Keys of the sections algorithm and population."}
    definitions["EnvConfig"].pop("required")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of an everlearn run",
        "anyOf": [{"$ref": "#/$defs/RunConfig"}, {"$ref": "#/$defs/WithoutSections"}],
        "$defs": definitions,
    }


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A section and all sections inside it."""
    inner = [kind for field in model.model_fields.values() for kind in _kinds(field.annotation)]
    return [model, *(section for section in inner for section in _models(section))]


def _kinds(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _kinds(part)]


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give the keys the sentences under ``Attributes:`` in the section's docstring; the algorithm's are PPO's."""
    text, _, attributes = (inspect.getdoc(model) or "").partition("\nAttributes:\n")
    schema["description"] = text.strip()
    if model is AlgorithmConfig:
        attributes += "\n" + (inspect.getdoc(PPO) or "").partition("\nArgs:\n")[2]
    for name, sentence in _ATTRIBUTE.findall(attributes):
        if name in schema["properties"]:
            schema["properties"][name]["description"] = " ".join(sentence.split())
