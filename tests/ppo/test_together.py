"""Critics, UPGD, variance scaling and the unit of returns, all on: finite, saved, measured."""

from __future__ import annotations

import gc
import json
import math
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from everlearn import PPO, AdaptiveUPGD, DistributionalPPO
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo import learning
from tests.ppo.updates import assert_identical, learned, leaves, minibatch_for, model_of
from tests.ppo.worlds import scripted, world

EVERYTHING: dict[str, Any] = {
    "clip_range_vf": 0.5,
    "vgs_warmup_steps": 5,
    "optimizer_kwargs": {"adaptive_noise": True},
}
KINDS: dict[str, dict[str, Any]] = {
    "discrete actions": {"place": "cartpole"},
    "actions of the real line": {},
    "gSDE": {"use_sde": True, "sde_sample_freq": 4},
    "images": {"place": "images", "policy": "CnnPolicy"},
    "dictionaries": {"place": "dictionaries", "policy": "MultiInputPolicy"},
    "categorical": {"value_head": "categorical", "n_critics": 3, "critic_reduction": "lcb"},
    "UPGD, scalar": {"value_head": "scalar", "optimizer_class": "upgd"},
    "Adam, truncated": {"optimizer_class": "adam", "optimizer_kwargs": {}, "critic_reduction": "truncated"},
}


def everything(place: str = "pendulum", **arguments: Any) -> PPO:
    return model_of(place, **{**EVERYTHING, **arguments})


def assert_finite(model: PPO) -> None:
    assert [name for name, tensor in leaves(learned(model)).items() if not tensor.isfinite().all()] == []
    logged = {name: value for name, value in model.logger.name_to_value.items() if isinstance(value, float)}
    assert [name for name, value in logged.items() if not math.isfinite(value)] == []


# --- long runs and hard ones ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [256, 2048, pytest.param(5120, marks=pytest.mark.slow)])
def test_b35_everything_stays_finite(steps: int) -> None:
    """B35."""
    model = DistributionalPPO("MlpPolicy", world("pendulum"), n_steps=256, seed=0, device="cpu", **EVERYTHING)
    model.learn(steps)
    assert_finite(model)
    assert model.skipped_updates == 0
    assert model.variance_gradient_scaler.step_count == steps // 256 * 10 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_b36_one_update_sends_a_gradient_to_every_parameter_and_moves_it(kind: str) -> None:
    """B36."""
    model = everything(**KINDS[kind], n_epochs=1, batch_size=32)
    before = learned(model)["parameters"]
    model.learn(32)
    for name, parameter in model.policy.named_parameters():
        assert parameter.grad.abs().max() > 0, f"no gradient reaches {name}"
        assert not torch.equal(parameter, before[name]), f"{name} did not move"


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> PPO:
    """Of each kind, after two rollouts; tests only look at it."""
    return everything(**KINDS[request.param]).learn(64)


def test_every_kind_of_policy_learns_with_everything_on(model: PPO) -> None:
    assert_finite(model)
    assert (model.skipped_updates, model._n_updates, model.variance_gradient_scaler.step_count) == (0, 4, 8)


