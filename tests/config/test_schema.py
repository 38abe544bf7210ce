from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from everlearn.config import AlgorithmConfig, RunConfig, dump, json_schema, load

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def complaints(values: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(values)]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_fits(path: Path) -> None:
    assert complaints(YAML(typ="safe", pure=True).load(path)) == []


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"learning_rate": "lin_1e-3", "clip_range": {"kind": "linear", "start": 0.2}, "kl_penalty": True},
        {"env.normalize": False, "plugins": ["mine"], "evaluation.every": 100, "runtime.threads": 2},
    ],
)
def test_what_loads_fits(settings: dict[str, Any]) -> None:
    config = load(None, {"env.id": "CartPole-v1", **settings})
    assert complaints(YAML(typ="safe", pure=True).load(dump(config))) == []


@pytest.mark.parametrize(
    "values",
    [
        {"gama": 0.9},
        {"algorithm": {"gamma": 5}},
        {"env": {"id": 3}},
        {"env": {"id": "a", "n_envs": 0}},
        {"learning_rate": -1},
        {"learning_rate": "linear"},
        {"evaluation": {"every": -1}},
        {"logging": 5},
    ],
)
def test_what_does_not_load_does_not_fit(values: dict[str, Any]) -> None:
    assert complaints(values)


def test_every_key_of_a_run_is_described() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["RunConfig"]["properties"].keys() == RunConfig.model_fields.keys()
    assert definitions["AlgorithmConfig"]["properties"].keys() == AlgorithmConfig.model_fields.keys()
    for name, section in definitions.items():
        for key, field in section["properties"].items():
            assert field.get("description"), f"{name}.{key}"
