"""Arguments, learning rates, what follows what, and the unit of returns."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.testing import assert_close

from everlearn import PPO, UPGD, AdaptiveUPGD, DistributionalPPO
from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.ppo.policy import parameters_by_part
from everlearn.ppo.update import EagerRunner, Minibatch
from tests.ppo.updates import learned, minibatch_for, model_of
from tests.ppo.worlds import scripted, world

NAN = math.nan


class AtRolloutStart(BaseCallback):
    """Notes something of the model whenever a rollout begins."""

    def __init__(self, look: Callable[[PPO], Any]) -> None:
        super().__init__()
        self._look = look
        self.seen: list[Any] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.seen.append(self._look(self.model))


# --- arguments --------------------------------------------------------------------------------------------------------


def test_sb3s_arguments_come_first_in_sb3s_order_with_sb3s_defaults_and_ours_by_keyword_only() -> None:
    theirs = inspect.signature(stable_baselines3.PPO).parameters.values()
    ours = list(inspect.signature(PPO).parameters.values())
    assert [(p.name, p.default, p.kind) for p in ours[: len(theirs)]] == [(p.name, p.default, p.kind) for p in theirs]
    assert {parameter.kind for parameter in ours[len(theirs) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_defaults_of_ppo_are_sb3s() -> None:
    model = PPO("MlpPolicy", world("cartpole"), device="cpu")
    assert (model.value_head, model.n_critics, model.critic_reduction) == ("scalar", 1, "mean")
    assert (model.normalize_returns, model.variance_gradient_scaling) == (False, False)
    assert (model.policy.return_scale, model.variance_gradient_scaler) == (None, None)
    assert type(model.policy.optimizer) is torch.optim.Adam
    assert model.policy.optimizer.defaults["eps"] == 1e-5


def test_the_defaults_of_distributional_ppo_are_the_system_switched_on() -> None:
    model = DistributionalPPO("MlpPolicy", world("cartpole"), device="cpu")
    assert (model.policy.ensemble.head.n_outputs, model.n_critics, model.critic_reduction) == (32, 2, "mean")
    assert model.policy.return_scale is not None
    scaler = model.variance_gradient_scaler
    assert (scaler.beta, scaler.alpha, scaler.warmup_steps, scaler.mode) == (0.99, 0.1, 100, "relative")
    optimizer = model.policy.optimizer
    assert type(optimizer) is AdaptiveUPGD
    assert (optimizer.defaults["eps"], optimizer.defaults["scope"]) == (1e-5, "group")


def test_arguments_of_the_scaler_and_the_optimizer_arrive() -> None:
    model = model_of(
        vgs_beta=0.9,
        vgs_alpha=0.2,
        vgs_warmup_steps=7,
        vgs_kwargs={"min_scale": 0.3, "scope": "group"},
        optimizer_class="UPGD",
        optimizer_kwargs={"sigma": 0.02},
    )
    scaler = model.variance_gradient_scaler
    assert (scaler.beta, scaler.alpha, scaler.warmup_steps) == (0.9, 0.2, 7)
    assert (scaler.min_scale, scaler.scope, scaler.mode) == (0.3, "group", "relative")
    assert type(model.policy.optimizer) is UPGD
    assert model.policy.optimizer.defaults["sigma"] == 0.02


@pytest.mark.parametrize(
    ("argument", "in_policy"),
    [("optimizer_class", {"optimizer_class": torch.optim.Adam}), ("optimizer_kwargs", {"optimizer_kwargs": {}})],
)
def test_an_optimizer_given_twice_is_an_error(argument: str, in_policy: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{argument} is given twice: as an argument and in policy_kwargs"):
        model_of(policy_kwargs=in_policy, **{argument: {"optimizer_class": "adam", "optimizer_kwargs": {}}[argument]})


def test_an_optimizer_in_policy_kwargs_is_honoured() -> None:
    given = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}}
    optimizer = model_of(policy_kwargs=given).policy.optimizer
    assert (type(optimizer), optimizer.defaults["momentum"]) == (torch.optim.SGD, 0.5)


@pytest.mark.parametrize("name", ["value_head", "n_critics", "critic_reduction", "normalize_returns"])
def test_critics_in_policy_kwargs_are_refused_with_their_place(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}.* in policy_kwargs: give these as arguments of the algorithm"):
        model_of(policy_kwargs={name: "min" if name == "critic_reduction" else 1})


def test_the_callers_mappings_stay_as_they_are() -> None:
    given = {
        "policy_kwargs": {"net_arch": [8], "activation_fn": nn.ReLU},
        "optimizer_kwargs": {"lr": 1e-3},
        "vgs_kwargs": {"min_scale": 0.2},
        "value_head": {"kind": "quantile", "n_quantiles": 4},
    }
    before = copy.deepcopy(given)
    model = DistributionalPPO("MlpPolicy", world("cartpole"), device="cpu", n_steps=64, **given)
    model.learn(64)
    assert given == before
    assert model.policy_kwargs == before["policy_kwargs"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_range", -1.0),
        ("clip_range", 0.0),
        ("clip_range", lambda progress: NAN),
        ("gamma", 5.0),
        ("gamma", -0.1),
        ("gae_lambda", 1.1),
        ("learning_rate", -1e-3),
        ("learning_rate", lambda progress: -progress),
        ("vf_coef", -0.5),
        ("max_grad_norm", -1.0),
        ("target_kl", 0.0),
        ("n_steps", 0),
        ("batch_size", 0),
        ("n_epochs", 0),
        ("n_critics", 0),
        *((name, NAN) for name in ("learning_rate", "gamma", "gae_lambda", "clip_range", "ent_coef", "vf_coef")),
        *((name, NAN) for name in ("max_grad_norm", "target_kl")),
        ("ent_coef", math.inf),
        ("n_epochs", math.inf),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{name}(\(1.0\))?=.* is outside .* Choose a value inside this range"):
        model_of(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("vgs_beta", 1.5), ("vgs_alpha", -1.0), ("vgs_warmup_steps", -1)])
def test_numbers_of_the_scaler_are_refused_too(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name.removeprefix('vgs_')}="):
        model_of(**{name: value})


@pytest.mark.parametrize(
    "limits",
    [
        {"max_grad_norm": math.inf},
        {"gamma": 1.0, "gae_lambda": 0.0},
        {"ent_coef": -0.1},
        {"clip_range": lambda progress: 1.0 - progress, "learning_rate": lambda progress: 1.0 - progress},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(limits: dict[str, Any]) -> None:
    assert model_of(**limits).learn(32).skipped_updates == 0


@pytest.mark.parametrize("arguments", [{"batch_size": 1}, {"n_steps": 1, "batch_size": 2}, {"clip_range_vf": -0.1}])
def test_where_sb3_asserts_its_assertion_is_raised(arguments: dict[str, Any]) -> None:
    for algorithm in (stable_baselines3.PPO, PPO, DistributionalPPO):
        with pytest.raises(AssertionError):
            algorithm("MlpPolicy", world("cartpole"), device="cpu", **arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"optimizer_kwargs": {"sigmma": 0.1}}, "sigmma: unknown key. Did you mean 'sigma'"),
        ({"optimizer_class": "adaptive_ugpd"}, "Did you mean 'adaptive_upgd'"),
        ({"critic_reduction": "median"}, "There is no critic reduction 'median'"),
    ],
)
def test_misspelt_names_are_refused_with_a_suggestion(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        model_of(**arguments)


# --- learning rates ---------------------------------------------------------------------------------------------------


def rates(model: PPO) -> list[float]:
    return [group["lr"] for group in model.policy.optimizer.param_groups]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "upgd", "adaptive_upgd"])
@pytest.mark.parametrize("place", ["argument", "policy_kwargs"])
def test_b9_the_rate_in_optimizer_kwargs_is_in_force_after_ten_updates(optimizer: str, place: str) -> None:
    """B9."""
    options = {"optimizer_kwargs": {"lr": 7e-4}}
    given = options if place == "argument" else {"policy_kwargs": options}
    model = model_of(learning_rate=1e-2, optimizer_class=optimizer, n_epochs=6, **given)
    assert set(rates(model)) == {7e-4}
    model.learn(64)
    assert model._n_updates == 12
    assert set(rates(model)) == {7e-4}
    assert model.logger.name_to_value["train/learning_rate"] == 7e-4


def test_b9_without_one_the_schedule_rules() -> None:
    """B9."""
    model = model_of(learning_rate=lambda progress: 1e-3 * progress)
    callback = AtRolloutStart(rates)
    model.learn(4 * 32, callback=callback)
    assert [set(seen) for seen in callback.seen] == [{1e-3}, {7.5e-4}, {5e-4}, {2.5e-4}]
    assert set(rates(model)) == {0.0}


def test_b13_each_group_follows_the_schedule_times_its_own_scale() -> None:
    """B13."""
    model = model_of(learning_rate=lambda progress: 1e-3 * (1 + progress))
    for index, group in enumerate(model.policy.optimizer.param_groups):
        group["lr_scale"] = 0.5**index
    model.learn(2 * 32)
    assert rates(model) == pytest.approx([1e-3 * 0.5**index for index in range(len(rates(model)))])


def test_b13_a_group_without_rate_stays_where_it_is_and_the_others_move() -> None:
    """B13."""
    model = model_of(learning_rate=1e-2)
    frozen, *others = model.policy.optimizer.param_groups
    frozen["lr_scale"] = 0.0
    before = learned(model)["parameters"]
    model.learn(32)
    still = {id(parameter) for parameter in frozen["params"]}
    for name, parameter in model.policy.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) in still)
    assert others


# --- what follows what ------------------------------------------------------------------------------------------------


def test_b4_the_scaler_follows_a_new_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """B4."""
    model = model_of()
    model.learn(32)
    handed: list[torch.Tensor] = []
    optimizer = AdaptiveUPGD(model.policy.parameters(), lr=1e-3)
    monkeypatch.setattr(optimizer, "scale_next_step", lambda parameters, factors: handed.append(factors))
    model.policy.optimizer = optimizer
    model.learn(32)
    assert len(handed) == 4, "once for each update"


def test_b4_the_scaler_follows_new_parameters_and_keeps_its_statistics() -> None:
    """B4."""
    model = model_of()
    model.learn(32)
    model.policy.action_net = nn.Linear(8, 2)
    model.policy.optimizer = AdaptiveUPGD(model.policy.parameters(), lr=1e-3)
    model.learn(32)
    scaler = model.variance_gradient_scaler
    assert {id(held) for held in scaler.parameters} == {id(own) for own in model.policy.parameters()}
    assert (scaler.step_count, scaler.resets) == (8, 0)


def test_b4_parameters_of_another_shape_reset_the_statistics_with_a_warning() -> None:
    """B4."""
    model = model_of()
    model.learn(32)
    model.policy.action_net = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 2))
    model.policy.optimizer = AdaptiveUPGD(model.policy.parameters(), lr=1e-3)
    with pytest.warns(UserWarning, match="the statistics of 4 steps are lost"):
        model.learn(32)
    assert (model.variance_gradient_scaler.step_count, model.variance_gradient_scaler.resets) == (4, 1)


def test_b4_a_new_policy_is_the_one_that_learns() -> None:
    """B4."""
    model = model_of()
    model.learn(32)
    old, new = model.policy, copy.deepcopy(model.policy)
    model.policy = new
    before = copy.deepcopy(old.state_dict())
    model.learn(32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in old.state_dict().items())
    assert all(not torch.equal(parameter, before[name]) for name, parameter in new.named_parameters())


# --- the unit of returns ----------------------------------------------------------------------------------------------


def unit(model: PPO) -> tuple[float, float]:
    return model.policy.return_scale.mean.item(), model.policy.return_scale.std.item()


def test_the_unit_moves_between_rollouts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("pendulum", n_epochs=3)
    during: list[list[tuple[float, float]]] = []
    original = EagerRunner.update

    def watched(self: EagerRunner, *args: Any) -> Any:
        during[-1].append(unit(model))
        return original(self, *args)

    def look(model: PPO) -> tuple[float, float]:
        during.append([])
        return unit(model)

    monkeypatch.setattr(EagerRunner, "update", watched)
    callback = AtRolloutStart(look)
    model.learn(4 * 32, callback=callback)
    at_start = callback.seen
    assert at_start[0] == (0.0, 1.0)
    assert all(set(units) == {start} for start, units in zip(at_start[1:], during[1:], strict=True))
    assert len(set(during[0])) == 1, "after the first rollout it moved once, before the first update"
    assert len({*at_start, unit(model)}) == 5, "and at every clean point, that of the end included"


def test_the_first_rollout_sets_the_unit_in_which_critics_are_given_its_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[torch.Tensor] = []
    original = EagerRunner.update

    def watched(self: EagerRunner, minibatch: Minibatch, *args: Any) -> Any:
        given.append(minibatch.returns)
        return original(self, minibatch, *args)

    monkeypatch.setattr(EagerRunner, "update", watched)
    model = model_of("pendulum", n_epochs=1)
    model.learn(32)
    returns = model.rollout_buffer.returns
    assert unit(model) == pytest.approx((returns.mean(), returns.std()), rel=1e-4)
    assert torch.cat(given).mean().item() == pytest.approx(0.0, abs=1e-4)
    assert torch.cat(given).std(correction=0).item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("head", ["scalar", "quantile"])
def test_predictions_in_reward_units_survive_a_move_of_the_unit(head: str) -> None:
    model = model_of("pendulum", value_head=head, n_critics=3)
    model.learn(32)
    observations = minibatch_for(model, 0).observations
    before, old_unit = model.policy.predict_values(observations), unit(model)
    model.policy.return_scale.observe(100 + 50 * torch.randn(64))
    assert torch.equal(model.policy.predict_values(observations), before)
    model.learn(0, reset_num_timesteps=False)
    assert unit(model) != old_unit
    assert_close(model.policy.predict_values(observations), before, rtol=1e-4, atol=1e-3)


def test_critics_learn_returns_of_any_size() -> None:
    """Returns of 2,000 for critics that start near zero and take small steps."""
    model = DistributionalPPO("MlpPolicy", scripted([(1e3, "goes on")]), n_steps=64, gamma=0.5, seed=0, device="cpu")
    model.learn(6 * 64)
    assert model.logger.name_to_value["critics/value_mean"] == pytest.approx(2000.0, rel=0.1)


def test_vgs_kwargs_add_to_the_classs_defaults():
    model = DistributionalPPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu", vgs_kwargs={"min_scale": 0.2})
    assert (model.variance_gradient_scaler.mode, model.variance_gradient_scaler.min_scale) == ("relative", 0.2)


def test_groups_of_the_scaler_are_the_parts_of_the_policy():
    model = DistributionalPPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu", vgs_kwargs={"scope": "group"})
    labels = {label for group in parameters_by_part(model.policy) for label in [group["label"]]}
    assert labels == {"actor", "critics"}
    assert model.variance_gradient_scaler.same_scope().sum(1).unique().tolist() == [6.0, 12.0]


def test_critics_described_in_policy_kwargs_are_refused():
    with pytest.raises(ArgumentError, match=r"n_critics.*arguments of the algorithm"):
        DistributionalPPO("MlpPolicy", "CartPole-v1", device="cpu", policy_kwargs={"n_critics": 3})


def test_a_model_keeps_its_optimizer_whichever_class_loads_it(tmp_path):
    model = DistributionalPPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu")
    model.save(tmp_path / "model")
    assert isinstance(PPO.load(tmp_path / "model", device="cpu").policy.optimizer, AdaptiveUPGD)


def test_values_survive_the_transfer_of_the_policys_weights_alone():
    model, other = (DistributionalPPO("MlpPolicy", "Pendulum-v1", n_steps=64, device="cpu", seed=s) for s in (0, 1))
    model.learn(128)
    other.policy.load_state_dict(model.policy.state_dict())
    observation = torch.randn(5, 3)
    assert torch.equal(model.policy.predict_values(observation), other.policy.predict_values(observation))


def test_a_clip_range_that_warms_up_from_zero_is_accepted():
    PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu", clip_range=lambda remaining: 0.2 * (1 - remaining))
