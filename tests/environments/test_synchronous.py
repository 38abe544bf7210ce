"""The vector environment hands out what SB3's does, and nothing of it changes later."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from everlearn.core.errors import EverlearnError
from everlearn.environments.synchronous import SynchronousVecEnv, independent
from tests.environments.toys import Noisy


class Frugal(gymnasium.Env[Any, Any]):
    """It has one array and one info, hands them out each time, and looks at what was written into the info."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.counts = np.zeros(2)
        self.info: dict[str, Any] = {"trace": [], "nested": {"counts": self.counts}}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.counts[:] = (options or {}).get("start", 0), self.np_random.random()
        return self.counts, {"started at": self.counts}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.counts += (1, action)
        self.info["trace"].append((int(action), sorted(self.info)))
        return (
            self.counts,
            np.float64(self.counts.sum()),
            bool(self.counts[0] == 6),
            bool(self.counts[0] > 3),
            self.info,
        )


class Several(gymnasium.Env[Any, Any]):
    """Observes a tuple, and ends by chance."""

    observation_space = spaces.Tuple((spaces.Discrete(9), spaces.Box(-np.inf, np.inf, (2, 2), np.float64)))
    action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def observation(self) -> Any:
        return int(self.np_random.integers(9)), self.np_random.normal(size=(2, 2))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation(), {"options": options}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ends, truncated = self.np_random.random(2) < 0.2
        return self.observation(), float(action.sum()), ends, truncated, {"action": action, "ends": ends}


class Parts(Several):
    """The same with a dictionary, whose info is nested; it can be looked at."""

    observation_space = spaces.Dict(
        {"second": spaces.Box(0, 255, (4, 4, 1), np.uint8), "first": spaces.Box(-1, 1, (2,), np.float32)}
    )
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self) -> None:
        self.render_mode = "rgb_array"

    def observation(self) -> Any:
        first, second = self.np_random.normal(size=2), self.np_random.integers(256, size=(4, 4, 1))
        return {"first": first, "second": second.astype(np.uint8), "unknown to the space": 1}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, ends, truncated, info = super().step(action)
        return observation, reward, ends, truncated, {"before": info, "is_success": ends}

    def render(self) -> Any:
        return np.full((2, 3, 3), 7, np.uint8)


def made(env_id: str, limit: int) -> Callable[[], Any]:
    return lambda: Monitor(TimeLimit(gymnasium.make(env_id), limit))


WORLDS: dict[str, Callable[[], Any]] = {
    "CartPole": made("CartPole-v1", 15),
    "Pendulum": made("Pendulum-v1", 7),
    "HalfCheetah": made("HalfCheetah-v5", 9),
    "FrozenLake": made("FrozenLake-v1", 5),
    "noise": lambda: Monitor(Noisy()),
    "dictionaries": lambda: Monitor(Parts()),
    "reused arrays": Frugal,
    "tuples": Several,
}


def without_clock(info: dict[str, Any]) -> dict[str, Any]:
    """An info without the one number in a monitor's that differs by itself."""
    if "episode" in info:
        return {**info, "episode": {key: value for key, value in info["episode"].items() if key != "t"}}
    return info


def assert_same(mine: Any, theirs: Any) -> None:
    """Equal in type, order of keys, dtype and every bit."""
    assert type(mine) is type(theirs)
    if isinstance(mine, dict):
        assert list(mine) == list(theirs)
        assert_same(list(mine.values()), list(theirs.values()))
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(mine, np.ndarray | np.generic):
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    else:
        assert mine == theirs


def history(venv: DummyVecEnv, seed: int, steps: int) -> list[Any]:
    """All that comes out of an environment, as it is when all is over, and as it was."""
    generator = np.random.default_rng(seed)
    venv.action_space.seed(seed)
    handed_out, copies = [], []
    for step in range(steps):
        if step == 0 or generator.random() < 0.05:
            venv.seed(int(generator.integers(1000)))
            if generator.random() < 0.5:
                venv.set_options({"start": 2})
            result: Any = venv.reset()
        else:
            *arrays, infos = venv.step(np.array([venv.action_space.sample() for _ in range(venv.num_envs)]))
            result = [*arrays, [without_clock(info) for info in infos]]
        handed_out.append(result)
        copies.append(deepcopy((result, venv.reset_infos)))
    assert_same([result for result, _ in copies], handed_out)
    return copies


