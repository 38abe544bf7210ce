from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize

from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.codec import members_of
from everlearn.checkpoint.errors import CheckpointError, Mismatch, Unsupported
from everlearn.checkpoint.places import write_to
from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError, StateError
from everlearn.core.stateful import Stateful
from everlearn.environments.normaliser import Normaliser
from tests.environments.toys import Noisy, Scripted, vector

TWO_KEYS = spaces.Dict({key: spaces.Box(-np.inf, np.inf, (2,), np.float32) for key in ("near", "far")})


def steps(normaliser: VecNormalize, count: int) -> list[Any]:
    """Observations and rewards of ``count`` steps after a reset."""
    seen = [normaliser.reset()]
    for _ in range(count):
        seen.extend(normaliser.step(np.zeros(normaliser.num_envs, dtype=int))[:2])
    return seen


def trained(**settings: Any) -> Normaliser:
    normaliser = Normaliser(vector(Noisy(), Noisy()), **settings)
    normaliser.seed(3)
    steps(normaliser, 40)
    return normaliser


def test_100_steps_equal_vec_normalize() -> None:
    mine, reference = Normaliser(vector(Noisy(), Noisy())), VecNormalize(vector(Noisy(), Noisy()))
    mine.seed(1)
    reference.seed(1)
    for ours, theirs in zip(steps(mine, 100), steps(reference, 100), strict=True):
        assert np.array_equal(ours, theirs)


def test_sb3_recognises_it() -> None:
    normaliser = Normaliser(vector(Noisy()))
    assert unwrap_vec_normalize(normaliser) is normaliser


def test_it_is_stateful() -> None:
    assert isinstance(trained(), Stateful)


