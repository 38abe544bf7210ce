"""Files, pickles and parameters: what comes back, what is refused, and what is never touched."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecNormalize, VecTransposeImage

from everlearn import PPO, DistributionalPPO
from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError, StateError
from everlearn.environments.normaliser import Normaliser
from tests.carrying import through_a_pipe
from tests.ppo.together import KINDS, everything
from tests.ppo.updates import assert_identical, learned, model_of
from tests.ppo.worlds import world

Way = Callable[[PPO, Path], PPO]


def through_a_file(model: PPO, path: Path) -> PPO:
    model.save(path / "model")
    return type(model).load(path / "model", device="cpu")


def through_a_file_with_env(model: PPO, path: Path) -> PPO:
    model.save(path / "model")
    return type(model).load(path / "model", env=world("pendulum"), device="cpu")


def through_a_stream(model: PPO, path: Path) -> PPO:
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    return type(model).load(stream, device="cpu")


def through_a_pickle(model: PPO, path: Path) -> PPO:
    return through_a_pipe(model)


def through_a_copy(model: PPO, path: Path) -> PPO:
    return copy.deepcopy(model)


def through_parameters(model: PPO, path: Path) -> PPO:
    other = everything(seed=9, kl_penalty="pid")
    other.set_parameters(model.get_parameters(), device="cpu")
    return other


def through_ten_cycles(model: PPO, path: Path) -> PPO:
    for _ in range(5):
        model = through_a_pickle(through_a_file(model, path), path)
    return model


WAYS: list[Way] = [
    through_a_file,
    through_a_file_with_env,
    through_a_stream,
    through_a_pickle,
    through_a_copy,
    through_parameters,
    through_ten_cycles,
]


@pytest.fixture(scope="module")
def model() -> PPO:
    """With everything on, after three rollouts; tests only look at it."""
    return everything(kl_penalty="pid").learn(96)


@pytest.mark.parametrize("way", WAYS)
def test_b1_every_statistic_and_the_next_factor_come_back_to_the_bit(way: Way, model: PPO, tmp_path: Path) -> None:
    """B1, B2, B8."""
    other = way(model, tmp_path)
    for name, part in model.get_parameters().items():
        assert digest(other.get_parameters()[name]) == digest(part), name
    scaler, mine = other.variance_gradient_scaler, model.variance_gradient_scaler
    assert scaler.step_count == mine.step_count == 12
    assert scaler.get_scaling_factors() == mine.get_scaling_factors()
    assert other.kl_controller.coefficient == model.kl_controller.coefficient != 0.2
    assert {id(held) for held in scaler.parameters} == {id(own) for own in other.policy.parameters()}


@pytest.mark.parametrize("way", WAYS)
def test_b2_the_scaler_of_a_restored_model_scales_its_own_steps(way: Way, model: PPO, tmp_path: Path) -> None:
    """B2, B20."""
    moved = []
    for alpha in (0.0, 3.0):
        other = way(model, tmp_path)
        other.vgs_alpha = alpha
        if other.env is None:
            other.set_env(world("pendulum"))
        torch.manual_seed(0)
        np.random.seed(0)
        other.env.seed(0)
        other.learn(32, reset_num_timesteps=True)
        moved.append(learned(other)["parameters"])
    with pytest.raises(AssertionError):
        assert_identical(*moved)


def test_b5_a_live_logger_environment_and_functions_are_no_hindrance(tmp_path: Path) -> None:
    """B5."""
    model = everything(
        tensorboard_log=str(tmp_path / "tb"),
        learning_rate=lambda progress: 1e-3 * progress,
        clip_range=lambda progress: 0.1 + progress / 10,
    ).learn(32)
    copied = through_a_copy(model, tmp_path)
    assert copied.lr_schedule(0.5) == 5e-4
    ways = (through_a_file, through_a_stream, through_a_pickle)
    with pytest.warns(UserWarning, match=r"(clip_range|learning_rate) is '<lambda>', which has no name") as warned:
        others = [way(model, tmp_path) for way in ways]
    assert len(warned) == 2 * len(ways)
    for other in (*others, copied):
        assert other.env is None
        other.set_env(world("pendulum"))
        if other is not copied:
            with pytest.raises(StateError, match=r"learning_rate was the function .*custom_objects="):
                other.learn(32)
            other.learning_rate, other.clip_range = 1e-4, "lin_0.2"
        other.learn(32, reset_num_timesteps=False)
        assert (other.num_timesteps, other._n_updates) == (64, 4)


def test_a_function_that_no_file_can_hold_is_brought_along(tmp_path: Path) -> None:
    model = model_of("pendulum", PPO, learning_rate=lambda progress: 1e-3 * progress)
    with pytest.warns(UserWarning, match=r"load with custom_objects=\{'learning_rate': ...\}"):
        model.save(tmp_path / "model")
    for name in ("learning_rate", "lr_schedule"):
        loaded = PPO.load(tmp_path / "model", custom_objects={name: lambda progress: 1e-2 * progress, "dummy": 1})
        assert loaded.lr_schedule(0.5) == 5e-3
        assert not hasattr(loaded, "dummy")
    kept = PPO.load(tmp_path / "model")
    assert kept.lr_schedule(0.5) == 1e-3  # the value that was in force, for those who only act


def test_a_pickle_holds_the_file_and_no_environment(model: PPO) -> None:
    rebuild, arguments = model.__reduce__()
    kind, file, device = arguments
    assert (kind, device) == (DistributionalPPO, "cpu")
    assert io.BytesIO(file).read(2) == b"PK"
    assert rebuild(*arguments).env is None


def test_b3_a_second_set_up_neither_recreates_nor_resets(model: PPO) -> None:
    """B3."""
    other = through_a_copy(model, Path())
    before = {name: value for name, value in vars(other).items()}
    other._setup_model()
    assert {name for name, value in vars(other).items() if value is not before[name]} == set()


def test_b4_a_recreated_optimizer_or_policy_takes_the_scaler_along() -> None:
    """B4."""
    model = everything().learn(32)
    model.policy.optimizer = model.policy._make_optimizer(1e-3)
    model.learn(32, reset_num_timesteps=False)
    assert model.variance_gradient_scaler._placement.optimizer is model.policy.optimizer
    assert model.variance_gradient_scaler.step_count == 8
    replacement = everything(seed=5).policy
    model.policy = replacement
    model.learn(32, reset_num_timesteps=False)
    assert {id(held) for held in model.variance_gradient_scaler.parameters} == {id(p) for p in replacement.parameters()}
    assert model.variance_gradient_scaler.step_count == 12


def test_b7_what_is_not_what_was_saved_is_an_error(model: PPO, tmp_path: Path, monkeypatch: Any) -> None:
    """B7."""
    model.save(tmp_path / "model")
    scaler = type(model.variance_gradient_scaler)
    restore = scaler.load_state_dict

    def forgetful(self: Any, state: Any, strict: bool = True) -> None:
        restore(self, {**state, "step_count": torch.zeros_like(state["step_count"])}, strict)

    monkeypatch.setattr(scaler, "load_state_dict", forgetful)
    with pytest.raises(StateError, match=r"model\.zip, vgs: as restored it is not what was saved"):
        DistributionalPPO.load(tmp_path / "model", device="cpu")


def test_b7_statistics_of_other_weights_are_reset_with_a_warning_that_counts_them(model: PPO) -> None:
    """B7."""
    other = everything(seed=3).learn(32)
    policy = {"policy": model.get_parameters()["policy"]}
    with pytest.warns(UserWarning, match=r"without 'vgs_state': the statistics of 4 steps belong to other weights"):
        other.set_parameters(policy, exact_match=False, device="cpu")
    assert (other.variance_gradient_scaler.step_count, other.variance_gradient_scaler.resets) == (0, 1)


def test_b7_the_state_of_a_part_that_is_off_is_refused_or_left_out_where_asked(model: PPO, tmp_path: Path) -> None:
    """B7."""
    parameters = model.get_parameters()
    by_default = everything(kl_penalty=None)
    before = digest(by_default.get_parameters())
    with pytest.raises(StateError, match="hold 'kl_penalty_state', and kl_penalty is off here"):
        by_default.set_parameters(parameters, device="cpu")
    assert digest(by_default.get_parameters()) == before
    on_purpose = everything(kl_penalty=False, variance_gradient_scaling=False)
    with pytest.warns(UserWarning, match="is switched off: the state of") as warned:
        on_purpose.set_parameters(parameters, device="cpu")
    assert len(warned) == 2
    assert digest(on_purpose.get_parameters()["policy"]) == digest(parameters["policy"])
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="variance_gradient_scaling is switched off"):
        loaded = DistributionalPPO.load(tmp_path / "model", device="cpu", variance_gradient_scaling=False)
    assert loaded.variance_gradient_scaler is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda p: p.pop("vgs_state"), ValueError),
        (lambda p: p.update(more={}), ValueError),
        (lambda p: p["policy"].pop("value_net.weight"), RuntimeError),
        (lambda p: p["vgs_state"].pop("c"), StateError),
        (lambda p: p["policy.optimizer"]["state"].pop(0), StateError),
        (lambda p: p["kl_penalty_state"].pop("error"), StateError),
        (lambda p: p["policy"]["value_net.weight"].fill_(torch.nan), NonFiniteError),
    ],
    ids=["a part", "an unknown part", "a parameter", "a statistic", "the optimizer", "the control", "not finite"],
)
def test_b7_what_does_not_fit_is_an_error_and_nothing_has_changed(change: Any, error: type, model: PPO) -> None:
    """B7."""
    other = everything(seed=4, kl_penalty="pid")
    before = digest(other.get_parameters())
    parameters = copy.deepcopy(model.get_parameters())
    change(parameters)
    with pytest.raises(error):
        other.set_parameters(parameters, device="cpu")
    assert digest(other.get_parameters()) == before


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    model = model_of(algorithm=PPO)
    model.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()
    with torch.no_grad():
        model.policy.value_net.bias.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match=r"'policy\.value_net\.bias' is not finite"):
        model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").read_bytes() == before


def generators() -> str:
    state = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    return repr(state)


def test_loading_leaves_the_callers_generators_as_they_were(tmp_path: Path) -> None:
    model_of(seed=3).save(tmp_path / "model")
    before = generators()
    DistributionalPPO.load(tmp_path / "model", env=world("cartpole"), device="cpu")
    assert generators() == before


def test_b8_counts_of_the_guard_and_its_factor_come_back(tmp_path: Path) -> None:
    """B8."""
    model = model_of("pendulum")
    model.divergence_guard.load_state_dict({"skipped": 7, "in_a_row": 1, "restores": 2, "lr_factor": 0.25})
    loaded = through_a_file_with_env(model, tmp_path)
    assert loaded.divergence_guard.state_dict() == model.divergence_guard.state_dict()
    loaded.learn(32)
    assert loaded.logger.name_to_value["train/learning_rate"] == pytest.approx(0.25 * 3e-4)


def test_b8_the_position_in_a_schedule_comes_back(tmp_path: Path) -> None:
    """B8."""
    model = model_of("pendulum", learning_rate="lin_0.001").learn(64)
    loaded = through_a_file_with_env(model, tmp_path)
    assert loaded._current_progress_remaining == model._current_progress_remaining == 0.0
    assert loaded.get_hyperparameters()["learning_rate"]["kind"] == "linear"


# --- normaliser -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[Normaliser, VecNormalize])
def normalised(request: pytest.FixtureRequest) -> PPO:
    """Trained on normalised observations, by our normaliser and by SB3's."""
    return (
        model_of("pendulum", PPO, seed=1)
        .__class__("MlpPolicy", request.param(world("pendulum")), n_steps=32, batch_size=16, seed=1, device="cpu")
        .learn(64)
    )


