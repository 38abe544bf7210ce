"""The state of environments: out, into an equal one, and both go on alike."""

from __future__ import annotations

import io
import random
from collections import defaultdict, deque
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.codec import members_of, state_of
from everlearn.checkpoint.limits import LIMITS
from everlearn.checkpoint.places import source_at
from everlearn.core.errors import StateError
from everlearn.core.resume_level import Level
from everlearn.environments import snapshots
from everlearn.environments.object_state import NotPlain, frozen, set_attributes, thawed
from everlearn.environments.recorded import NotRepeated, Recorded
from everlearn.environments.vector_state import restore_vector, vector_snapshot

SIMULATORS = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0", "FrozenLake-v1"]
MUJOCO = ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5", "Walker2d-v5"]


def through_a_file(state: Any, tmp_path: Any) -> Any:
    """What a checkpoint makes of it."""
    path = tmp_path / "state.zip"
    path.write_bytes(b"".join(pack(members_of("state", state), {"kind": "test"})))
    return state_of(read_archive(source_at(path)), "state", LIMITS)


def steps(env: gymnasium.Env[Any, Any], count: int) -> list[Any]:
    """What an environment answers to actions of its own space's generator, with resets where episodes end."""
    found: list[Any] = []
    for _ in range(count):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        found += [np.asarray(observation).tobytes(), float(reward), terminated, truncated]
        if terminated or truncated:
            found.append(np.asarray(env.reset()[0]).tobytes())
    return found


def taken(env: gymnasium.Env[Any, Any], count: int, seed: int) -> gymnasium.Env[Any, Any]:
    """The environment after some steps."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    steps(env, count)
    return env


@pytest.mark.parametrize("name", [*SIMULATORS, *MUJOCO])
def test_an_equal_environment_goes_on_from_the_state_of_another_bit_for_bit(name: str, tmp_path: Any) -> None:
    first, second = (Monitor(gymnasium.make(name)) for _ in range(2))
    taken(first, 37, seed=1)
    taken(second, 5, seed=2)
    state = snapshots.snapshot(first)
    assert (state["level"], state["reasons"]) == (Level.EXACT, [])
    assert snapshots.restore(second, through_a_file(state, tmp_path))
    assert steps(first, 60) == steps(second, 60)
    assert first.get_total_steps() == second.get_total_steps()


def test_atari_games_go_on_with_their_own_generator(tmp_path: Any) -> None:
    """Sticky actions draw from a generator inside the emulator."""
    ale_py = pytest.importorskip("ale_py")
    gymnasium.register_envs(ale_py)
    first, second = (Monitor(gymnasium.make("ALE/Breakout-v5")) for _ in range(2))
    taken(first, 37, seed=1)
    state = snapshots.snapshot(first)
    assert (state["level"], state["reasons"]) == (Level.EXACT, [])
    assert snapshots.restore(second, through_a_file(state, tmp_path))
    assert steps(first, 200) == steps(second, 200)


def test_a_new_environment_takes_the_state_over_without_a_reset(tmp_path: Any) -> None:
    first = taken(gymnasium.make("Pendulum-v1", max_episode_steps=50), 33, seed=0)
    second = gymnasium.make("Pendulum-v1", max_episode_steps=50)
    snapshots.restore(second, snapshots.snapshot(first))
    assert steps(first, 60) == steps(second, 60)  # through the time limit, which counts its steps


def test_wrappers_with_memories_of_their_own_are_part_of_it() -> None:
    def make() -> gymnasium.Env[Any, Any]:
        env = wrappers.NormalizeReward(wrappers.NormalizeObservation(gymnasium.make("Pendulum-v1")))
        return Monitor(wrappers.FrameStackObservation(wrappers.StickyAction(env, 0.3), 3))

    first, second = taken(make(), 41, seed=1), make()
    snapshots.restore(second, snapshots.snapshot(first))
    assert steps(first, 60) == steps(second, 60)


class Walk(gymnasium.Env[Any, Any]):
    """A random walk that nobody knows how to take apart: it holds an object."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,))
        self.action_space = spaces.Discrete(2)
        self.place = iter(())  # something opaque
        self.position = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = float(self.np_random.normal())
        return np.array([self.position], np.float32), {}

    def step(self, action: Any) -> Any:
        self.position += float(self.np_random.normal()) + (1 if action else -1)
        done = abs(self.position) > 4
        return np.array([self.position], np.float32), -abs(self.position), done, False, {}


