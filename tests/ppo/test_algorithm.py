"""Learning rates, what follows what, and the unit of returns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.testing import assert_close

from everlearn import PPO, AdaptiveUPGD, DistributionalPPO
from everlearn.ppo.loss import Minibatch
from everlearn.ppo.policy import parameters_by_part
from everlearn.ppo.update import EagerRunner
from tests.ppo.updates import learned, minibatch_for, model_of
from tests.ppo.worlds import scripted


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


def test_groups_of_the_scaler_are_the_parts_of_the_policy() -> None:
    model = model_of(vgs_kwargs={"scope": "group"})
    assert {group["label"] for group in parameters_by_part(model.policy)} == {"actor", "critics"}
    actor, critics = 4, 8
    assert model.variance_gradient_scaler.same_scope().sum(1).unique().tolist() == [actor, critics]


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


def test_values_survive_the_transfer_of_the_policys_weights_alone() -> None:
    model, other = model_of("pendulum", seed=0), model_of("pendulum", seed=1)
    model.learn(64)
    other.policy.load_state_dict(model.policy.state_dict())
    observations = minibatch_for(model, 0).observations
    assert torch.equal(other.policy.predict_values(observations), model.policy.predict_values(observations))
