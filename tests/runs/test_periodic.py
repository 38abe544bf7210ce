import csv
import math
import random
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from everlearn.config import EvaluationConfig
from everlearn.core.rng import GlobalGenerators
from everlearn.environments.build import evaluation_environment
from everlearn.report import EvaluationRecord
from everlearn.runs import Run, train
from everlearn.runs.periodic import PeriodicEvaluation, unnoticed
from everlearn.runs.writing import LineFile
from tests.environments.toys import Noisy
from tests.runs.tiny import Recorded, built, tiny

SILENT = {"logging.evaluation_episodes": 0, "logging.baseline_episodes": 0}


class Gambler(Noisy):
    """Takes its chances from the global generators, as careless environments do."""

    def __init__(self) -> None:
        super().__init__(action_space=spaces.Box(-1, 1, (1,)))

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, np.random.normal() + random.random() + torch.rand(()).item(), *rest


@pytest.fixture(autouse=True)
def gambler() -> Any:
    gymnasium.register("everlearn-tests/Gambler-v0", Gambler)
    yield
    del gymnasium.registry["everlearn-tests/Gambler-v0"]


def trained(out: Path, **settings: Any) -> Run:
    return train(tiny(**{**SILENT, **settings}), out)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("use_sde", [True, False])
def test_training_is_the_same_bit_for_bit_with_evaluation_and_without(
    tmp_path: Path, deterministic: bool, use_sde: bool
) -> None:
    whole = {
        "env.id": "everlearn-tests/Gambler-v0",
        "env.normalize": True,
        "name": "DistributionalPPO",
        "use_sde": use_sde,
    }
    with_it = trained(tmp_path / "with", **whole, **{"evaluation.every": 16, "evaluation.deterministic": deterministic})
    without = trained(tmp_path / "without", **whole)
    assert with_it.evaluations()["env_step"] == [16, 32, 48, 64]
    for name, value in without.model.get_parameters().items():
        assert_equal(with_it.model.get_parameters()[name], value)
    assert_equal(with_it.model.normaliser_state, without.model.normaliser_state)
    assert with_it.episodes()["return"] == without.episodes()["return"]


def assert_equal(mine: Any, other: Any) -> None:
    if isinstance(other, dict):
        assert mine.keys() == other.keys()
        for name in other:
            assert_equal(mine[name], other[name])
    elif isinstance(other, torch.Tensor):
        assert torch.equal(mine, other)
    elif isinstance(other, list | tuple):
        assert len(mine) == len(other)
        for first, second in zip(mine, other, strict=True):
            assert_equal(first, second)
    else:
        assert mine == other


def test_evaluations_come_at_the_first_rollout_after_each_interval_and_at_the_end(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{"evaluation.every": 20, "total_timesteps": 96})
    assert run.evaluations()["env_step"] == [32, 48, 64, 80, 96]
    run = trained(tmp_path / "seldom", **{"evaluation.every": 50, "total_timesteps": 96})
    assert run.evaluations()["env_step"] == [64, 96]


def test_the_last_agent_is_evaluated_once(tmp_path: Path) -> None:
    assert trained(tmp_path / "run", **{"evaluation.every": 1000}).evaluations()["env_step"] == [64]


