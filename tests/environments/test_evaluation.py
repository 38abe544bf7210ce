import math

import numpy as np
import pytest

from everlearn.environments.evaluation import Evaluation, evaluate, is_better, random_policy
from tests.environments.toys import Scripted, vector


def idle(observations: np.ndarray) -> np.ndarray:
    return np.zeros(len(observations), dtype=int)


def test_returns_and_lengths_are_those_of_the_episodes() -> None:
    result = evaluate(idle, vector(Scripted(length=4, reward=2.5)), 3)
    assert result == Evaluation([10.0, 10.0, 10.0], [4, 4, 4])


def test_each_environment_has_its_share_however_short_its_episodes() -> None:
    result = evaluate(idle, vector(Scripted(length=1), Scripted(length=50)), 5)
    assert sorted(result.lengths) == [1, 1, 50, 50, 50]


def test_endless_episodes_are_given_up() -> None:
    assert evaluate(idle, vector(Scripted(length=10**9)), 1, step_limit=30) == Evaluation([], [])


def test_the_step_limit_counts_the_steps_of_all_environments() -> None:
    venv = vector(Scripted(length=10), Scripted(length=10))
    assert evaluate(idle, venv, 2, step_limit=18).returns == []
    assert len(evaluate(idle, venv, 2, step_limit=20).returns) == 2


def test_it_ends_when_told_to() -> None:
    answers = iter([False, False, True])
    assert evaluate(idle, vector(Scripted(length=2)), 9, stopped=lambda: next(answers)).lengths == [2]


@pytest.mark.usefixtures("untouched_generators")
def test_random_actions_repeat_with_the_seed_and_use_no_global_generator() -> None:
    venv = vector(Scripted(), Scripted())
    observations = venv.reset()
    first, again, other = (random_policy(venv, seed) for seed in (5, 5, 6))
    drawn = [[policy(observations).tolist() for _ in range(20)] for policy in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert np.shape(drawn) == (3, 20, 2)


def test_statistics_of_known_episodes() -> None:
    result = Evaluation([1.0, 3.0], [10, 20])
    assert (result.mean, result.std) == (2.0, 1.0)
    assert result.as_dict() == {
        "episodes": 2,
        "mean": 2.0,
        "std": 1.0,
        "min": 1.0,
        "max": 3.0,
        "mean_length": 15.0,
        "returns": [1.0, 3.0],
        "lengths": [10, 20],
    }
    assert Evaluation([], []).as_dict() == {"episodes": 0}


def test_better_means_two_standard_errors_above() -> None:
    baseline = Evaluation([-1.0, 1.0] * 8, [1] * 16)  # standard error 0.25, so the limit is 2 * sqrt(2) * 0.25
    limit = math.sqrt(0.5)
    assert is_better(Evaluation([-1.0 + limit + 0.01, 1.0 + limit + 0.01] * 8, [1] * 16), baseline)
    assert not is_better(Evaluation([-1.0 + limit - 0.01, 1.0 + limit - 0.01] * 8, [1] * 16), baseline)