def test_a_plain_environment_is_wrapped_with_the_saved_statistics_which_rest_until_learn(
    normalised: PPO, tmp_path: Path
) -> None:
    normalised.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
    normaliser = loaded.get_vec_normalize_env()
    assert (normaliser.training, normaliser.norm_reward) == (False, False)
    expected = normalised.env.normalize_obs(np.ones((1, 3)))
    assert np.array_equal(loaded.env.normalize_obs(np.ones((1, 3))), expected)
    loaded.env.reset()
    assert normaliser.obs_rms.count == normalised.env.obs_rms.count
    loaded.learn(32, reset_num_timesteps=False)
    assert (normaliser.training, normaliser.norm_reward) == (True, True)
    assert normaliser.obs_rms.count > normalised.env.obs_rms.count


def test_an_environment_with_a_normaliser_gets_the_statistics_and_keeps_its_settings(
    normalised: PPO, tmp_path: Path
) -> None:
    normalised.save(tmp_path / "model")
    own = VecNormalize(world("pendulum"), training=False, norm_reward=False)
    loaded = PPO.load(tmp_path / "model", env=own, device="cpu")
    assert loaded.get_vec_normalize_env() is own
    assert np.array_equal(own.obs_rms.mean, normalised.env.obs_rms.mean)
    assert (own.training, own.norm_reward) == (False, False)