def test_without_an_interval_nothing_is_evaluated(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert not run.directory.evaluations.exists()
    assert run.summary.best is None


def test_the_records_stand_in_the_metrics_under_sb3s_names(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{"evaluation.every": 32, "evaluation.episodes": 3})
    metrics, table = run.progress(), run.evaluations()
    evaluated = [value for value in metrics["eval/mean_reward"] if not math.isnan(value)]
    assert evaluated == table["mean_reward"]
    assert metrics["step"][-1] == 64
    assert metrics["eval/mean_ep_length"][-1] == table["mean_ep_length"][-1]
    assert metrics["eval/std_reward"][-1] == table["std_reward"][-1] > 0
    assert table["episodes"] == [3, 3]


def test_evaluations_are_a_table(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{"evaluation.every": 32})
    with run.directory.evaluations.open() as file:
        assert next(csv.reader(file)) == list(EvaluationRecord._fields)


def test_the_best_model_is_the_one_that_was_best(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Watch(BaseCallback):
        """Keeps the weights behind each evaluation."""

        def _on_rollout_start(self) -> None:
            seen.append({name: value.clone() for name, value in self.model.policy.state_dict().items()})

        def _on_training_end(self) -> None:
            self._on_rollout_start()

        def _on_step(self) -> bool:
            return True

    config = tiny(**SILENT, **{"evaluation.every": 16, "env.id": "Pendulum-v1", "env.n_envs": 1, "env.normalize": True})
    run = train(config, tmp_path / "run", callback=Watch())
    table = run.evaluations()
    best = int(np.argmax(table["mean_reward"]))
    expected = seen[table["env_step"][best] // 8]
    assert all(torch.equal(value, expected[name]) for name, value in run.load("best").policy.state_dict().items())
    assert run.summary.best is not None
    assert run.summary.best.mean_reward == max(table["mean_reward"])


def test_observations_are_normalised_by_the_statistics_of_the_moment(tmp_path: Path) -> None:
    """Played again with the best model's own statistics, the episodes are those of the evaluation."""
    run = trained(
        tmp_path / "run", **{"evaluation.every": 16, "env.id": "Pendulum-v1", "env.normalize": True, "seed": 3}
    )
    agent = run.load("best")
    assert agent.normaliser_state is not None
    venv = run.environment(seed=run.config.evaluation.seed or 0)
    venv.load_state_dict(agent.normaliser_state)
    observation, total, ended = venv.reset(), 0.0, []
    while len(ended) < 10:
        observation, reward, done, _ = venv.step(agent.predict(observation, deterministic=True)[0])
        total += reward[0]
        if done[0]:
            ended.append(total)
            total = 0.0
    assert run.summary.best is not None
    assert np.mean(ended) == pytest.approx(run.summary.best.mean_reward, rel=1e-5)


def test_the_seed_of_the_evaluation_follows_from_the_runs(tmp_path: Path) -> None:
    assert trained(tmp_path / "a", **{"evaluation.every": 64}).config.evaluation.seed == 10_007
    assert trained(tmp_path / "b", **{"evaluation.every": 64, "evaluation.seed": 5}).config.evaluation.seed == 5


def test_equal_agents_get_equal_evaluations(tmp_path: Path) -> None:
    frozen = {
        "evaluation.every": 16,
        "optimizer_kwargs": {"lr": 0.0},
        "optimizer_class": "sgd",
        "env.normalize": False,
        "env.id": "Pendulum-v1",
    }
    for deterministic in (True, False):
        run = trained(tmp_path / f"{deterministic}", **frozen, **{"evaluation.deterministic": deterministic})
        assert len(set(run.evaluations()["mean_reward"])) == 1


def test_the_display_shows_the_last_evaluation(tmp_path: Path) -> None:
    display = Recorded()
    run = train(tiny(**SILENT, **{"evaluation.every": 32}), tmp_path / "run", display=display)
    assert display.shown[0].evaluated is None
    assert display.shown[-1].evaluated == run.evaluations()["mean_reward"][-1]


def evaluated(stopped: Callable[[], bool], path: Path) -> tuple[PeriodicEvaluation, str]:
    """An agent learns for two rollouts; what its evaluations recorded, and wrote."""
    file = LineFile(path)
    config = EvaluationConfig(every=16, seed=1)
    environments = partial(evaluation_environment, tiny().env, 1, 0)
    evaluation = PeriodicEvaluation(config, environments, file, stopped)
    built().learn(32, evaluation)
    evaluation.close()
    file.close()
    return evaluation, path.read_text()


def test_an_evaluation_that_is_broken_off_is_not_recorded(tmp_path: Path) -> None:
    calls = count()
    evaluation, rows = evaluated(lambda: next(calls) > 30, tmp_path / "rows")
    assert (evaluation.records, rows.count("\n"), evaluation.score_now()) == ([], 1, None)
    evaluation, rows = evaluated(lambda: False, tmp_path / "rows")
    assert (len(evaluation.records), rows.count("\n")) == (2, 3)
    assert evaluation.score_now() == evaluation.records[-1].mean_reward
    evaluation.num_timesteps += 1
    assert evaluation.score_now() is None


@pytest.mark.parametrize("training", [True, False])
def test_the_policy_keeps_its_mode_and_the_generators_their_places(training: bool, untouched_generators: None) -> None:
    generators = GlobalGenerators()
    before = generators.state_dict()
    agent = built()
    generators.load_state_dict(before)
    agent.policy.set_training_mode(training)
    with pytest.raises(ZeroDivisionError), unnoticed(agent):
        agent.policy.set_training_mode(not training)
        random.random(), np.random.rand(), torch.rand(())
        raise ZeroDivisionError
    assert agent.policy.training is training


def test_the_environments_of_the_evaluation_are_their_own_and_are_closed(tmp_path: Path) -> None:
    made: list[Noisy] = []
    closed: list[Noisy] = []

    class Counting(Noisy):
        """Is noted when it is made and when it is closed."""

        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def close(self) -> None:
            closed.append(self)

    gymnasium.register("everlearn-tests/Counting-v0", Counting)
    evaluation = {"evaluation.every": 16, "evaluation.n_envs": 3, "evaluation.episodes": 4}
    run = trained(tmp_path / "run", **{"env.id": "everlearn-tests/Counting-v0", **evaluation})
    del gymnasium.registry["everlearn-tests/Counting-v0"]
    assert len(made) == 2 + 3
    assert set(map(id, closed)) == set(map(id, made))
    assert run.evaluations()["episodes"] == [4, 4, 4, 4]


def test_actions_are_sampled_where_the_evaluation_is_not_deterministic(tmp_path: Path) -> None:
    means = [
        trained(
            tmp_path / f"{deterministic}",
            **{"env.id": "CartPole-v1", "evaluation.every": 64, "evaluation.deterministic": deterministic},
        ).evaluations()["mean_reward"]
        for deterministic in (True, False)
    ]
    assert means[0] != means[1]


def test_the_statistics_move_on_from_evaluation_to_evaluation(tmp_path: Path) -> None:
    """An agent that learns nothing is evaluated differently each time, because it sees through other statistics."""
    frozen = {"evaluation.every": 16, "optimizer_kwargs": {"lr": 0.0}, "optimizer_class": "sgd", "env.n_envs": 1}
    run = trained(tmp_path / "run", **frozen, **{"env.id": "Pendulum-v1", "env.normalize": True})
    assert len(set(run.evaluations()["mean_reward"])) == 4
