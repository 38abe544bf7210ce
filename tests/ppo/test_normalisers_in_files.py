"""Normalisers of models in files: inside other wrappers, with clips of infinity, for other observations."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv, VecExtractDictObs, VecFrameStack, VecNormalize

from everlearn import PPO
from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.codec import members_of
from everlearn.checkpoint.errors import CheckpointError, Mismatch, NonFinite, TooLarge, Untrusted
from everlearn.checkpoint.limits import Limits
from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError, StateError
from everlearn.environments.normaliser import Normaliser
from tests.carrying import through_a_pipe
from tests.ppo.files import file_of, rewritten
from tests.ppo.worlds import world


def stacked(kind: type[VecNormalize] = VecNormalize) -> VecEnv:
    """The order of wrappers that rl_zoo3 has."""
    return VecFrameStack(kind(world("pendulum")), 4)


def extracted(kind: type[VecNormalize] = VecNormalize) -> VecEnv:
    return VecExtractDictObs(kind(world("dictionaries"), norm_obs_keys=["vec"]), "vec")


def trained(env: VecEnv) -> PPO:
    net = {"net_arch": [8]}
    return PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, device="cpu", policy_kwargs=net).learn(16)


def loaded(model: PPO, env: VecEnv | None = None) -> PPO:
    return PPO.load(io.BytesIO(file_of(model)), env=env, device="cpu")


BACK: dict[str, Callable[[PPO], PPO]] = {
    "file": loaded,
    "pickle": through_a_pipe,
    "copy": copy.deepcopy,
}


@pytest.mark.parametrize("back", BACK.values(), ids=BACK)
@pytest.mark.parametrize("kind", [VecNormalize, Normaliser])
@pytest.mark.parametrize("wrapped", [stacked, extracted])
def test_a_normaliser_inside_another_wrapper_comes_back(wrapped: Any, kind: Any, back: Any) -> None:
    model = trained(wrapped(kind))
    again = back(model)
    assert digest(again.normaliser_state) == digest(model.normaliser_state)
    env = wrapped(kind)
    again.set_env(env)
    assert again.env is env
    assert digest(again.normaliser_state["obs_rms"]) == digest(model.normaliser_state["obs_rms"])
    again.learn(16)


def test_a_model_is_loaded_with_an_environment_that_has_its_normaliser_inside() -> None:
    model = trained(stacked())
    again = loaded(model, stacked())
    assert digest(again.normaliser_state["obs_rms"]) == digest(model.normaliser_state["obs_rms"])


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        (stacked, lambda: VecFrameStack(world("pendulum"), 4)),
        (extracted, lambda: VecExtractDictObs(world("dictionaries"), "vec")),
    ],
)
def test_a_plain_environment_that_the_statistics_do_not_fit_is_refused(wrapped: Any, plain: Any) -> None:
    model = trained(wrapped())
    with pytest.raises(Mismatch, match=r"normaliser\.json: .*give the environment wrapped in the same way"):
        loaded(model, plain())
    again = loaded(model)
    with pytest.raises(StateError, match="give the environment wrapped in the same way"):
        again.set_env(plain())
    assert again.env is None
    assert again.normaliser_state is not None


def test_observations_of_another_shape_cannot_be_normalised() -> None:
    model = trained(stacked())
    for each in (model, loaded(model)):
        inner = np.ones((2, 3), np.float32)
        assert np.array_equal(each.normalize_obs(inner), model.env.venv.normalize_obs(inner))
        with pytest.raises(StateError, match=r"for observations \{'': \(3,\)\}; these have \{'': \(2, 12\)\}"):
            each.normalize_obs(np.ones((2, 12), np.float32))
        with pytest.raises(StateError, match=r"these have \{\}"):
            each.normalize_obs({"a": inner})


def test_an_array_or_a_part_cannot_be_normalised_by_statistics_of_keys() -> None:
    model = trained(extracted())
    raw = world("dictionaries").reset()
    assert np.array_equal(model.normalize_obs(raw)["vec"], model.env.venv.normalize_obs(raw)["vec"])
    for wrong in (raw["vec"], {key: part for key, part in raw.items() if key != "vec"}):
        with pytest.raises(StateError, match=r"for observations \{'vec': .*these have \{\}"):
            model.normalize_obs(wrong)


@pytest.mark.parametrize("kind", [VecNormalize, Normaliser])
@pytest.mark.parametrize("name", ["clip_obs", "clip_reward"])
def test_a_clip_of_infinity_comes_back(name: str, kind: type[VecNormalize], tmp_path: Any) -> None:
    model = trained(kind(world("pendulum"), **{name: np.inf}))
    again = loaded(model, world("pendulum"))
    assert getattr(again.get_vec_normalize_env(), name) == np.inf
    if kind is Normaliser:
        model.env.save(tmp_path / "statistics")
        assert getattr(Normaliser.load(tmp_path / "statistics", world("pendulum")), name) == np.inf


def entry(member: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for key in outer:
        member = member[key]
    member[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("settings.clip_obs", -1.0),
        ("settings.clip_reward", {"$float": "nan"}),
        ("settings.gamma", {"$float": "inf"}),
        ("settings.norm_obs", False),
        ("settings.norm_obs_keys", ["vec"]),
        ("settings", {}),
        ("obs_rms", {}),
        ("obs_rms..count", {"$float": "inf"}),
        ("obs_rms..count", -1.0),
        ("obs_rms..var", {"$tensor": "ret_rms.var"}),
        ("ret_rms", None),
        ("returns", 3),
        ("returns", {"$tensor": "ret_rms.var"}),
    ],
)
def test_statistics_that_contradict_themselves_are_refused(path: str, value: Any, model_file: bytes) -> None:
    harmful = rewritten(model_file, lambda members: entry(members["normaliser.json"], path, value))
    with pytest.raises(CheckpointError, match=r"normaliser\.json"):
        PPO.load(harmful, device="cpu")


def test_a_mean_of_the_returns_is_one_number(model_file: bytes) -> None:
    def change(members: dict[str, Any]) -> None:
        for name in ("mean", "var"):
            entry(members["normaliser.json"], f"ret_rms.{name}", {"$tensor": f"obs_rms..{name}"})

    with pytest.raises(CheckpointError, match="mean of the returns is no single number"):
        PPO.load(rewritten(model_file, change), device="cpu")


@pytest.fixture(scope="module")
def model_file() -> bytes:
    return file_of(trained(Normaliser(world("pendulum"))))


@pytest.mark.parametrize("part", ["obs_rms..var", "ret_rms.mean", "returns"])
def test_statistics_that_are_not_finite_are_refused(part: str) -> None:
    model = trained(Normaliser(world("pendulum")))
    state: Any = model.normaliser_state
    inner = state
    for key in part.split("."):
        inner = inner[key]
    inner.fill_(np.nan)
    members, about = model.file_contents()
    content = b"".join(pack({**members, **members_of("normaliser", state)}, about))
    with pytest.raises(NonFinite, match="finite"):
        PPO.load(io.BytesIO(content), device="cpu")


@pytest.mark.parametrize("kind", [VecNormalize, Normaliser])
def test_settings_of_numpy_and_switches_of_0_and_1_are_saved_as_plain_ones(kind: type[VecNormalize]) -> None:
    settings = {"gamma": np.float64(0.9), "clip_obs": np.float32(5), "clip_reward": np.int64(3), "norm_reward": 1}
    env = kind(world("pendulum"), norm_obs=np.bool_(True), epsilon=np.float32(0.25), **settings)
    again = loaded(trained(env))
    assert again.normaliser_state["settings"] == {
        **{"norm_obs": True, "norm_reward": True, "gamma": 0.9, "clip_obs": 5.0, "clip_reward": 3, "epsilon": 0.25},
        "norm_obs_keys": None,
    }
    assert all(type(value) in (bool, int, float, type(None)) for value in again.normaliser_state["settings"].values())


def test_a_setting_that_no_reader_would_take_is_not_written() -> None:
    env = Normaliser(world("pendulum"))
    model = trained(env)
    env.clip_obs = "a"
    with pytest.raises(StateError, match="clip_obs is 'a', which is no number"):
        file_of(model)
    with pytest.raises(StateError, match="clip_obs is 'a', which is no number"):
        env.save(io.BytesIO())
    env.clip_obs = 10.0
    env.obs_rms.mean[0] = np.nan
    with pytest.raises(NonFiniteError, match="mean of '' is not finite"):
        env.save(io.BytesIO())


def test_a_normaliser_may_be_pinned_and_limited() -> None:
    env = Normaliser(world("pendulum"))
    env.save(stream := io.BytesIO())
    pinned = Normaliser.load(stream, world("pendulum"), sha256=hashlib.sha256(stream.getvalue()).hexdigest())
    assert digest(pinned.state_dict()) == digest(env.state_dict())
    with pytest.raises(Untrusted):
        Normaliser.load(stream, world("pendulum"), sha256="0" * 64)
    with pytest.raises(TooLarge):
        Normaliser.load(stream, world("pendulum"), limits=Limits(file_bytes=100))


def test_an_environment_of_images_that_are_reordered_says_what_to_wrap_it_in() -> None:
    model = PPO("MlpPolicy", VecNormalize(world("images")), n_steps=8, batch_size=8, n_epochs=1, device="cpu")
    with pytest.raises(Mismatch, match=r"give VecNormalize\(env\)"):
        loaded(model, world("images"))
    assert loaded(model, VecNormalize(world("images"))).get_vec_normalize_env() is not None
