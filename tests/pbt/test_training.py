"""A population from a configuration to its best member: what it leaves, how it goes on, what it refuses."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from everlearn import PPO
from everlearn.core.errors import ConfigError
from everlearn.pbt import PopulationRun, resume_population, train_population
from everlearn.pbt.replay import replay
from everlearn.population.population import PopulationFailed
from everlearn.runs.evaluating import evaluate_saved
from everlearn.runs.resuming import resume
from everlearn.runs.running import train
from tests.pbt.small import SETTINGS, history_of, lines_of, small_population


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> PopulationRun:
    return small_population(tmp_path_factory.mktemp("population") / "run", logging__tensorboard=True)


def test_it_leaves_everything_that_was_asked_for(trained: PopulationRun) -> None:
    names = {path.name for path in trained.path.iterdir()}
    files = {"config.yaml", "population.sqlite", "model.zip", "summary.json", "generations.jsonl", "tb", "members"}
    assert files | {"lineage.png", "schedules.png", "scores.png"} <= names
    generations = lines_of(trained.directory.generations)
    assert [each["generation"] for each in generations] == [1, 2, 3]
    assert generations[-1]["env_steps"] == 4 * 6 * 64
    summary = json.loads(trained.directory.summary.read_text())
    assert summary["generations_done"] == 3
    assert summary["exploits"] == 2 == trained.summary().exploits


def test_the_best_member_is_a_model_like_any_other(trained: PopulationRun) -> None:
    population = trained.population()
    best = population.best()
    model = trained.load()
    assert isinstance(model, PPO)
    assert model.num_timesteps == 6 * 64
    assert {name: model.get_hyperparameters()[name] for name in best.hyperparams} == best.hyperparams
    assert max(member.performance for member in population.members) == best.performance
    env_id, evaluation = evaluate_saved(trained.path, episodes=2)
    assert env_id == "CartPole-v1"
    assert len(evaluation.returns) == 2


def test_it_can_be_repeated_from_its_configuration(trained: PopulationRun, tmp_path: Path) -> None:
    again = train_population(trained.directory.config, tmp_path / "again")
    assert history_of(again) == history_of(trained)


def test_the_callers_generators_are_left_alone(tmp_path: Path) -> None:
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    small_population(tmp_path / "run", total_timesteps=64)
    assert np.random.rand() == expected


def test_one_that_was_stopped_goes_on_as_if_it_had_not_been(trained: PopulationRun, tmp_path: Path) -> None:
    run = train_population(None, tmp_path / "run", settings=SETTINGS, time_limit=1e-3)
    assert run.stopped_by == "time limit"
    assert not run.summary().is_over
    while run.stopped_by is not None:
        run = resume_population(tmp_path / "run", time_limit=1.0)
    assert history_of(run) == history_of(trained)
    assert len(lines_of(run.directory.generations)) == 3


def test_a_population_of_one_trains_like_a_single_agent(tmp_path: Path) -> None:
    run = small_population(tmp_path / "run", population_size=1)
    population = run.population()
    assert population.generation == 2
    assert all(event.source_id is None for event in population.ledger.events)
    assert run.load().num_timesteps == 6 * 64


def test_a_population_of_two_copies(tmp_path: Path) -> None:
    population = small_population(tmp_path / "run", population_size=2).population()
    assert sum(event.source_id is not None for event in population.ledger.events) == 2


def test_evaluations_can_be_what_members_are_compared_by(tmp_path: Path) -> None:
    run = small_population(tmp_path / "run", population__score="evaluation", evaluation__episodes=2)
    again = small_population(tmp_path / "again", population__score="evaluation", evaluation__episodes=2)
    assert history_of(run) == history_of(again)
    best = run.population().best()
    _, played = evaluate_saved(run.path, episodes=2, seed=run.config.evaluation.seed)
    assert best.performance == played.mean


def test_initial_hyperparameters_can_be_given(tmp_path: Path) -> None:
    space = {"gamma": {"min_value": 0.5, "max_value": 1.0}}
    initial = [{"gamma": 0.6}, {"gamma": 0.7}]
    settings = {"population.hyperparams": space, "population.initial": initial, "population_size": 2}
    run = train_population(None, tmp_path / "run", settings={**SETTINGS, **settings, "exploit_method": "none"})
    assert [member.hyperparams["gamma"] for member in run.population().members] == [0.6, 0.7]


def test_a_schedule_is_replayed_by_one_agent(trained: PopulationRun, tmp_path: Path) -> None:
    run = replay(trained.path, tmp_path / "replay", seed=9)
    assert run.config.population is None
    assert run.summary.steps == 6 * 64
    rates = run.progress()["train/learning_rate"]
    population = trained.population()
    best = population.best()
    assert rates[-1] == pytest.approx(best.hyperparams["learning_rate"])
    again = train(run.directory.config, tmp_path / "again")
    assert again.progress()["train/learning_rate"] == rates
    with pytest.raises(ConfigError, match="no member 9"):
        replay(trained.path, tmp_path / "other", member=9)
    for setting in ({"learning_rate": 0.5}, {"n_steps": 64}, {"env.n_envs": 1}, {"total_timesteps": 64}):
        with pytest.raises(ConfigError, match="Leave it out"):
            replay(trained.path, tmp_path / "other", settings=setting)


def test_a_replay_that_was_interrupted_goes_on_along_its_schedule(trained: PopulationRun, tmp_path: Path) -> None:
    expected = replay(trained.path, tmp_path / "whole").progress()
    settings = {"checkpoint.every": 64}
    run = replay(trained.path, tmp_path / "cut", settings=settings)
    for checkpoint in sorted(run.directory.checkpoints.glob("step-*.zip"))[2:]:
        checkpoint.unlink()
    run.directory.summary.unlink()
    resumed = resume(run.path)
    for name in ("train/learning_rate", "train/clip_range", "train/loss"):
        assert resumed.progress()[name] == pytest.approx(expected[name], nan_ok=True), name


def test_row_2_a_best_member_whose_state_is_lost_leaves_the_model_that_is_there(tmp_path: Path) -> None:
    run = small_population(tmp_path / "run")
    population = run.population()
    path = run.directory.members / population.places[population.best().member_id].checkpoint.name
    whole = run.directory.model.read_bytes()
    for damaged in (path.read_bytes()[:-7], None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        resume_population(run.path)
        assert run.directory.model.read_bytes() == whole


def test_a_population_goes_on_by_its_own_settings_alone(tmp_path: Path) -> None:
    run = train_population(None, tmp_path / "run", settings=SETTINGS, time_limit=1e-3)
    text = run.directory.config.read_text()
    run.directory.config.write_text(text.replace("n_epochs: 2", "n_epochs: 3"))
    with pytest.raises(ConfigError, match=r"begun with algorithm.n_epochs: 2, and the configuration says 3"):
        resume_population(run.path)
    run.directory.config.write_text(text.replace("restarts: 2", "restarts: 5"))
    assert resume_population(run.path).summary().is_over


def test_one_that_was_killed_before_its_journal_begins_when_it_is_resumed(
    trained: PopulationRun, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(trained.directory.config, tmp_path / "run" / "config.yaml")
    assert history_of(resume_population(tmp_path / "run")) == history_of(trained)


def test_without_any_score_somebody_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_population(tmp_path / "run", env__id="Pendulum-v1", total_timesteps=3 * 128)
    assert "No member has a score" in caplog.text


def test_row_26_when_all_fail_training_stops_and_tells_why(tmp_path: Path) -> None:
    broken = {**SETTINGS, "plugins": ["tests.pbt.misfortune"], "env.id": "Misfortune-v0"}
    with pytest.raises(PopulationFailed, match="All members have failed") as caught:
        train_population(None, tmp_path / "run", settings=broken)
    assert "a misfortune" in str(caught.value)
    assert PopulationRun(tmp_path / "run").summary().failures == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population.hyperparams": {"n_steps": {"values": [32, 64]}}}, "'n_steps' belongs to an agent's structure"),
        ({"population.hyperparams": {"gama": {"values": [0.9]}}}, "gama.*cannot change|Did you mean 'gamma'"),
        ({"population.hyperparams": {"clip_range": {"min_value": -1.0, "max_value": 1.0}}}, "clip_range"),
        ({"population.hyperparams": {"gamma": {"min_value": 0.9}}}, "max_value"),
        ({"exploit_method": "truncatoin"}, "truncation"),
        ({"population.executor": "procesess"}, "There are auto, vectorised, processes, inline"),
        (
            {"population.executor": "vectorised", "population.hyperparams": {"batch_size": {"values": [16, 32]}}},
            "alike",
        ),
        ({"population.initial": [{"learning_rate": 1e-4}]}, "population.initial"),
        ({"population_size": 0}, "population_size"),
        ({"evaluation.every": 64}, "evaluation.every: it does nothing in a population"),
        ({"evaluation.episodes": 3}, "evaluation.episodes: it does nothing"),
        ({"checkpoint.every": 64, "logging.baseline_episodes": 0}, r"checkpoint.every.*\n.*logging.baseline_episodes"),
        ({"hyperparameter_schedule": [{"updates": 1, "hyperparams": {}}]}, "hyperparameter_schedule"),
        ({"truncation_ratio": 0.7}, "truncation_ratio"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_population(None, tmp_path / "run", settings={**SETTINGS, **settings})
    assert not (tmp_path / "run").exists()


def test_single_agents_and_populations_are_not_taken_for_each_other(trained: PopulationRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="everlearn pbt trains"):
        train(trained.directory.config, tmp_path / "run")
    with pytest.raises(ConfigError, match="everlearn pbt --resume"):
        resume(trained.path)
    single = train(None, tmp_path / "single", settings={"env.id": "CartPole-v1", "total_timesteps": 64, "n_steps": 32})
    with pytest.raises(ConfigError, match="no population"):
        PopulationRun(single.path)
    with pytest.raises(ConfigError, match="no run"):
        resume_population(tmp_path / "nothing")


def test_b32_an_interval_too_short_for_the_warm_up_is_warned_of(tmp_path: Path) -> None:
    settings = {**SETTINGS, "algorithm.name": "DistributionalPPO", "total_timesteps": 64}
    with pytest.warns(UserWarning, match=r"Raise perturbation_interval to 26 or more"):
        train_population(None, tmp_path / "run", settings=settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_population(None, tmp_path / "other", settings={**settings, "vgs_warmup_steps": 7})


def test_an_earlier_population_is_replaced_only_when_asked_for(trained: PopulationRun, tmp_path: Path) -> None:
    small_population(tmp_path / "run", total_timesteps=64)
    with pytest.raises(ConfigError, match="not empty"):
        small_population(tmp_path / "run")
    train_population(None, tmp_path / "run", settings=SETTINGS, overwrite=True)
    assert len(lines_of(tmp_path / "run" / "generations.jsonl")) == 3
