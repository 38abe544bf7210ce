import json
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.config import load

SHORT = ["--set", "n_steps=8", "--set", "batch_size=8", "--set", "env.n_envs=1", "--set", "n_epochs=1"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def everlearn(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_show_prints_yaml_that_trains() -> None:
    shown = everlearn("config", "show", "--env", "Pendulum-v1", *SHORT)
    assert shown.exit_code == 0, shown.output
    Path("shown.yaml").write_text(shown.stdout)
    quick = ("--set", "logging={evaluation_episodes: 0, baseline_episodes: 0, tensorboard: false}")
    result = everlearn("train", "shown.yaml", "--out", "run", "--steps", "8", "-q", *quick)
    assert result.exit_code == 0, result.output
    assert load(Path("run/config.yaml")).env.id == "Pendulum-v1"


def test_show_without_an_environment_has_an_example_and_says_so() -> None:
    shown = everlearn("config", "show")
    assert shown.stdout.startswith("# No environment was named: CartPole-v1 stands here as an example.\n")
    assert YAML(typ="safe", pure=True).load(shown.stdout)["env"]["id"] == "CartPole-v1"
    for named in (("--env", "Pendulum-v1"), ("--set", "env.id=Pendulum-v1"), ("--set", "env={id: Pendulum-v1}")):
        shown = everlearn("config", "show", *named)
        assert "example" not in shown.stdout
        assert "id: Pendulum-v1" in shown.stdout


def test_show_resolves_a_file_and_writes_where_it_is_told_to() -> None:
    Path("keys.yaml").write_text("name: PPO\ngamma: 0.5\n")
    result = everlearn("config", "show", "keys.yaml", "--env", "CartPole-v1", "-o", "full.yaml")
    assert (result.exit_code, result.stdout) == (0, "")
    shown = load(Path("full.yaml"))
    assert (shown.algorithm.name, shown.algorithm.gamma, shown.algorithm.value_head) == ("PPO", 0.5, "scalar")


def test_show_of_a_file_without_an_environment_asks_for_one() -> None:
    Path("keys.yaml").write_text("gamma: 0.5\n")
    result = everlearn("config", "show", "keys.yaml")
    assert result.exit_code == 2
    assert "error: env.id: no environment is named. Give --env ID" in result.stderr


def test_check_of_a_right_file_says_so() -> None:
    Path("run.yaml").write_text("env: {id: CartPole-v1}\n")
    assert everlearn("config", "check", "run.yaml").stdout == "run.yaml: right.\n"
    result = everlearn("config", "check", "run.yaml", "--json")
    assert json.loads(result.stdout) == {"file": "run.yaml", "valid": True}


def test_check_names_every_mistake_with_its_line() -> None:
    Path("run.yaml").write_text("env: {id: CartPole-v1}\nalgorithm:\n  gama: 0.9\n  n_epochs: 0\nseeed: 3\n")
    result = everlearn("config", "check", "run.yaml")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: run.yaml, line 3: algorithm.gama: unknown key. Did you mean 'gamma'?",
        "error: run.yaml, line 4: algorithm.n_epochs: Input should be greater than or equal to 1 (found 0).",
        "error: run.yaml, line 5: seeed: unknown key. Did you mean 'seed'?",
    ]


def test_check_finds_what_only_building_brings_to_light() -> None:
    Path("run.yaml").write_text("env: {id: CartPole-v1}\nalgorithm:\n  policy: CnnPolicy\n")
    result = everlearn("config", "check", "run.yaml")
    assert result.exit_code == 2
    assert "error: run.yaml, line 3: algorithm.policy: CnnPolicy cannot read observations" in result.stderr
    assert list(Path().iterdir()) == [Path("run.yaml")]


def test_check_tells_as_json_what_is_wrong() -> None:
    Path("run.yaml").write_text("env: {id: CartPole-v1}\nseeed: 3\nalgorithm: {gama: 1}\n")
    result = everlearn("config", "check", "run.yaml", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "file": "run.yaml",
        "valid": False,
        "complaints": [
            "run.yaml, line 2: seeed: unknown key. Did you mean 'seed'?",
            "run.yaml, line 3: algorithm.gama: unknown key. Did you mean 'gamma'?",
        ],
    }


def test_plugins_of_the_file_and_of_the_command_are_there_for_the_check() -> None:
    Path("own_heads.py").write_text("import gymnasium\ngymnasium.register('Heads-v0', 'own_heads:make')\n" + MAKE)
    Path("run.yaml").write_text("env: {id: Heads-v0}\n")
    try:
        assert everlearn("config", "check", "run.yaml", "--import", "own_heads").exit_code == 0
        Path("run.yaml").write_text("env: {id: Heads-v0}\nplugins: [own_heads]\n")
        assert everlearn("config", "check", "run.yaml").exit_code == 0
        Path("run.yaml").write_text("env: {id: Heads-v0}\n\nplugins: [own_hands]\n")
        result = everlearn("config", "check", "run.yaml")
        assert (result.exit_code, "run.yaml, line 3: plugins: there is no module 'own_hands'" in result.stderr) == (
            2,
            True,
        )
    finally:
        del sys.modules["own_heads"]


MAKE = """
def make(**arguments):
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv
    return CartPoleEnv(**arguments)
"""


def test_schema_prints_a_json_schema() -> None:
    result = everlearn("config", "schema")
    Draft202012Validator.check_schema(json.loads(result.stdout))
    everlearn("config", "schema", "-o", "schema.json")
    assert Path("schema.json").read_text() == result.stdout


def test_config_alone_shows_its_help() -> None:
    result = everlearn("config")
    assert "show" in result.output
    assert "schema" in result.output


def test_a_place_that_cannot_be_written_to_is_named() -> None:
    result = everlearn("config", "schema", "-o", "nowhere/schema.json")
    assert result.exit_code == 2
    assert "error: --out nowhere/schema.json: it cannot be written (No such file or directory)" in result.stderr
