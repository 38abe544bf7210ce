from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from everlearn.core.errors import ConfigError
from everlearn.environments.spaces import check_policy, check_spaces, is_continuous_control, policy_for

FEATURES = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (32, 32, 3), np.uint8)
COUNTS = spaces.Box(0, 9, (3,), np.int64)
TWO = spaces.Dict({"near": FEATURES, "far": FEATURES})
BUTTONS = spaces.Discrete(4)
NESTED = spaces.Dict({"inner": TWO})
PAIR = spaces.Tuple([FEATURES, FEATURES])


@pytest.mark.parametrize("observation", [FEATURES, IMAGE, BUTTONS, TWO, spaces.MultiBinary(3)])
@pytest.mark.parametrize("action", [FEATURES, BUTTONS, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)])
def test_usable_spaces_pass(observation: Any, action: Any) -> None:
    check_spaces("Env-v0", observation, action)


@pytest.mark.parametrize(("observation", "where"), [(PAIR, "Tuple"), (NESTED, "under the key 'inner'")])
def test_unusable_observations_are_refused_with_a_wrapper_that_helps(observation: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=f"'Env-v0'.*{where}.*FlattenObservation"):
        check_spaces("Env-v0", observation, BUTTONS)


@pytest.mark.parametrize(
    ("action", "complaint"),
    [
        (PAIR, "has actions of Tuple.*Wrap"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), "unbounded actions.*finite lower and upper bound"),
        (spaces.Box(np.array([0, -np.inf], np.float32), np.array([1, 0], np.float32)), "unbounded actions"),
        (spaces.Discrete(3, start=1), "start at 1.*Number them from 0"),
    ],
)
def test_unusable_actions_are_refused_with_a_remedy(action: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check_spaces("Env-v0", FEATURES, action)


@pytest.mark.parametrize(
    ("observation", "action", "expected"),
    [
        (FEATURES, FEATURES, True),
        (TWO, FEATURES, True),
        (FEATURES, BUTTONS, False),
        (IMAGE, FEATURES, False),
        (COUNTS, FEATURES, False),
        (spaces.Dict({"near": FEATURES, "count": BUTTONS}), FEATURES, False),
    ],
)
def test_continuous_control_is_box_actions_on_floating_observations(
    observation: Any, action: Any, expected: bool
) -> None:
    assert is_continuous_control(observation, action) is expected


@pytest.mark.parametrize(
    ("observation", "policy"), [(FEATURES, "MlpPolicy"), (IMAGE, "CnnPolicy"), (TWO, "MultiInputPolicy")]
)
def test_the_policy_follows_from_the_observations(observation: Any, policy: str) -> None:
    assert policy_for(observation) == policy
    check_policy(policy, observation, BUTTONS, use_sde=False)


@pytest.mark.parametrize(
    ("policy", "observation", "remedy"),
    [
        ("MlpPolicy", TWO, "Use MultiInputPolicy"),
        ("CnnPolicy", TWO, "Use MultiInputPolicy"),
        ("CnnPolicy", FEATURES, "Use MlpPolicy"),
        ("MultiInputPolicy", FEATURES, "Use MlpPolicy"),
    ],
)
def test_a_policy_that_cannot_read_the_observations_is_refused(policy: str, observation: Any, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"algorithm.policy: {policy} cannot read.*{remedy}"):
        check_policy(policy, observation, FEATURES, use_sde=False)


def test_a_flat_policy_may_read_images() -> None:
    check_policy("MlpPolicy", IMAGE, BUTTONS, use_sde=False)


def test_state_dependent_exploration_needs_continuous_actions() -> None:
    check_policy("MlpPolicy", FEATURES, FEATURES, use_sde=True)
    with pytest.raises(ConfigError, match=r"use_sde.*Set use_sde to false"):
        check_policy("MlpPolicy", FEATURES, BUTTONS, use_sde=True)