HARD = {
    "no reward at all": [(0.0, "goes on")] * 20 + [(0.0, "terminates")],
    "extreme rewards": [(1e6, "goes on"), (-1e6, "terminates"), (1e6, "runs out of time")],
    "nothing, then everything": [(0.0, "goes on")] * 40 + [(1e5, "terminates")] * 2,
    "tiny rewards": [(1e-8, "goes on"), (-1e-8, "terminates")],
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("head", ["scalar", "quantile", "categorical"])
def test_b38_zero_extreme_and_mixed_gradients_leave_everything_finite(case: str, head: str) -> None:
    """B38."""
    model = DistributionalPPO(
        "MlpPolicy",
        scripted(HARD[case]),
        n_steps=32,
        batch_size=16,
        value_head=head,
        n_epochs=3,
        seed=0,
        device="cpu",
        **EVERYTHING,
    )
    model.learn(4 * 32)
    assert [name for name, tensor in leaves(learned(model)).items() if not tensor.isfinite().all()] == []
    assert model.skipped_updates == 0


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
def test_b40_batches_of_one(algorithm: type[PPO]) -> None:
    """B40."""
    model = model_of("pendulum", algorithm, n_steps=8, batch_size=1, normalize_advantage=False)
    model.learn(16)
    assert_finite(model)
    assert model._n_updates == 4


def test_b40_a_truncated_minibatch_of_one() -> None:
    """B40."""
    with pytest.warns(UserWarning, match="a truncated mini-batch of size 1"):
        model = everything(n_steps=17, batch_size=16)
    model.learn(34)
    assert_finite(model)


def test_b41_memory_is_stable_over_repeated_learn() -> None:
    """B41."""
    model = everything("cartpole", n_steps=64, batch_size=64)
    for _ in range(3):  # SB3's buffers of episodes and the caches fill up
        model.learn(64, reset_num_timesteps=False)
    tracemalloc.start()
    sizes = []
    for _ in range(2):
        model.learn(5 * 64, reset_num_timesteps=False)
        gc.collect()
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        sizes.append((tracemalloc.get_traced_memory()[0], tensors))
    tracemalloc.stop()
    assert sizes[1][0] - sizes[0][0] < 50_000, "bytes of python objects"
    assert sizes[1][1] == sizes[0][1], "tensors alive"


# --- saving -----------------------------------------------------------------------------------------------------------


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


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc")
def test_r14_saved_and_loaded_every_1024_steps_it_stays_finite_and_memory_stays(tmp_path: Any) -> None:
    """R14."""
    model = DistributionalPPO("MlpPolicy", world("pendulum"), n_steps=256, seed=0, device="cpu", **EVERYTHING)
    memory = []
    for cycle in range(1, 6):
        model.learn(1024, reset_num_timesteps=False)
        assert_finite(model)
        model.save(tmp_path / "model")
        model = DistributionalPPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
        assert model.num_timesteps == cycle * 1024
        memory.append(resident_pages())
    assert memory[-1] < 1.05 * memory[0]


def test_a_plain_ppo_has_sb3s_parameters_alone() -> None:
    assert model_of(algorithm=PPO).get_parameters().keys() == {"policy", "policy.optimizer"}


def test_b2_live_parts_are_saved_as_tensors_and_never_as_objects(tmp_path: Any) -> None:
    """B2."""
    everything().learn(32).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        names = set(json.loads(archive.read("data")))
    assert {"n_critics", "vgs_beta", "num_timesteps"} <= names
    assert not names & {"policy", "variance_gradient_scaler", "vgs_state", "evaluator", "_probe", "rollout_buffer"}


def test_a_model_keeps_its_optimizer_whichever_class_loads_it(tmp_path: Any) -> None:
    model_of().save(tmp_path / "model")
    assert isinstance(PPO.load(tmp_path / "model", device="cpu").policy.optimizer, AdaptiveUPGD)


def test_skipped_updates_and_schedules_come_back(tmp_path: Any) -> None:
    model = everything(learning_rate=lambda progress: 1e-3 * progress, clip_range_vf=lambda progress: progress)
    model.skipped_updates = 3
    model.save(tmp_path / "model")
    loaded = DistributionalPPO.load(tmp_path / "model", device="cpu")
    assert (loaded.skipped_updates, loaded.lr_schedule(0.5), loaded.clip_range_vf(0.5)) == (3, 5e-4, 0.5)


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged() -> dict[str, float]:
    """Of a run whose warm-up is over."""
    model = everything(n_steps=64, n_epochs=10, vgs_kwargs={"mode": "noise"})
    model.learn(4 * 64)
    return dict(model.logger.name_to_value)


def test_r12_the_critics_are_measured_in_reward_units(logged: dict[str, float]) -> None:
    """R12."""
    assert -1000 < logged["critics/value_mean"] < 0, "Pendulum's returns"
    assert 0 < logged["critics/disagreement"] < 1000
    assert 0 < logged["critics/value_std"] < 1000
    assert 0 < logged["critics/spread"] < 1000
    assert logged["critics/cvar_10"] < logged["critics/value_mean"]
    assert abs(logged["critics/bias"]) < 1000
    assert 0 < logged["critics/forgetting_loss"] < 100
    assert logged["train/explained_variance"] <= 1.0


def test_r12_upgd_is_measured_for_actor_and_critics(logged: dict[str, float]) -> None:
    """R12."""
    for part in ("actor", "critics"):
        assert logged[f"upgd/{part}/eta"] > 0
        assert 0 <= logged[f"upgd/{part}/protected"] <= 1
        assert 0 <= logged[f"upgd/{part}/refreshed"] <= 1
        assert 0 < logged[f"upgd/{part}/noise_to_update"] < 0.1
        assert logged[f"upgd/{part}/noise_std"] > 0


def test_r12_variance_scaling_is_measured(logged: dict[str, float]) -> None:
    """R12."""
    assert 0.1 <= logged["vgs/factor_p10"] <= logged["vgs/factor_p50"] <= logged["vgs/factor_p90"] <= 1.0
    assert logged["vgs/factor_p10"] < 1.0
    assert logged["vgs/warmup_done"] == 1
    assert logged["vgs/noise_to_signal_median"] > 0
    assert 0 < logged["vgs/gradient_variance_after"] < logged["vgs/gradient_variance_before"]
    assert (logged["vgs/resets"], logged["vgs/skipped_steps"], logged["train/skipped_updates"]) == (0, 0, 0)


def test_r12_what_is_off_is_not_logged() -> None:
    """R12."""
    model = model_of(algorithm=PPO)
    model.learn(32)
    names = set(model.logger.name_to_value)
    assert not [name for name in names if name.startswith(("vgs/", "upgd/"))]
    assert not names & {"critics/spread", "critics/cvar_10"}
    assert {"critics/disagreement", "critics/bias", "train/skipped_updates"} <= names


def test_r12_forgetting_is_measured_on_the_first_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    """R12."""
    kept = []
    monkeypatch.setattr(learning, "critic_metrics", lambda evaluator, probe, old: kept.append((probe, old)) or {})
    model_of("pendulum").learn(3 * 32)
    first = kept[0][0]
    assert [old is first for _, old in kept] == [True] * 3
    assert all(probe is not first for probe, _ in kept[1:])
    assert len(first.samples.returns) == 32


def test_r12_the_bias_is_how_far_values_are_above_the_realised_returns() -> None:
    """R12."""
    model = model_of("pendulum", n_steps=64, learning_rate=0.0)
    model.learn(64)  # sets the unit, in which these critics predict about zero: the mean of the returns
    model.learn(64)
    logged, returns = model.logger.name_to_value, model.rollout_buffer.returns
    assert logged["critics/bias"] == pytest.approx(logged["critics/value_mean"] - returns.mean(), rel=1e-3)
