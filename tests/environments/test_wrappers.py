from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from everlearn.core.errors import ConfigError
from everlearn.environments.wrappers import wrapped, wrappers
from tests.environments.toys import Scripted


def play(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    """The monitor's record of one episode."""
    env.reset(seed=0)
    while True:
        *_, terminated, truncated, info = env.step(0)
        if terminated or truncated:
            return info["episode"]


def test_a_time_limit_ends_what_the_monitor_counts() -> None:
    env = wrapped(Scripted(length=50), [{"kind": "TimeLimit", "max_episode_steps": 7}])
    assert play(env)["l"] == 7


def test_the_monitor_reports_the_reward_before_it_is_clipped() -> None:
    env = wrapped(Scripted(length=4, reward=10.0), [{"kind": "ClipReward", "max_reward": 1.0}])
    env.reset(seed=0)
    assert env.step(0)[1] == 1.0
    assert play(env)["r"] == 40.0


def test_wrappers_after_a_time_limit_stand_outside_of_the_monitor() -> None:
    specs = [{"kind": "time_limit", "max_episode_steps": 3}, {"kind": "ClipReward", "max_reward": 1.0}]
    episode = play(wrapped(Scripted(length=9, reward=5.0), specs))
    assert (episode["l"], episode["r"]) == (3, 15.0)


def test_without_wrappers_there_is_still_a_monitor() -> None:
    assert isinstance(wrapped(Scripted(), []), Monitor)


def test_a_wrapper_can_be_a_bare_name() -> None:
    env = wrapped(gymnasium.make("FrozenLake-v1"), ["FlattenObservation"])
    assert env.observation_space.shape == (16,)


def test_rescaled_actions_reach_the_environment_in_its_own_bounds() -> None:
    env = wrapped(gymnasium.make("Pendulum-v1"), [{"kind": "RescaleAction", "min_action": -1.0}])
    assert env.action_space.low == -1
    env.reset(seed=0)
    env.step(np.array([1.0], np.float32))
    assert env.unwrapped.last_u == 2.0


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("TimeLimits", r"^env\.wrappers\.0: There is no wrapper 'TimeLimits'. Did you mean 'TimeLimit'"),
        ({"max_episode_steps": 3}, r"^env\.wrappers\.0: .*needs the key 'kind'"),
        ({"kind": "TimeLimit", "max_steps": 3}, r"(?m)^env\.wrappers\.0\.max_steps: unknown key"),
        (
            {"kind": "TimeLimit", "max_episode_steps": "many"},
            r"^env\.wrappers\.0\.max_episode_steps: Input should be a valid integer",
        ),
    ],
)
def test_a_wrong_wrapper_is_a_configuration_error(spec: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        wrapped(Scripted(), [spec])


@pytest.mark.parametrize(
    "spec",
    ["RescaleAction", "TimeLimit", "AtariWrapper", {"kind": "ReshapeObservation", "shape": [3]}],
)
def test_a_wrapper_that_does_not_fit_is_a_configuration_error(spec: Any) -> None:
    with pytest.raises(ConfigError, match=r"env.wrappers: .* does not fit .*Change its arguments or remove it"):
        wrapped(Scripted(), [spec])


def test_a_wrapper_whose_package_is_missing_names_the_pip_command() -> None:
    class Uninstalled(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
            raise gymnasium.error.DependencyNotInstalled("run `pip install warp-drive`")

    wrappers.add("Uninstalled", Uninstalled)
    with pytest.raises(ConfigError, match="Uninstalled needs a package that is not installed: run `pip install warp"):
        wrapped(Scripted(), ["Uninstalled"])


@pytest.mark.parametrize("name", list(wrappers))
def test_every_registered_wrapper_has_a_model_of_its_arguments(name: str) -> None:
    assert "env" not in wrappers.spec_model(name).model_fields


def test_a_list_serves_as_a_shape() -> None:
    square = Scripted(observation_space=gymnasium.spaces.Box(-9, 9, (2, 2), np.float32))
    env = wrapped(square, [{"kind": "ReshapeObservation", "shape": [4]}])
    assert env.reset()[0].shape == (4,)