class Stated(Walk):
    """The same, which says what its state is."""

    def get_state(self) -> dict[str, Any]:
        return {"position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Restless(Walk):
    """One that never does the same twice."""

    def step(self, action: Any) -> Any:
        self.position += random.SystemRandom().random()
        return np.array([self.position], np.float32), 0.0, False, False, {}


def test_an_environment_may_say_what_its_state_is(tmp_path: Any) -> None:
    first, second = taken(Monitor(Stated()), 21, seed=1), Monitor(Stated())
    state = snapshots.snapshot(first)
    assert state["level"] == Level.EXACT
    snapshots.restore(second, through_a_file(state, tmp_path))
    assert steps(first, 40) == steps(second, 40)


def test_any_other_is_rebuilt_by_repeating_its_actions(tmp_path: Any) -> None:
    first, second = taken(Monitor(Recorded(Walk())), 21, seed=1), Monitor(Recorded(Walk()))
    state = snapshots.snapshot(first)
    assert (state["level"], state["reasons"]) == (Level.REPLAY, ["Walk is rebuilt by repeating its actions"])
    assert snapshots.restore(second, through_a_file(state, tmp_path))
    assert steps(first, 40) == steps(second, 40)


def test_one_that_cannot_be_repeated_is_refused() -> None:
    first, second = taken(Recorded(Restless()), 3, seed=1), Recorded(Restless())
    with pytest.raises(NotRepeated, match="came to another observation when its 3 actions were repeated"):
        snapshots.restore(second, snapshots.snapshot(first))


def test_without_a_recording_only_the_generators_are_saved() -> None:
    first, second = taken(Walk(), 21, seed=1), Walk()
    second.reset(seed=5)
    state = snapshots.snapshot(first)
    assert state["level"] == Level.EPISODE
    assert "Walk has no state that could be saved: it has no get_state()" in state["reasons"][0]
    assert not snapshots.restore(second, state)
    assert np.array_equal(first.reset()[0], second.reset()[0])


def test_another_stack_of_wrappers_is_refused() -> None:
    state = snapshots.snapshot(taken(Monitor(gymnasium.make("CartPole-v1")), 3, seed=0))
    with pytest.raises(StateError, match="made in the same way"):
        snapshots.restore(gymnasium.make("CartPole-v1"), state)


def test_another_model_of_mujoco_is_refused() -> None:
    state = snapshots.snapshot(taken(gymnasium.make("Hopper-v5").unwrapped, 3, seed=0))
    state["layers"][0]["state"]["model"] = "0" * 64
    with pytest.raises(StateError, match="another MuJoCo model"):
        snapshots.restore(gymnasium.make("Hopper-v5").unwrapped, state)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 2.5, "text", np.float32(1.5), np.int64(3), (1, (2.0, "a")), [1, [2]], {"a": {1: 2}}),
        *(deque([1, 2], maxlen=3), {3, 1, 2}, [0.5] * 40),
    ],
    ids=str,
)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = thawed(frozen(value, "value"), value, "value")
    assert (back, type(back)) == (value, type(value))
    if isinstance(value, deque):
        assert back.maxlen == value.maxlen


@pytest.mark.parametrize(
    "value",
    [object(), iter(()), np.array([object()]), {"a": [object()]}],
    ids=["object", "iterator", "array", "inside"],
)
def test_objects_are_refused_by_name(value: Any) -> None:
    with pytest.raises(NotPlain, match="place"):
        frozen(value, "place")


