"""A model with KL control: what enters the loss, what reaches the controller, what it changes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Laplace

from everlearn import PPO, DistributionalPPO
from everlearn.core.errors import ArgumentError
from everlearn.ppo.action_kl import action_parameters
from everlearn.ppo.kl import KLControl, PIDPenalty
from everlearn.ppo.loss import mean_kl, ppo_loss
from everlearn.ppo.rollout import read_rollout, recover_behaviour, rollout_kl
from tests.ppo.updates import assert_identical, coefficients_of, learned, minibatch_for, model_of

PLACES = ["cartpole", "pendulum", "scripted, several numbers", "scripted, switches"]


class Recorder(KLControl):
    """Remembers what it is shown."""

    def __init__(self, coefficient: float | None = None, lr_factor: float = 1.0) -> None:
        super().__init__(0.01)
        self.seen: list[float] = []
        self._answers = (coefficient, lr_factor)

    @property
    def coefficient(self) -> float | None:
        return self._answers[0]

    @property
    def lr_factor(self) -> float:
        return self._answers[1]

    def _move(self, kl: float) -> None:
        self.seen.append(kl)


@pytest.mark.parametrize(("place", "use_sde"), [*((place, False) for place in PLACES), ("pendulum", True)])
def test_b22_the_penalty_is_the_exact_divergence_and_pulls_the_actor_back(place: str, use_sde: bool) -> None:
    """R6."""
    model = model_of(place, PPO, use_sde=use_sde)
    samples = minibatch_for(model, 0)
    with torch.no_grad():
        before = action_parameters(model.evaluator(samples.observations, samples.actions).action_distribution)
        for parameter in model.policy.action_net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    samples = samples._replace(old_action_parameters=before)
    evaluation = model.evaluator(samples.observations, samples.actions)
    plain, _ = ppo_loss(evaluation, samples, coefficients_of(), model.evaluator.ensemble)
    loss, stats = ppo_loss(evaluation, samples, coefficients_of(kl_coef=2.5), model.evaluator.ensemble)
    divergence = mean_kl(evaluation, samples)
    assert divergence > 1e-3
    assert torch.isclose(loss, plain + 2.5 * divergence)
    assert stats["kl"] == divergence
    for _ in range(300):
        model.policy.zero_grad()
        mean_kl(model.evaluator(samples.observations, samples.actions), samples).backward()
        with torch.no_grad():
            for parameter in model.policy.action_net.parameters():
                parameter -= 0.3 * parameter.grad
    assert mean_kl(model.evaluator(samples.observations, samples.actions), samples) < divergence / 10


def test_without_a_closed_form_the_estimate_k3_stands_in() -> None:
    model = model_of("pendulum", PPO)
    samples = minibatch_for(model, 0)
    evaluation = model.evaluator(samples.observations, samples.actions)
    evaluation = evaluation._replace(action_distribution=Laplace(torch.zeros(1), torch.ones(1)))
    log_ratio = evaluation.log_prob - samples.old_log_prob
    assert torch.isclose(mean_kl(evaluation, samples), (log_ratio.exp() - 1 - log_ratio).mean())


def test_without_control_the_loss_has_no_such_term() -> None:
    model = model_of("pendulum", PPO)
    samples = minibatch_for(model, 0)
    _, stats = ppo_loss(
        model.evaluator(samples.observations, samples.actions), samples, coefficients_of(), model.evaluator.ensemble
    )
    assert "kl" not in stats


@pytest.mark.parametrize("place", PLACES)
def test_the_controller_sees_the_divergence_of_the_whole_rollout_once_per_rollout(place: str) -> None:
    """R6."""
    model = model_of(place, PPO, kl_penalty=Recorder(), learning_rate=3e-3)
    model.learn(64)
    assert len(model.kl_controller.seen) == 2
    rollout = read_rollout(model.rollout_buffer, model.action_space)
    assert model.logger.name_to_value["kl/divergence"] == model.kl_controller.seen[-1] > 0
    parameters = recover_behaviour(model.evaluator, rollout).action_parameters
    now = rollout_kl(
        model.evaluator, type(rollout)(rollout.samples._replace(old_action_parameters=parameters), *vars_of(rollout))
    )
    assert now == pytest.approx(0.0, abs=1e-7), "against itself"


def vars_of(rollout: Any) -> tuple[Any, Any]:
    return rollout.values, rollout.raw_returns


def test_a_strong_penalty_holds_the_policy_where_it_was() -> None:
    """R6."""
    moved = [
        model_of("pendulum", PPO, kl_penalty=Recorder(coefficient), learning_rate=1e-2, n_epochs=10).learn(32)
        for coefficient in (None, 1000.0)
    ]
    free, held = (model.kl_controller.seen[0] for model in moved)
    assert held < free / 5


def test_a_penalty_of_nothing_changes_nothing() -> None:
    models = [
        model_of("pendulum", DistributionalPPO, kl_penalty=control).learn(64) for control in (None, Recorder(0.0))
    ]
    assert_identical(learned(models[1]), learned(models[0]))


def test_the_learning_rate_follows_the_controller() -> None:
    model = model_of("pendulum", PPO, kl_penalty=Recorder(lr_factor=0.25), learning_rate=1e-3).learn(32)
    assert model.policy.optimizer.param_groups[0]["lr"] == 2.5e-4
    assert model.logger.name_to_value["train/learning_rate"] == 2.5e-4


def test_early_stopping_is_target_kl() -> None:
    """R6."""
    arguments = {"learning_rate": 3e-2, "n_epochs": 10}
    by_argument = model_of("pendulum", PPO, target_kl=0.005, **arguments).learn(64)
    by_control = model_of("pendulum", PPO, kl_penalty={"kind": "early_stop", "target": 0.005}, **arguments).learn(64)
    assert by_argument._n_updates == by_control._n_updates < 20
    assert_identical(learned(by_control), learned(by_argument))
    by_control.target_kl = None
    with pytest.raises(ArgumentError, match=r"target_kl=0\.1 and the kl_penalty KLEarlyStop both stop"):
        by_control.target_kl = 0.1
    with pytest.raises(ArgumentError, match=r"target_kl=0\.1 and the kl_penalty KLEarlyStop both stop"):
        model_of("pendulum", PPO, target_kl=0.1, kl_penalty="early_stop")


@pytest.mark.parametrize("kind", ["pid", "doubling"])
def test_in_training_the_coefficient_rises_and_falls_with_the_divergence(kind: str) -> None:
    """R6."""
    model = model_of("pendulum", PPO, kl_penalty={"kind": kind, "target": 1e-6}, learning_rate=3e-3)
    model.learn(4 * 32)
    high = model.logger.name_to_value["kl/coefficient"]
    assert high > 0.2
    model.set_hyperparameter("kl_penalty.target", 10.0)
    model.learn(8 * 32, reset_num_timesteps=False)
    assert model.logger.name_to_value["kl/coefficient"] < 0.2 < high


def test_an_object_given_to_two_models_is_copied_for_each() -> None:
    control = PIDPenalty()
    models = [model_of("pendulum", PPO, kl_penalty=control) for _ in range(2)]
    models[0].learn(32)
    assert models[0].kl_controller.state_dict() != models[1].kl_controller.state_dict() == control.state_dict()


def test_a_policy_of_the_users_own_is_controlled_by_the_estimate() -> None:
    from stable_baselines3.common.policies import ActorCriticPolicy

    model = model_of("pendulum", PPO, ActorCriticPolicy, kl_penalty=True, learning_rate=1e-3)
    model.learn(64)
    assert math.isfinite(model.logger.name_to_value["kl/divergence"])


def test_the_divergence_is_measured_in_evaluation_mode() -> None:
    modes = []

    class Watching(Recorder):
        """Notes the mode of the policy that it is shown the divergence of."""

        def _move(self, kl: float) -> None:
            modes.append(model.policy.training)

        def __deepcopy__(self, memo: Any) -> Recorder:
            return self

    model = model_of("pendulum", PPO, kl_penalty=Watching())
    model.learn(64)
    assert modes == [False, False]