def test_b8_a_restored_normaliser_continues_as_the_original() -> None:
    original = trained()
    restored = Normaliser(vector(Noisy(), Noisy()))
    restored.load_state_dict(original.state_dict())
    for normaliser in (original, restored):
        normaliser.venv.seed(9)
    assert np.array_equal(original.returns, restored.returns)
    for ours, theirs in zip(steps(restored, 30), steps(original, 30), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_snapshot_does_not_change_with_its_normaliser() -> None:
    normaliser = trained()
    snapshot = normaliser.state_dict()
    mean, running = snapshot["obs_rms"][""]["mean"].clone(), snapshot["returns"].clone()
    steps(normaliser, 20)
    assert torch.equal(snapshot["obs_rms"][""]["mean"], mean)
    assert torch.equal(snapshot["returns"], running)
    normaliser.load_state_dict(snapshot)
    steps(normaliser, 20)
    assert torch.equal(snapshot["obs_rms"][""]["mean"], mean)


def test_the_state_holds_plain_values_only() -> None:
    def leaves(node: Any) -> list[Any]:
        return [leaf for child in node.values() for leaf in leaves(child)] if isinstance(node, dict) else [node]

    plain = (bool, int, float, str, torch.Tensor, type(None))
    assert all(isinstance(leaf, plain) for leaf in leaves(trained().state_dict()))


def test_dictionary_observations_have_statistics_per_key() -> None:
    normaliser = Normaliser(vector(Scripted(observation_space=TWO_KEYS)), norm_obs_keys=["near"])
    steps(normaliser, 10)
    assert list(normaliser.state_dict()["obs_rms"]) == ["near"]
    restored = Normaliser(vector(Scripted(observation_space=TWO_KEYS)), norm_obs_keys=["near"])
    restored.load_state_dict(normaliser.state_dict())
    assert np.array_equal(restored.obs_rms["near"].mean, normaliser.obs_rms["near"].mean)


@pytest.mark.parametrize("bad", [{"bad_reward_at": 7}, {"bad_observation_at": 7}])
def test_a_non_finite_value_leaves_every_statistic_untouched(bad: dict[str, int]) -> None:
    normaliser = Normaliser(vector(Scripted(), Scripted(**bad)))
    steps(normaliser, 6)
    before = normaliser.state_dict()
    with pytest.raises(NonFiniteError, match=r"Environment 1 .* at its step 7"):
        normaliser.step(np.zeros(2, dtype=int))
    after = normaliser.state_dict()
    for part in ("mean", "var"):
        assert torch.equal(after["obs_rms"][""][part], before["obs_rms"][""][part])
        assert torch.equal(after["ret_rms"][part], before["ret_rms"][part])
    assert torch.equal(after["returns"], before["returns"])


def test_a_state_of_other_observations_is_refused_and_changes_nothing() -> None:
    other = Normaliser(vector(Scripted(observation_space=spaces.Box(-1, 1, (3,), np.float32))))
    before = other.state_dict()
    with pytest.raises(StateError, match=r"for observations \{'': \(2,\)\}; this environment has \{'': \(3,\)\}"):
        other.load_state_dict(trained().state_dict())
    assert torch.equal(other.state_dict()["obs_rms"][""]["mean"], before["obs_rms"][""]["mean"])
    assert torch.equal(other.state_dict()["ret_rms"]["var"], before["ret_rms"]["var"])


def test_running_sums_start_at_zero_with_another_number_of_environments() -> None:
    normaliser = Normaliser(vector(Noisy(), Noisy(), Noisy()))
    normaliser.load_state_dict(trained().state_dict())
    assert np.array_equal(normaliser.returns, np.zeros(3))


def test_from_state_evaluates_with_the_trained_statistics_and_true_rewards() -> None:
    state = trained(clip_obs=0.5).state_dict()
    evaluation = Normaliser.from_state(vector(Scripted(reward=7.0)), state)
    observation = evaluation.reset()
    mean, var = state["obs_rms"][""]["mean"].numpy(), state["obs_rms"][""]["var"].numpy()
    assert np.allclose(observation, np.clip((0 - mean) / np.sqrt(var), -0.5, 0.5))
    assert evaluation.step(np.array([0]))[1] == 7.0
    assert torch.equal(evaluation.state_dict()["obs_rms"][""]["mean"], state["obs_rms"][""]["mean"])


def test_without_normalised_observations_there_are_no_observation_statistics() -> None:
    normaliser = trained(norm_obs=False)
    assert normaliser.state_dict()["obs_rms"] == {}
    assert np.array_equal(Normaliser.from_state(vector(Scripted()), normaliser.state_dict()).reset(), [[0, 0]])


def test_the_gate_stands_again_after_the_environments_are_set_anew() -> None:
    restored = Normaliser.__new__(Normaliser)
    restored.__setstate__(trained().__getstate__())
    restored.set_venv(vector(Scripted(bad_reward_at=1)))
    restored.reset()
    with pytest.raises(NonFiniteError):
        restored.step(np.array([0]))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_saved_normaliser_comes_back_around_other_environments(tmp_path):
    normaliser = Normaliser(make_vec_env("Pendulum-v1", 2), clip_obs=3.0, norm_reward=False)
    normaliser.reset()
    for _ in range(5):
        normaliser.step(np.zeros((2, 1)))
    normaliser.save(tmp_path / "statistics")
    again = Normaliser.load(tmp_path / "statistics", make_vec_env("Pendulum-v1", 2))
    assert digest(again.state_dict()) == digest(normaliser.state_dict())
    assert (again.clip_obs, again.norm_reward) == (3.0, False)


def test_row_36_a_normaliser_of_other_observations_is_refused(tmp_path):
    """Row 36 of the failure modes."""
    Normaliser(make_vec_env("Pendulum-v1")).save(tmp_path / "statistics")
    with pytest.raises(Mismatch, match=r"normaliser: it does not fit \(StateError: .* has the shape \(3,\)"):
        Normaliser.load(tmp_path / "statistics", make_vec_env("CartPole-v1"))


def _member(**changes):
    def change(state):
        for path, value in changes.items():
            *outer, last = path.split("__")
            inner = state
            for key in outer:
                inner = inner[key]
            inner[last] = value
        return state

    return change


@pytest.mark.parametrize(
    "change",
    [
        _member(settings__clip_obs=-1.0),
        _member(settings__gamma=float("nan")),
        _member(settings={"clip_obs": 1.0}),
        _member(settings__norm_obs_keys=["x"]),
        _member(ret_rms__count=-5.0),
        _member(ret_rms__count="many"),
        _member(ret_rms__mean=torch.zeros(3)),
        _member(ret_rms__var=torch.tensor(float("inf"), dtype=torch.float64)),
        _member(obs_rms={}),
        _member(obs_rms=5),
        _member(returns=3),
        lambda state: [],
        lambda state: {},
    ],
)
def test_statistics_that_mean_harm_are_refused(change, tmp_path):
    venv = make_vec_env("Pendulum-v1")
    state = change(Normaliser(venv).state_dict())
    write_to(tmp_path / "statistics", pack(members_of("normaliser", state), {"kind": "normaliser"}))
    with pytest.raises(CheckpointError):
        Normaliser.load(tmp_path / "statistics", venv)


def test_a_file_of_another_kind_is_no_normaliser(tmp_path):
    write_to(tmp_path / "model", pack({}, {"kind": "model"}))
    with pytest.raises(Unsupported, match="it holds a 'model'"):
        Normaliser.load(tmp_path / "model", make_vec_env("Pendulum-v1"))
