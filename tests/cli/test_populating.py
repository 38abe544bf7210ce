import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.config import load

POPULATION = """\
env: {id: CartPole-v1, n_envs: 2}
algorithm: {name: PPO, n_steps: 16, batch_size: 16, n_epochs: 1, compile: false}
population: {population_size: 3, perturbation_interval: 1, executor: inline}
total_timesteps: 96
seed: 3
logging: {tensorboard: false}
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("population.yaml").write_text(POPULATION)


def everlearn(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "120"})


def test_a_population_is_trained_looked_at_and_replayed() -> None:
    trained = everlearn("pbt", "population.yaml", "--out", "run")
    assert trained.exit_code == 0, trained.output
    assert "generation 3/3" in trained.stderr
    assert "Finished: the best, member" in trained.stdout
    status = json.loads(everlearn("pbt", "status", "run", "--json").stdout)
    assert status["generations_done"] == 3
    assert status["env_steps"] == 3 * 96
    assert not status["training"]
    replayed = everlearn("pbt", "replay", "run", "--out", "replay", "--json", "-q")
    assert json.loads(replayed.stdout)["steps"] == 96


def test_the_word_train_may_be_said_and_the_result_is_json_if_wanted() -> None:
    trained = everlearn("pbt", "train", "population.yaml", "--steps", "32", "--json", "-q")
    assert json.loads(trained.stdout)["generations"] == 1
    assert Path("runs/CartPole-v1-pbt-1/model.zip").is_file()


def test_one_that_was_stopped_tells_how_it_goes_on() -> None:
    stopped = everlearn("pbt", "population.yaml", "--out", "run", "--time-limit", "0.001", "-q")
    assert stopped.exit_code == 0
    assert "Go on with: everlearn pbt --resume run" in stopped.stdout
    resumed = everlearn("pbt", "--resume", "run", "-q")
    assert "Finished" in resumed.stdout
    again = everlearn("pbt", "--resume", "run", "-q")
    assert "Finished" in again.stdout


def test_the_recommended_file_is_a_configuration_as_it_stands() -> None:
    config = load(ROOT / "examples" / "population.yaml", {"env.id": "CartPole-v1"})
    assert config.population is not None
    assert (config.population.population_size, config.population.perturbation_interval) == (10, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pbt", "population.yaml", "--resume", "run"], "--resume RUN goes on with a population as it is"),
        (["pbt", "--resume", "nothing"], "nothing: this is no run"),
        (["pbt", "status", "nothing"], "nothing: this is no run"),
        (["pbt", "population.yml"], "population.yml"),
        (["pbt", "population.yaml", "--executor", "rai"], "population.executor: 'rai' is unknown"),
        (["pbt", "population.yaml", "--set", "population_siez=3"], "Did you mean 'population_size'"),
        (["pbt", "population.yaml", "--set", "perturbation_interval=0"], "population.perturbation_interval"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str) -> None:
    result = everlearn(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_without_arguments_there_is_help() -> None:
    assert "replay" in everlearn("pbt", "--help").output