def test_statistics_of_other_observations_are_refused(normalised: PPO, tmp_path: Path) -> None:
    normalised.save(tmp_path / "model")
    with pytest.raises(StateError, match="normaliser's state is for observations"):
        PPO.load(tmp_path / "model", env=VecNormalize(world("pendulum"), norm_obs=False), device="cpu")


def test_without_an_environment_the_statistics_wait_and_are_saved_again(normalised: PPO, tmp_path: Path) -> None:
    normalised.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    again = through_a_file(loaded, tmp_path)
    for model in (loaded, again):
        assert digest(model.normaliser_state) == digest(normalised.normaliser_state)
    again.set_env(world("pendulum"))
    assert digest(again.get_vec_normalize_env().obs_rms.mean) == digest(normalised.env.obs_rms.mean)


@pytest.mark.parametrize("has_env", [True, False])
def test_observations_are_normalised_as_in_training(has_env: bool, normalised: PPO, tmp_path: Path) -> None:
    normalised.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=world("pendulum") if has_env else None, device="cpu")
    raw = np.array([[0.3, -0.8, 5.0]], np.float32)
    assert np.array_equal(loaded.normalize_obs(raw), normalised.env.normalize_obs(raw))
    assert np.array_equal(model_of("pendulum").normalize_obs(raw), raw)