class Point(NamedTuple):
    x: int


class Rule:
    """Something with methods of its own, one of which is in force."""

    def __init__(self) -> None:
        self.rule = self.one

    def one(self) -> None: ...


@pytest.mark.parametrize(
    "value",
    [Point(1), defaultdict(int, a=1), b"bytes", frozenset({1}), Rule().rule, lambda: 1],
    ids=["named tuple", "defaultdict", "bytes", "frozenset", "method", "function"],
)
def test_what_would_not_come_back_as_it_was_is_refused(value: Any) -> None:
    with pytest.raises(NotPlain):
        frozen(value, "place")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=20)
            | st.tuples(inner, inner)
            | st.dictionaries(st.integers() | st.text() | st.tuples(st.integers(), st.integers()), inner)
            | st.sets(st.integers() | st.tuples(st.integers(), st.text()))
        ),
    )
)
def test_whatever_is_taken_out_is_put_back_through_a_file(value: Any) -> None:
    state = {"state": frozen(value, "value")}
    archive = read_archive(source_at(io.BytesIO(b"".join(pack(members_of("state", state), {"kind": "test"})))))
    back = thawed(state_of(archive, "state", LIMITS)["state"], None, "value")
    assert repr(back) == repr(value) if not contains_sets(value) else back == value


def contains_sets(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, set) or any(map(contains_sets, inner))


def test_attributes_that_a_class_does_not_keep_are_refused() -> None:
    """A file names attributes; it must not put something in a method's place."""
    env = gymnasium.make("CartPole-v1").unwrapped
    for name in ("step", "__class__", "np_random"):
        with pytest.raises(StateError, match="has no attribute"):
            set_attributes(env, {name: 5})
    assert callable(env.step)


@pytest.mark.parametrize(
    "state", [{"tuple": 3}, {"floats": 3}, {"generator": {}}, {"unknown": 1}, {}, {"a": 1, "b": 2}]
)
def test_a_damaged_state_is_an_error_of_the_family(state: Any) -> None:
    with pytest.raises(StateError):
        thawed(state, None, "place")


def test_branches_of_a_generator_are_counted() -> None:
    first, second = np.random.default_rng(3), np.random.default_rng(4)
    first.spawn(2)
    second = thawed(frozen(first, "generator"), second, "generator")
    assert first.spawn(1)[0].random() == second.spawn(1)[0].random()


def test_generators_go_on_where_they_were_and_stay_the_same_objects() -> None:
    for generator in (np.random.default_rng(3), np.random.RandomState(3), random.Random(3)):
        state = frozen(generator, "generator")
        first = generator.random()
        assert thawed(state, generator, "generator") is generator
        assert generator.random() == first


@pytest.mark.parametrize("wrap", [VecNormalize, lambda venv: VecFrameStack(venv, 3), lambda venv: venv])
def test_vector_wrappers_are_part_of_the_state(wrap: Any, tmp_path: Any) -> None:
    def make() -> Any:
        return wrap(DummyVecEnv([lambda: Monitor(gymnasium.make("Pendulum-v1")) for _ in range(3)]))

    def play(venv: Any, count: int) -> list[bytes]:
        rng = np.random.default_rng(count)
        outcomes = [venv.step(rng.uniform(-2, 2, (3, 1)))[:3] for _ in range(count)]
        return [array.tobytes() for outcome in outcomes for array in outcome]

    first, second = make(), make()
    first.seed(4)
    first.reset()
    play(first, 150)
    state = vector_snapshot(first)
    assert state["level"] == Level.EXACT
    assert restore_vector(second, through_a_file(state, tmp_path))
    assert play(first, 120) == play(second, 120)


def test_another_number_of_environments_is_refused() -> None:
    one, two = (DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * count) for count in (1, 2))
    one.reset()
    with pytest.raises(StateError, match="of 1 environments, here are 2"):
        restore_vector(two, vector_snapshot(one))
