"""What is saved with everything on comes back, and training goes on from it."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from everlearn import PPO, AdaptiveUPGD, DistributionalPPO
from everlearn.environments.normaliser import Normaliser
from tests.ppo.together import KINDS, assert_finite, everything
from tests.ppo.updates import assert_identical, learned, minibatch_for, model_of
from tests.ppo.worlds import world


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> PPO:
    """Of each kind, after two rollouts; tests only look at it."""
    return everything(**KINDS[request.param]).learn(64)


def test_every_kind_of_policy_learns_with_everything_on(model: PPO) -> None:
    assert_finite(model)
    assert (model.skipped_updates, model._n_updates, model.variance_gradient_scaler.step_count) == (0, 4, 8)


def test_b37_everything_learned_comes_back_bit_for_bit(model: PPO, tmp_path: Any) -> None:
    """B37, B1, B2."""
    model.save(tmp_path / "model")
    loaded = DistributionalPPO.load(tmp_path / "model", device="cpu")
    assert_identical(learned(loaded), learned(model))
    assert_identical(loaded.policy.return_scale.state_dict(), model.policy.return_scale.state_dict())
    scaler, saved = loaded.variance_gradient_scaler, model.variance_gradient_scaler
    assert scaler.get_scaling_factors() == saved.get_scaling_factors() != {}
    assert {id(held) for held in scaler.parameters} == {id(own) for own in loaded.policy.parameters()}
    observations = minibatch_for(model, 0).observations
    assert torch.equal(loaded.policy.predict_values(observations), model.policy.predict_values(observations))


def continued(model: PPO, venv: DummyVecEnv) -> PPO:
    model.set_env(venv)
    model.set_random_seed(7)
    return model.learn(64, reset_num_timesteps=False)


@pytest.mark.parametrize("kind", ["actions of the real line", "UPGD, scalar", "Adam, truncated"])
def test_b37_a_loaded_model_goes_on_as_the_saved_one_does(kind: str, tmp_path: Any) -> None:
    """B37, B6."""
    model = everything(**KINDS[kind]).learn(64)
    model.save(tmp_path / "model")
    loaded = DistributionalPPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
    before = (loaded.num_timesteps, loaded._n_updates, loaded.variance_gradient_scaler.step_count)
    assert before == (64, 4, 8)
    continued(model, world("pendulum"))
    continued(loaded, world("pendulum"))
    assert (loaded.num_timesteps, loaded._n_updates, loaded.variance_gradient_scaler.step_count) == (128, 8, 16)
    assert_identical(learned(loaded), learned(model))


def test_b37_parameters_carry_the_statistics_and_the_unit() -> None:
    """B37, B1."""
    model, other = everything().learn(64), everything(seed=1)
    parameters = model.get_parameters()
    assert parameters.keys() == {"policy", "policy.optimizer", "vgs_state"}
    other.set_parameters(parameters, device="cpu")
    assert_identical(learned(other), learned(model))
    assert_identical(other.policy.return_scale.state_dict(), model.policy.return_scale.state_dict())


def test_b37_ten_cycles_of_saving_and_learning_leave_nothing_behind(tmp_path: Any) -> None:
    """B37, B6."""
    model = everything(n_epochs=1)
    for cycle in range(10):
        model.learn(32, reset_num_timesteps=False)
        model.save(tmp_path / "model")
        model = DistributionalPPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
        assert (model.num_timesteps, model._n_updates) == (32 * (cycle + 1), cycle + 1)
        assert model.variance_gradient_scaler.step_count == 2 * (cycle + 1)


def test_the_statistics_of_a_normaliser_are_saved_with_the_model(tmp_path: Any) -> None:
    normaliser = Normaliser(world("pendulum"))
    model = DistributionalPPO("MlpPolicy", normaliser, n_steps=64, n_epochs=1, device="cpu").learn(64)
    model.save(tmp_path / "model")
    saved = DistributionalPPO.load(tmp_path / "model", device="cpu").normaliser_state
    other = Normaliser(world("pendulum"))
    other.load_state_dict(saved)
    assert other.obs_rms.mean.tolist() == normaliser.obs_rms.mean.tolist() != [0.0, 0.0, 0.0]


def test_a_plain_ppo_has_sb3s_parameters_alone() -> None:
    assert model_of(algorithm=PPO).get_parameters().keys() == {"policy", "policy.optimizer"}


def test_b2_live_parts_are_saved_as_tensors_and_never_as_objects(tmp_path: Any) -> None:
    """B2."""
    everything().learn(32).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert {name.rpartition(".")[2] for name in archive.namelist()} == {"json", "safetensors", "data"}
        config = json.loads(archive.read("config.json"))
    assert {"n_critics", "vgs_beta", "policy"} <= config.keys()
    assert not config.keys() & {"variance_gradient_scaler", "vgs_state", "evaluator", "_probe", "rollout_buffer"}


def test_a_model_keeps_its_optimizer_whichever_class_loads_it(tmp_path: Any) -> None:
    model_of().save(tmp_path / "model")
    assert isinstance(PPO.load(tmp_path / "model", device="cpu").policy.optimizer, AdaptiveUPGD)


def test_skipped_updates_and_schedules_come_back(tmp_path: Any) -> None:
    model = everything(learning_rate="lin_1e-3", clip_range_vf={"kind": "linear", "start": 1.0})
    model.divergence_guard.skipped = 3
    model.save(tmp_path / "model")
    loaded = DistributionalPPO.load(tmp_path / "model", device="cpu")
    assert (loaded.skipped_updates, loaded.lr_schedule(0.5), loaded.clip_range_vf(0.5)) == (3, 5e-4, 0.5)
