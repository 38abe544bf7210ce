"""Hyper-parameters: whatever is assigned is in force at the next update, everywhere, or is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from everlearn import PPO, DistributionalPPO
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError, ConfigError, OrderError
from everlearn.optim.registry import optimizers
from everlearn.ppo.hyperparameters import FIXED, HYPERPARAMETERS
from everlearn.ppo.kl import DoublingPenalty
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.schedules import Cosine
from tests.carrying import through_a_pipe
from tests.ppo.updates import assert_identical, learned, model_of
from tests.ppo.worlds import world

NEW: dict[str, Any] = {
    "learning_rate": 1e-2,
    "n_steps": 48,
    "batch_size": 8,
    "n_epochs": 3,
    "gamma": 0.5,
    "gae_lambda": 0.1,
    "clip_range": 1e-4,
    "clip_range_vf": 1e-4,
    "normalize_advantage": False,
    "ent_coef": 0.5,
    "vf_coef": 0.01,
    "max_grad_norm": 1e-3,
    "target_kl": 1e-12,
    "vgs_beta": 0.5,
    "vgs_alpha": 5.0,
    "vgs_warmup_steps": 1000,
    "optimizer_kwargs.sigma": 0.5,
    "optimizer_kwargs.weight_decay": 0.5,
    "optimizer_kwargs.beta_utility": 0.5,
    "optimizer_kwargs.beta1": 0.1,
    "vgs_kwargs.min_scale": 0.9,
    "kl_penalty.target": 1e-9,
}


def trained(**arguments: Any) -> PPO:
    options = {"vgs_warmup_steps": 2, "kl_penalty": "doubling", "ent_coef": 0.01, **arguments}
    return model_of("pendulum", learning_rate=3e-3, **options).learn(64)


@pytest.mark.parametrize("name", NEW)
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
def test_b29_a_changed_hyperparameter_changes_what_is_learned_next(name: str) -> None:
    """B29."""
    changed, unchanged = trained(), trained()
    changed.set_hyperparameter(name, NEW[name])
    assert changed.get_hyperparameters()[name] == NEW[name]
    for model in (changed, unchanged):
        model.set_random_seed(3)
        model.learn(96, reset_num_timesteps=False)
    with pytest.raises(AssertionError):
        assert_identical(learned(changed), learned(unchanged))


def test_b29_every_hyperparameter_has_such_a_test() -> None:
    """B29."""
    names = {name for name in trained().get_hyperparameters() if "." not in name}
    assert names == HYPERPARAMETERS.keys() == {name for name in NEW if "." not in name}


@pytest.mark.parametrize("name", [name for name in NEW if "." not in name and not name.startswith("vgs")])
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
def test_b29_assignment_gives_what_the_constructor_gives(name: str) -> None:
    """B29: no copy of the old value is left anywhere."""
    assigned, built = model_of("pendulum", PPO), model_of("pendulum", PPO, **{name: NEW[name]})
    setattr(assigned, name, NEW[name])
    for model in (assigned, built):
        model.set_random_seed(5)
        model.learn(96)
    assert_identical(learned(assigned), learned(built))


def test_b29_gamma_reaches_the_buffer_and_the_normaliser() -> None:
    """B29."""
    model = PPO("MlpPolicy", VecNormalize(world("pendulum")), n_steps=64, device="cpu")
    model.gamma, model.gae_lambda = 0.7, 0.6
    assert (model.rollout_buffer.gamma, model.rollout_buffer.gae_lambda, model.env.gamma) == (0.7, 0.6, 0.7)


def test_b29_the_scaler_follows_its_arguments() -> None:
    """B29."""
    model = model_of()
    model.vgs_beta, model.vgs_alpha, model.vgs_warmup_steps = 0.5, 0.25, 3
    scaler = model.variance_gradient_scaler
    assert (scaler.beta, scaler.alpha, scaler.warmup_steps) == (0.5, 0.25, 3)


def test_b29_an_option_of_the_optimizer_reaches_the_groups_that_do_not_override_it() -> None:
    """B29."""
    model = model_of("pendulum")
    before = {(group["label"], group["sigma"]) for group in model.policy.optimizer.param_groups}
    model.set_hyperparameter("optimizer_kwargs.sigma", 0.25)
    after = {(group["label"], group["sigma"]) for group in model.policy.optimizer.param_groups}
    assert before == {("actor", 0.001), ("actor", 0.0), ("critics", 0.001), ("critics", 0.0)}
    assert after == {("actor", 0.25), ("actor", 0.0), ("critics", 0.25), ("critics", 0.0)}
    adam = model_of(algorithm=PPO)
    adam.set_hyperparameter("optimizer_kwargs.betas", (0.5, 0.6))
    assert adam.policy.optimizer.param_groups[0]["betas"] == (0.5, 0.6)


def test_b9_a_rate_that_is_assigned_rules_over_the_optimizers_which_rules_over_the_schedule() -> None:
    """B9, B29."""
    model = model_of(optimizer_kwargs={"lr": 1e-3}, learning_rate="lin_0.5").learn(32)
    assert {group["lr"] for group in model.policy.optimizer.param_groups} == {1e-3}
    model.learning_rate = {"kind": "cosine", "start": 0.25, "end": 0.25}
    model.learn(32)
    assert {group["lr"] for group in model.policy.optimizer.param_groups} == {0.25}
    model.set_hyperparameter("optimizer_kwargs.lr", 0.125)
    model.learn(32)
    assert {group["lr"] for group in model.policy.optimizer.param_groups} == {0.125}


def test_b9_an_assigned_rate_is_still_in_force_after_saving(tmp_path: Any) -> None:
    """B9, B8."""
    model = model_of(optimizer_kwargs={"lr": 1e-3})
    model.learning_rate = 0.25
    model.save(tmp_path / "model")
    assert DistributionalPPO.load(tmp_path / "model", device="cpu").lr_schedule(1.0) == 0.25


def test_b29_what_is_given_to_load_is_in_force(tmp_path: Any) -> None:
    """B29."""
    model_of("pendulum", PPO, optimizer_kwargs={"lr": 1e-3}).save(tmp_path / "model")
    loaded = PPO.load(
        tmp_path / "model", world("pendulum"), "cpu", learning_rate="lin_0.5", gamma=0.5, n_steps=16, clip_range=0.1
    )
    assert (loaded.lr_schedule(0.5), loaded.rollout_buffer.gamma, loaded.clip_range(0.3)) == (0.25, 0.5, 0.1)
    loaded.learn(16)
    assert loaded.num_timesteps == 16


def test_schedules_of_every_kind_are_taken_and_handed_out_as_data() -> None:
    model = model_of("pendulum", PPO, learning_rate=Cosine(1e-3), clip_range=LinearSchedule(0.2, 0.1, 0.5))
    values = model.get_hyperparameters()
    assert values["learning_rate"] == {"kind": "cosine", "start": 1e-3, "end": 0.0, "end_fraction": 1.0}
    assert values["clip_range"] == {"kind": "linear", "start": 0.2, "end": 0.1, "end_fraction": 0.5}
    assert values["clip_range_vf"] is None
    square = np.square
    model.clip_range = square
    assert model.get_hyperparameters()["clip_range"].value_schedule is square


class AtStep(BaseCallback):
    """Assigns in the middle of a rollout."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__()
        self.assignment = (name, value)

    def _on_step(self) -> bool:
        if self.n_calls == 5:
            setattr(self.model, *self.assignment)
        return True