@pytest.mark.parametrize("world", WORLDS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), copies=st.integers(1, 3), steps=st.integers(1, 40))
def test_every_result_is_sb3s_bit_for_bit_and_stays_as_it_was(world: str, seed: int, copies: int, steps: int) -> None:
    mine, theirs = (kind([WORLDS[world]] * copies) for kind in (SynchronousVecEnv, DummyVecEnv))
    try:
        assert_same(history(mine, seed, steps), history(theirs, seed, steps))
    finally:
        mine.close()
        theirs.close()


def test_what_a_reader_does_to_results_changes_nothing_later() -> None:
    spoiled, plain = (SynchronousVecEnv([Parts] * 2) for _ in range(2))
    for venv in (spoiled, plain):
        venv.seed(0)
    observations, _ = spoiled.reset(), plain.reset()
    actions = np.ones((2, 3), np.float32)
    for _ in range(12):
        observations["alien"] = observations.pop("first")
        observations["second"] = None
        observations, rewards, dones, infos = spoiled.step(actions)
        assert_same([observations, rewards, dones, infos], list(plain.step(actions)))
        rewards += 7
        dones |= True
        infos[0]["alien"] = infos.pop()


@pytest.mark.parametrize(
    "info", [{}, {"a": 1.5, "b": np.float64(2), "c": None}, {"list": [1], "array": np.ones(2), "dict": {"x": [2]}}]
)
def test_an_independent_info_is_an_equal_one_that_shares_nothing_that_can_change(info: dict[str, Any]) -> None:
    copy = independent(info)
    assert_same(copy, info)
    before = deepcopy(copy)
    info["new"] = 1
    for value in list(info.values()):
        if isinstance(value, list):
            value.append(2)
        elif isinstance(value, np.ndarray):
            value += 1
        elif isinstance(value, dict):
            value["x"].append(3)
    assert_same(copy, before)


def test_an_info_of_another_kind_of_dictionary_stays_one() -> None:
    class Report(dict[str, Any]):
        pass

    info = Report(a=[1])
    copy = independent(info)
    assert type(copy) is Report
    assert copy == info
    assert copy["a"] is not info["a"]


def test_attributes_methods_wrappers_and_pictures_are_those_of_the_environments() -> None:
    venv = SynchronousVecEnv([lambda: Monitor(Parts())] * 2)
    assert isinstance(venv, DummyVecEnv)
    venv.reset()
    venv.set_attr("colour", "red", indices=[1])
    assert venv.get_attr("colour", 1) == ["red"]
    assert venv.env_is_wrapped(Monitor) == [is_wrapped(env, Monitor) for env in venv.envs] == [True, True]
    assert venv.env_method("has_wrapper_attr", "colour") == [False, True]
    assert venv.render().shape == (4, 3, 3)  # two pictures, one below the other
    venv.close()


def test_one_environment_twice_is_refused() -> None:
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(ValueError, match="same instance"):
        SynchronousVecEnv([lambda: env] * 2)


class Sloppy(gymnasium.Env[Any, Any]):
    """An environment whose step returns whatever it is told to."""

    def __init__(self, **different: Any) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._outcome = {"observation": np.zeros(2, np.float32), "reward": 0.0, "terminated": False, "info": {}}
        self._outcome |= different

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        outcome = self._outcome
        return outcome["observation"], outcome["reward"], outcome["terminated"], False, outcome["info"]


@pytest.mark.parametrize(
    ("different", "problem"),
    [
        ({"observation": np.zeros(3, np.float32)}, r"an observation of the shape \(3,\), where its space has \(2,\)"),
        ({"observation": np.array(["a", "b"])}, "an observation of <U1"),
        ({"reward": np.zeros(2)}, "the reward array"),
        ({"terminated": "no"}, "terminated='no', which is neither True nor False"),
        ({"info": None}, "the info None, which is no dictionary"),
    ],
    ids=["shape", "dtype", "reward", "flag", "info"],
)
def test_what_does_not_conform_is_refused_in_the_first_steps(different: dict[str, Any], problem: str) -> None:
    """Row 32 of the failure modes."""
    venv = SynchronousVecEnv([lambda: Sloppy(), lambda: Sloppy(**different)])
    venv.reset()
    with pytest.raises(EverlearnError, match=f"Environment 1 returned at its step 1 {problem}"):
        venv.step(np.zeros(2, np.int64))