def test_dictionaries_are_normalised_by_key_as_in_training(tmp_path: Path) -> None:
    env = Normaliser(world("dictionaries"), norm_obs_keys=["vec"])
    model = PPO("MultiInputPolicy", env, n_steps=16, batch_size=16, device="cpu").learn(16)
    model.save(tmp_path / "model")
    raw = world("dictionaries").reset()
    expected = env.normalize_obs(raw)
    found = PPO.load(tmp_path / "model", device="cpu").normalize_obs(raw)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_images_are_wrapped_inside_their_transposition(tmp_path: Path) -> None:
    env = VecNormalize(world("images"), norm_obs=False)
    model = PPO("CnnPolicy", env, n_steps=16, batch_size=16, device="cpu").learn(16)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=world("images"), device="cpu")
    assert isinstance(loaded.env, VecTransposeImage)
    assert isinstance(loaded.env.venv, Normaliser)
    loaded.learn(16)


@pytest.mark.parametrize("kind", KINDS)
def test_b1_every_kind_of_policy_survives_a_pickle(kind: str) -> None:
    """B1, B5."""
    model = everything(**KINDS[kind]).learn(32)
    other = through_a_pipe(model)
    assert digest(other.get_parameters()) == digest(model.get_parameters())


@pytest.mark.parametrize("restored", [False, True])
def test_sb3s_evaluation_callback_works_with_a_normaliser_of_ours(restored: bool, tmp_path: Path) -> None:
    model = PPO("MlpPolicy", Normaliser(world("pendulum")), n_steps=32, batch_size=16, device="cpu")
    if restored:
        model.save(tmp_path / "model")
        model = PPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
    evaluation = VecNormalize(world("pendulum"), training=False, norm_reward=False)
    callback = EvalCallback(evaluation, n_eval_episodes=1, eval_freq=32, verbose=0, warn=False)
    model.learn(64, callback=callback)
    assert np.array_equal(evaluation.obs_rms.mean, model.env.obs_rms.mean)
    assert callback.last_mean_reward < 0


def test_resting_statistics_are_saved_with_the_settings_they_will_wake_with(normalised: PPO, tmp_path: Path) -> None:
    normalised.save(tmp_path / "model")
    resting = PPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
    for again in (through_a_pipe(resting), through_a_file(resting, tmp_path)):
        again.set_env(world("pendulum"))
        again.learn(32)
        assert (again.get_vec_normalize_env().training, again.get_vec_normalize_env().norm_reward) == (True, True)


@pytest.mark.parametrize("learns", [False, True])
def test_a_second_environment_is_wrapped_with_the_statistics_as_they_are(
    learns: bool, normalised: PPO, tmp_path: Path
) -> None:
    normalised.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=world("pendulum"), device="cpu")
    if learns:
        loaded.learn(32)
    before = digest(loaded.normaliser_state["obs_rms"])
    loaded.set_env(world("pendulum"))
    assert digest(loaded.get_vec_normalize_env().state_dict()["obs_rms"]) == before
    loaded.learn(32)
    assert (loaded.get_vec_normalize_env().training, loaded.get_vec_normalize_env().norm_reward) == (True, True)


def test_an_environment_that_does_not_fit_the_statistics_is_refused_and_nothing_has_changed(
    normalised: PPO, tmp_path: Path
) -> None:
    normalised.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    with pytest.raises(StateError, match="normaliser's state is for observations"):
        loaded.set_env(VecNormalize(world("pendulum"), norm_obs=False))
    assert loaded.env is None
    loaded.set_env(world("pendulum"))
    assert loaded.get_vec_normalize_env() is not None


def test_a_normaliser_that_is_not_finite_is_not_saved(normalised: PPO, tmp_path: Path) -> None:
    normalised.env.obs_rms.mean[0] = np.inf
    with pytest.raises(NonFiniteError, match=r"'normaliser\.obs_rms\..*mean' is not finite"):
        normalised.save(tmp_path / "model")


def test_an_object_in_a_state_is_refused_when_it_is_saved_not_when_it_is_needed(tmp_path: Path) -> None:
    model = model_of("pendulum", PPO)
    model.policy.optimizer.param_groups[0]["note"] = range(3)
    with pytest.raises(StateError, match=r"a range at 'optimizer\.param_groups\.0\.note', which no file can hold"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