def test_a_callback_may_change_the_length_of_rollouts_which_counts_from_the_next_one() -> None:
    model = model_of("pendulum", PPO, n_steps=16, batch_size=16)
    model.learn(48, callback=AtStep("n_steps", 32))
    assert (model.num_timesteps, model._n_updates, model.rollout_buffer.buffer_size) == (48, 4, 32)


REFUSED: list[tuple[str, Any, str]] = [
    ("gamma", 1.5, r"gamma=1\.5 is outside \[0, 1\]"),
    ("ent_coef", float("nan"), "ent_coef"),
    ("n_epochs", 1.5, "not a whole number"),
    ("n_epochs", "many", "no number"),
    ("batch_size", 0, "batch_size"),
    ("learning_rate", -1.0, "learning_rate"),
    ("learning_rate", "fast", "learning_rate"),
    ("learning_rate", lambda progress: float("nan"), "learning_rate"),
    ("clip_range", 0.0, "clip_range"),
    ("target_kl", 0.0, "target_kl"),
    ("vgs_beta", 1.0, "vgs_beta"),
    ("max_grad_norm", -0.5, "max_grad_norm"),
    ("optimizer_kwargs.sigma", -1.0, "optimizer_kwargs.sigma"),
    ("optimizer_kwargs.sigam", 1.0, "Did you mean 'sigma'"),
    ("optimizer_kwargs.scope", "tensor", "no such number"),
    ("vgs_kwargs.min_scale", 0.0, "vgs_kwargs.min_scale"),
    ("vgs_kwargs.mode", "noise", "no such number"),
    ("kl_penalty.target", -1.0, "kl_penalty.target"),
    ("kl_penalty.kp", 1.0, "no such number"),
    ("n_critics", 3, "part of the architecture"),
    ("gama", 0.9, "Did you mean 'gamma'"),
    ("normalize_advantage", "no", "neither True nor False"),
    ("vgs_kwargs.enabled", 1, "neither True nor False"),
    ("learning_rate", {"kind": "linear", "start": 1e-3, "end": -1e-3}, "learning_rate"),
    ("clip_range", {"kind": "piecewise", "points": [[0.0, 0.2], [0.5, -0.2], [1.0, 0.2]]}, "clip_range"),
    ("value_head.kappa", 1.0, "part of the architecture"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_b29_what_cannot_be_in_force_is_refused_and_nothing_changes(name: str, value: Any, message: str) -> None:
    """B29."""
    model = model_of("pendulum", kl_penalty="doubling")
    before = model.get_hyperparameters()
    groups = [dict(group) for group in model.policy.optimizer.param_groups]
    with pytest.raises(ArgumentError, match=message):
        model.set_hyperparameter(name, value)
    assert model.get_hyperparameters() == before
    assert [group["sigma"] for group in groups] == [group["sigma"] for group in model.policy.optimizer.param_groups]


@pytest.mark.parametrize("name", FIXED)
def test_b29_what_a_built_model_does_not_read_again_cannot_be_assigned(name: str) -> None:
    """B29."""
    model = model_of()
    before = getattr(model, name)
    with pytest.raises(ArgumentError, match=f"{name} cannot change once the model is built"):
        setattr(model, name, None)
    assert getattr(model, name) is before


@pytest.mark.parametrize(
    ("name", "part"), [("vgs_kwargs.eps", "scaling is off"), ("kl_penalty.target", "no KL control")]
)
def test_options_of_a_part_that_is_off_are_refused(name: str, part: str) -> None:
    with pytest.raises(ArgumentError, match=part):
        model_of(algorithm=PPO).set_hyperparameter(name, 0.1)


def test_sizes_that_do_not_fit_together_are_refused_with_sb3s_exceptions() -> None:
    model = model_of(algorithm=PPO)
    with pytest.raises(AssertionError, match="`batch_size` must be greater than 1"):
        model.batch_size = 1
    with pytest.raises(AssertionError, match="`clip_range_vf` must be positive"):
        model.clip_range_vf = -0.1
    with pytest.warns(UserWarning, match="a truncated mini-batch of size 2"):
        model.batch_size = 6
    assert (model.batch_size, model.clip_range_vf) == (6, None)


def test_a_changed_option_is_saved_with_the_model(tmp_path: Any) -> None:
    model = model_of("pendulum", kl_penalty="doubling")
    model.set_hyperparameter("optimizer_kwargs.sigma", 0.25)
    model.set_hyperparameter("vgs_kwargs.min_scale", 0.5)
    model.set_hyperparameter("kl_penalty.target", 0.125)
    model.set_hyperparameter("vgs_alpha", 0.75)
    model.save(tmp_path / "model")
    loaded = DistributionalPPO.load(tmp_path / "model", device="cpu")
    assert loaded.get_hyperparameters() == model.get_hyperparameters()
    assert isinstance(loaded.kl_controller, DoublingPenalty)


def test_numbers_of_numpy_and_tensors_of_one_number_are_numbers() -> None:
    model = model_of(algorithm=PPO)
    model.ent_coef, model.n_epochs = np.float32(0.5), np.int64(3)
    model.set_hyperparameter("gamma", torch.tensor(0.5))
    assert (model.ent_coef, model.n_epochs, model.gamma) == (0.5, 3, 0.5)
    assert {type(value) for value in (model.ent_coef, model.n_epochs, model.gamma)} == {float, int}


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "upgd": {},
    "upgdw": {"betas": (0.8, 0.9)},
    "adaptive_upgd": {"betas": (0.8, 0.9)},
    "adam": {},
    "adamw": {"eps": 1e-6},
    "sgd": {"momentum": 0.5},
}


@pytest.mark.parametrize("optimizer", list(optimizers))
def test_b29_every_option_of_every_optimizer_can_be_set_to_what_it_is_and_to_something_else(optimizer: str) -> None:
    """B29, B8."""
    model = model_of("pendulum", optimizer_class=optimizer, optimizer_kwargs=OPTIMIZERS[optimizer]).learn(32)
    values = model.get_hyperparameters()
    options = [name for name in values if name.startswith("optimizer_kwargs.")]
    assert options
    for name in options:
        model.set_hyperparameter(name, values[name])
    assert model.get_hyperparameters() == values
    for name in options:
        other = tuple(beta / 2 for beta in values[name]) if isinstance(values[name], tuple) else 0.5
        model.set_hyperparameter(name, other)
        assert model.get_hyperparameters()[name] == other
    loaded = through_a_pipe(model)
    assert loaded.get_hyperparameters() == model.get_hyperparameters()
    state = {**model.state_tree().state_dict(), "environments": {}}  # it has none
    loaded.state_tree().load_state_dict(state)
    assert digest(loaded.state_tree().state_dict()) == digest(state)


@pytest.mark.parametrize("place", ["argument", "policy_kwargs"])
def test_b29_a_changed_option_survives_wherever_the_others_came_from(place: str) -> None:
    """B29."""
    given = {"eps": 1e-6}
    arguments = {"optimizer_kwargs": given} if place == "argument" else {"policy_kwargs": {"optimizer_kwargs": given}}
    model = model_of("pendulum", PPO, **arguments)
    model.set_hyperparameter("optimizer_kwargs.weight_decay", 0.5)
    values = through_a_pipe(model).get_hyperparameters()
    assert (values["optimizer_kwargs.weight_decay"], values["optimizer_kwargs.eps"]) == (0.5, 1e-6)


def test_b29_options_given_to_load_are_in_force(tmp_path: Any) -> None:
    """B29."""
    model = model_of("pendulum")
    model.learning_rate = 0.25
    model.save(tmp_path / "model")

    def load(**arguments: Any) -> DistributionalPPO:
        return DistributionalPPO.load(tmp_path / "model", device="cpu", **arguments)

    values = load(optimizer_kwargs={"sigma": 0.5, "lr": 0.125}).get_hyperparameters()
    assert (values["optimizer_kwargs.sigma"], values["learning_rate"]) == (0.5, 0.125)
    values = load(vgs_kwargs={"min_scale": 0.5}, clip_range=0.5).get_hyperparameters()
    assert (values["vgs_kwargs.min_scale"], values["clip_range"]) == (0.5, 0.5)


def test_b8_the_rate_in_force_comes_through_a_state_and_stays(tmp_path: Any) -> None:
    """B8, B9."""
    model = model_of("pendulum", optimizer_kwargs={"lr": 1e-4})
    state = model.state_tree().state_dict()
    other = model_of("pendulum", learning_rate=0.5)
    for each in (model, other):
        each.state_tree().load_state_dict(state)
        assert each.lr_schedule(1.0) == 1e-4
        assert through_a_pipe(each).lr_schedule(1.0) == 1e-4


def test_b8_what_was_changed_on_the_parts_themselves_is_saved() -> None:
    """B8."""
    model = model_of("pendulum", kl_penalty="pid")
    model.variance_gradient_scaler.alpha = 0.75
    model.kl_controller.target = 0.5
    model.set_hyperparameter("vgs_kwargs.enabled", False)
    loaded = through_a_pipe(model)
    assert (loaded.variance_gradient_scaler.alpha, loaded.variance_gradient_scaler.enabled) == (0.75, False)
    assert loaded.kl_controller.target == 0.5


def test_a_rate_that_is_assigned_after_a_restoration_is_meant_as_it_is() -> None:
    model = model_of("pendulum")
    model.divergence_guard.lr_factor = 0.25
    model.learning_rate = 1e-3
    model.learn(32)
    assert model.logger.name_to_value["train/learning_rate"] == 1e-3


def test_several_are_set_where_they_differ_and_what_is_in_force_already_stays_untouched() -> None:
    model = model_of("pendulum", learning_rate="lin_1e-3")
    model.divergence_guard.lr_factor = 0.5
    model.set_hyperparameters({"learning_rate": "lin_1e-3", "optimizer.sigma": 0.002, "gamma": 0.9})
    assert model.divergence_guard.lr_factor == 0.5
    found = model.get_hyperparameters()
    assert (found["optimizer_kwargs.sigma"], found["gamma"]) == (0.002, 0.9)
    model.set_hyperparameters(found)
    assert model.divergence_guard.lr_factor == 0.5
    model.set_hyperparameters({"learning_rate": 1e-3})
    assert model.divergence_guard.lr_factor == 1.0


@pytest.mark.parametrize("name", ["gama", "kl_penalty.target", "policy_kwargs"])
def test_of_several_one_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        model_of("pendulum").set_hyperparameters({name: 1.0})


def test_an_unknown_schedule_is_refused_with_the_name_of_its_hyperparameter() -> None:
    with pytest.raises(ConfigError, match=r"learning_rate: .*linaer"):
        model_of("pendulum").set_hyperparameter("learning_rate", {"kind": "linaer", "start": 1.0})


def test_a_policy_with_groups_of_its_own_can_have_its_options_changed() -> None:
    class TwoGroups(ActorCriticPolicy):
        """Two groups of Adam."""

        def _make_optimizer(self, lr: float) -> torch.optim.Optimizer:
            named = list(self.parameters())
            return torch.optim.Adam([{"params": named[:2]}, {"params": named[2:]}], lr=lr, eps=1e-5)

    model = model_of("pendulum", PPO, TwoGroups)
    model.set_hyperparameter("optimizer_kwargs.eps", 1e-3)
    assert [group["eps"] for group in model.policy.optimizer.param_groups] == [1e-3, 1e-3]


@pytest.mark.parametrize("name", ["gamma", "optimizer_kwargs.eps"])
def test_before_the_model_is_built_there_is_nothing_to_change_by_name(name: str) -> None:
    model = model_of(_init_setup_model=False)
    for ask in (lambda: model.set_hyperparameter(name, 0.5), model.get_hyperparameters):
        with pytest.raises(OrderError, match="not built yet"):
            ask()


def test_learning_without_an_environment_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(OrderError, match=r"set_env\(\), or load\(env=\.\.\.\)"):
        copy.deepcopy(model_of()).learn(32)


def test_b29_custom_objects_go_before_what_was_saved(tmp_path: Any) -> None:
    """B29: SB3's way to load a file with other schedules."""
    model_of("pendulum", PPO).save(tmp_path / "model")
    custom = {"learning_rate": 0.5, "clip_range": lambda progress: 0.1}
    loaded = PPO.load(tmp_path / "model", device="cpu", custom_objects=custom)
    assert (loaded.lr_schedule(1.0), loaded.clip_range(0.5)) == (0.5, 0.1)
