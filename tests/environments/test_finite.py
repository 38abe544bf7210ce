import numpy as np
import pytest

from everlearn.core.errors import NonFiniteError
from everlearn.environments.finite import FiniteGate
from tests.environments.toys import Scripted, vector


def run(gate: FiniteGate, steps: int) -> None:
    gate.reset()
    for _ in range(steps):
        gate.step(np.zeros(gate.num_envs, dtype=int))


def test_finite_values_pass_unchanged() -> None:
    gate, plain = FiniteGate(vector(Scripted())), vector(Scripted())
    assert np.array_equal(gate.reset(), plain.reset())
    for _ in range(12):
        for mine, theirs in zip(gate.step(np.array([0]))[:3], plain.step(np.array([0]))[:3], strict=True):
            assert np.array_equal(mine, theirs)


def test_a_nan_reward_names_its_environment_and_step() -> None:
    with pytest.raises(NonFiniteError, match=r"Environment 1 returned a non-finite reward at its step 3: nan"):
        run(FiniteGate(vector(Scripted(), Scripted(bad_reward_at=3))), 3)


def test_an_infinite_observation_names_its_environment_and_step() -> None:
    with pytest.raises(NonFiniteError, match=r"Environment 2 returned a non-finite observation at its step 4"):
        run(FiniteGate(vector(Scripted(), Scripted(), Scripted(bad_observation_at=4))), 4)


def test_the_last_observation_of_an_episode_is_checked_too() -> None:
    with pytest.raises(NonFiniteError, match=r"Environment 0 .* terminal observation at its step 5"):
        run(FiniteGate(vector(Scripted(length=5, bad_observation_at=5))), 5)


def test_steps_are_counted_from_the_reset() -> None:
    gate = FiniteGate(vector(Scripted(bad_reward_at=7)))
    run(gate, 4)
    with pytest.raises(NonFiniteError, match="step 3"):
        run(gate, 3)
