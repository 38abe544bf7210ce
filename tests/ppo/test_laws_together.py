"""Laws of the parts together that only a whole model can break: learning rates, first ratios, changing critics."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor

from everlearn.ppo.loss import Minibatch
from everlearn.ppo.update import EagerRunner
from tests.ppo.together import assert_finite, everything
from tests.ppo.updates import coefficients_of, learned, minibatch_for, model_of, runner_of

OPTIMIZERS = ["adam", "adamw", "adaptive_upgd", "upgdw", "upgd", "sgd"]


class Rates(BaseCallback):
    """Notes the learning rates of all groups, and the scaler's factor, whenever a rollout begins."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.seen.append([group["lr"] for group in self.model.policy.optimizer.param_groups])


@pytest.mark.parametrize("optimizer", ["adam", "adaptive_upgd", "upgd"])
@pytest.mark.parametrize("schedule", [LinearSchedule(1e-3, 1e-4, 1.0), lambda progress: 1e-3 * progress**2])
def test_b18_learning_rates_follow_sb3s_schedules_as_without_variance_scaling(optimizer: str, schedule: Any) -> None:
    """B18."""
    rates = []
    for scaling in (True, False):
        model = model_of(
            learning_rate=schedule,
            optimizer_class=optimizer,
            variance_gradient_scaling=scaling,
            **({"vgs_warmup_steps": 2, "vgs_kwargs": {"mode": "noise"}} if scaling else {}),
        )
        callback = Rates()
        model.learn(3 * 32, callback=callback)
        rates.append([*callback.seen, [group["lr"] for group in model.policy.optimizer.param_groups]])
        if scaling:
            assert model.variance_gradient_scaler.get_scaling_factor() < 0.9
    assert rates[0] == rates[1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_b20_variance_scaling_shortens_the_steps_of_every_optimizer(optimizer: str) -> None:
    """B20: also of those that normalise their gradients."""
    distances = []
    for scaling in (True, False):
        model = model_of(
            optimizer_class=optimizer,
            optimizer_kwargs={"lr": 1e-3, **({"sigma": 0.0} if "upgd" in optimizer else {})},
            variance_gradient_scaling=scaling,
            **({"vgs_warmup_steps": 0, "vgs_kwargs": {"mode": "noise"}} if scaling else {}),
        )
        runner, distance = runner_of(model), 0.0
        for seed in range(16):
            before = learned(model)["parameters"]
            runner.update(minibatch_for(model, seed), coefficients_of(max_grad_norm=100.0))
            moved = zip(before.values(), model.policy.parameters(), strict=True)
            distance += sum((new.detach() - old).norm().item() for old, new in moved)
        distances.append(distance)
    assert distances[0] < 0.8 * distances[1]


@pytest.mark.parametrize("place", ["cartpole", "pendulum"])
def test_b24_the_first_ratios_are_one(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """B24: of every sample of the first epoch's only minibatch, in every rollout."""
    ratios: list[Tensor] = []
    original = EagerRunner.update

    def watched(self: EagerRunner, minibatch: Minibatch, *args: Any) -> Any:
        with torch.no_grad():
            evaluation = self.evaluator(minibatch.observations, minibatch.actions)
        ratios.append((evaluation.log_prob - minibatch.old_log_prob).exp())
        return original(self, minibatch, *args)

    monkeypatch.setattr(EagerRunner, "update", watched)
    model = model_of(place, batch_size=32, n_epochs=2, learning_rate=1e-2)
    model.learn(3 * 32)
    first, second = ratios[::2], ratios[1::2]
    assert [len(ratio) for ratio in first] == [32] * 3
    assert all(ratio.tolist() == pytest.approx([1.0] * 32, abs=1e-5) for ratio in first)
    assert all((ratio - 1).abs().max() > 1e-3 for ratio in second), "after an update they are not"


MUTATIONS: list[dict[str, Any]] = [
    {"learning_rate": 1e-2, "vf_coef": 2.0},
    {"clip_range_vf": 0.01, "gamma": 0.8},
    {"learning_rate": 1e-6, "gae_lambda": 0.5, "vgs_alpha": 2.0},
    {"clip_range_vf": None, "vf_coef": 0.0, "ent_coef": 0.1},
    {"learning_rate": 0.1, "vf_coef": 100.0, "max_grad_norm": 10.0},
]
CRITICS: dict[str, dict[str, Any]] = {
    "scalar": {"value_head": "scalar"},
    "quantile": {},
    "categorical": {"value_head": "categorical", "n_critics": 3, "critic_reduction": "min"},
}


@pytest.mark.parametrize("kind", CRITICS)
def test_b43_critics_under_changing_hyperparameters_stay_finite_and_their_disagreement_is_logged(kind: str) -> None:
    """B43."""
    model = everything(**CRITICS[kind], n_epochs=4)
    model.learn(32)
    seen = [model.logger.name_to_value["critics/disagreement"]]
    for changes in MUTATIONS:
        for name, value in changes.items():
            model.set_hyperparameter(name, value)
        model.learn(2 * 32, reset_num_timesteps=False)
        assert_finite(model)
        assert model.skipped_updates == 0
        seen.append(model.logger.name_to_value["critics/disagreement"])
    assert all(math.isfinite(value) and value > 0 for value in seen), seen
    assert len(set(seen)) == len(seen), "it is measured anew after each rollout"


def test_b43_the_logged_disagreement_is_that_of_the_critics_in_reward_units() -> None:
    """B43."""
    model = everything(learning_rate=0.0)  # after which the critics are those that were logged
    model.learn(32)
    observations = torch.as_tensor(model.rollout_buffer.observations.reshape(-1, 3))
    with torch.no_grad():
        first, second = model.policy.predict_distributions(observations)
    expected = (first.mean - second.mean).abs().mean() / 2 * model.policy.return_scale.std
    assert model.logger.name_to_value["critics/disagreement"] == pytest.approx(expected.item(), rel=1e-4)
