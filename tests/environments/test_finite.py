from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from everlearn.core.errors import NonFiniteError
from everlearn.environments.finite import FiniteVecEnv
from everlearn.environments.normaliser import Normaliser
from tests.environments.toys import Scripted, vector


def environments(*simulations: Any) -> VecEnv:
    return FiniteVecEnv([lambda simulation=simulation: Monitor(simulation) for simulation in simulations])


def normalised(*simulations: Any) -> VecEnv:
    return Normaliser(vector(*simulations), norm_obs=False, norm_reward=False)


@pytest.fixture(params=[environments, normalised])
def gate(request: pytest.FixtureRequest) -> Callable[..., VecEnv]:
    """Every gate, around given environments."""
    return request.param


def run(venv: VecEnv, steps: int) -> None:
    venv.reset()
    for _ in range(steps):
        venv.step(np.zeros(venv.num_envs, dtype=int))


def test_finite_values_pass_unchanged(gate: Callable[..., VecEnv]) -> None:
    gated_one, plain = gate(Scripted()), vector(Scripted())
    assert np.array_equal(gated_one.reset(), plain.reset())
    for _ in range(12):
        for mine, theirs in zip(gated_one.step(np.array([0]))[:3], plain.step(np.array([0]))[:3], strict=True):
            assert np.array_equal(mine, theirs)


def test_a_nan_reward_names_its_environment_and_step(gate: Callable[..., VecEnv]) -> None:
    with pytest.raises(NonFiniteError, match=r"Environment 1 returned a non-finite reward at its step 3: nan"):
        run(gate(Scripted(), Scripted(bad_reward_at=3)), 3)


def test_an_infinite_observation_names_its_environment_and_step(gate: Callable[..., VecEnv]) -> None:
    with pytest.raises(NonFiniteError, match=r"Environment 2 returned a non-finite observation at its step 4"):
        run(gate(Scripted(), Scripted(), Scripted(bad_observation_at=4)), 4)


def test_the_last_observation_of_an_episode_is_checked_too(gate: Callable[..., VecEnv]) -> None:
    with pytest.raises(NonFiniteError, match=r"Environment 0 .* terminal observation at its step 5"):
        run(gate(Scripted(length=5, bad_observation_at=5)), 5)


def test_steps_are_counted_from_the_reset(gate: Callable[..., VecEnv]) -> None:
    venv = gate(Scripted(bad_reward_at=7))
    run(venv, 4)
    with pytest.raises(NonFiniteError, match="step 3"):
        run(venv, 3)
