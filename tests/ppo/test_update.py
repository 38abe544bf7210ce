"""The loss in numbers, and the eager runner: what one update does, in which order, and when it does nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from everlearn import PPO
from everlearn.gradients.functional import FunctionalScaler
from everlearn.ppo import update
from everlearn.ppo.loss import Minibatch, ppo_loss
from everlearn.ppo.policy import Evaluation
from everlearn.ppo.update import unchecked_distributions
from everlearn.values import CriticEnsemble, ScalarHead, clipped_prediction_loss, reductions
from tests.ppo.updates import (
    TensorsOf,
    assert_identical,
    coefficients_of,
    learned,
    leaves,
    minibatch_for,
    model_of,
    runner_of,
    with_infinite_loss,
    with_nan_gradient,
    with_nan_loss,
)
from tests.ppo.worlds import scripted

ONE_CRITIC = CriticEnsemble(ScalarHead(), reductions.build("mean"), value_clipping=clipped_prediction_loss)


def evaluation_of(ratios: list[float], values: list[float], entropy: list[float] | None) -> Evaluation:
    """With old log-probabilities of ln 1/2."""
    log_prob = torch.log(torch.tensor(ratios) * 0.5)
    distributions = ONE_CRITIC.distributions([torch.tensor(values).unsqueeze(1)])
    return Evaluation(log_prob, None if entropy is None else torch.tensor(entropy), distributions)


def samples_of(advantages: list[float], returns: list[float], old_values: list[float]) -> Minibatch:
    size = len(advantages)
    return Minibatch(
        torch.zeros(size, 1),
        torch.zeros(size),
        torch.full((size,), math.log(0.5)),
        torch.tensor(advantages),
        torch.tensor(returns),
        torch.tensor(old_values).unsqueeze(1),
    )


def loss_of(evaluation: Evaluation, samples: Minibatch, **coefficients: Any) -> tuple[float, dict[str, float]]:
    numbers = coefficients_of(**{"normalize_advantage": False, "ent_coef": 0.1, **coefficients})
    loss, stats = ppo_loss(evaluation, samples, numbers, ONE_CRITIC)
    return loss.item(), {name: value.item() for name, value in stats.items()}


def test_the_loss_by_hand() -> None:
    loss, stats = loss_of(
        evaluation_of([1.5, 0.5], [1.0, 2.0], [0.5, 1.5]), samples_of([1.0, -1.0], [2.0, 4.0], [0.0, 3.0])
    )
    # surrogates: min(1.5, 1.2) = 1.2 and min(-0.5, -0.8) = -0.8; squared errors: 1 and 4
    assert stats["policy_gradient_loss"] == pytest.approx(-0.2)
    assert stats["value_loss"] == pytest.approx(2.5)
    assert stats["entropy_loss"] == pytest.approx(-1.0)
    assert stats["clip_fraction"] == 1.0
    assert stats["approx_kl"] == pytest.approx(0.143841, abs=1e-6)
    assert loss == stats["loss"] == pytest.approx(0.95)  # -0.2 + 0.1 * -1 + 0.5 * 2.5


def test_the_clipped_value_loss_by_hand() -> None:
    _, stats = loss_of(
        evaluation_of([1.0, 1.0], [1.0, 2.0], [0.0, 0.0]),
        samples_of([1.0, -1.0], [2.0, 4.0], [0.0, 3.0]),
        clip_range_vf=0.5,
    )
    assert stats["value_loss"] == pytest.approx(2.25)  # predictions 0.5 and 2.5, returns 2 and 4


def test_normalised_advantages_by_hand() -> None:
    _, stats = loss_of(
        evaluation_of([1.1, 0.9], [0.0, 0.0], [0.0, 0.0]),
        samples_of([1.0, 3.0], [0.0, 0.0], [0.0, 0.0]),
        normalize_advantage=True,
    )
    assert stats["policy_gradient_loss"] == pytest.approx(0.0707107, abs=1e-6)  # advantages -1/sqrt 2 and 1/sqrt 2


def test_without_a_closed_form_the_entropy_is_estimated_from_log_probabilities() -> None:
    _, stats = loss_of(evaluation_of([2.0, 2.0], [0.0, 0.0], None), samples_of([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]))
    assert stats["entropy_loss"] == pytest.approx(0.0, abs=1e-7)  # the actions have probability 1


def test_b40_a_batch_of_one_keeps_its_advantage() -> None:
    """B40."""
    _, stats = loss_of(evaluation_of([1.0], [1.0], [0.0]), samples_of([3.0], [2.0], [1.0]), normalize_advantage=True)
    assert stats["policy_gradient_loss"] == -3.0


def test_an_update_descends_the_loss() -> None:
    model = model_of("pendulum", optimizer_kwargs={"lr": 1e-2, "sigma": 0.0})
    runner, minibatch = runner_of(model), minibatch_for(model, 0)
    losses = [runner.update(minibatch, coefficients_of())[0]["loss"].item() for _ in range(20)]
    assert losses[-1] < losses[0] - 0.05


# --- order ------------------------------------------------------------------------------------------------------------


class Order:
    """The calls of one update, in order, each going through to the real thing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self._monkeypatch = monkeypatch

    def watch(self, holder: Any, method: str, label: str) -> None:
        original: Callable[..., Any] = getattr(holder, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(label)
            return original(*args, **kwargs)

        self._monkeypatch.setattr(holder, method, watched)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    return Order(monkeypatch)


def test_b46_eager_backward_scale_clip_step_commit_once_each_per_minibatch(order: Order) -> None:
    """B46."""
    model = model_of()
    order.watch(Tensor, "backward", "backward")
    order.watch(model.variance_gradient_scaler, "scale_gradients", "scale")
    order.watch(update, "clip_by_global_norm_", "clip")
    order.watch(model.policy.optimizer, "step", "step")
    order.watch(model.variance_gradient_scaler, "step", "commit")
    model.learn(32)
    epochs, minibatches = 2, 2
    assert order.calls == ["backward", "scale", "clip", "step", "commit"] * epochs * minibatches
    assert model.variance_gradient_scaler.step_count == epochs * minibatches


def test_b46_functional_scale_clip_step_commit_once_each_per_update(order: Order) -> None:
    """B46."""
    tensors = TensorsOf(model_of())
    order.watch(FunctionalScaler, "factors", "scale")
    order.watch(update, "clip_by_global_norm_", "clip")
    order.watch(tensors.optimizer, "step_", "step")
    order.watch(FunctionalScaler, "observe_", "commit")
    tensors.step(*tensors.inputs(minibatch_for(tensors.model, 0), coefficients_of(), tensors.next_noise()))
    assert order.calls == ["scale", "clip", "step", "commit"]


def test_the_scaler_measures_gradients_before_they_are_clipped() -> None:
    model = model_of()
    runner_of(model).update(minibatch_for(model, 0), coefficients_of(max_grad_norm=1e-3))
    assert model.variance_gradient_scaler.grad_norm_ema > 0.1
    gradients = [parameter.grad for parameter in model.policy.parameters()]
    assert torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients])) <= 1.001e-3


def test_gradients_of_the_update_before_are_gone() -> None:
    twice, once = model_of(algorithm=PPO, optimizer_class="sgd"), model_of(algorithm=PPO, optimizer_class="sgd")
    minibatch = minibatch_for(once, 0)
    for parameter in twice.policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    for model in (twice, once):
        runner_of(model).update(minibatch, coefficients_of())
    assert_identical(learned(twice), learned(once))


# --- updates that do nothing ------------------------------------------------------------------------------------------


BUILDS: dict[str, dict[str, Any]] = {
    "everything": {},
    "VGS on the gradient": {"optimizer_class": "upgd"},
    "VGS around a foreign step": {"optimizer_class": "adam", "value_head": "scalar"},
    "plain": {"algorithm": PPO},
}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("spoil", [with_nan_loss, with_infinite_loss, with_nan_gradient])
def test_an_update_that_is_not_finite_leaves_every_bit(build: str, spoil: Callable[[Minibatch], Minibatch]) -> None:
    model = model_of("pendulum", vgs_warmup_steps=1, **BUILDS[build])
    runner = runner_of(model)
    for seed in range(3):
        assert runner.update(minibatch_for(model, seed), coefficients_of())[1] == "moved"
    before, after_one = learned(model), copy.deepcopy(model.policy.optimizer.state_dict())
    assert runner.update(spoil(minibatch_for(model, 9)), coefficients_of())[1] == "skipped"
    assert_identical(learned(model), before)
    if "noise" in after_one:
        assert_identical(model.policy.optimizer.state_dict()["noise"]["generators"], after_one["noise"]["generators"])
    assert runner.update(minibatch_for(model, 10), coefficients_of())[1] == "moved", "the next one goes on"


def test_a_nan_gradient_has_a_finite_loss() -> None:
    model = model_of("pendulum")
    stats, outcome = runner_of(model).update(with_nan_gradient(minibatch_for(model, 0)), coefficients_of())
    assert (outcome, math.isfinite(stats["loss"])) == ("skipped", True)
    assert model.variance_gradient_scaler.skipped_steps == 1


def test_a_loss_that_overflows_is_refused_although_its_gradient_is_finite() -> None:
    model = model_of("pendulum")
    minibatch = with_infinite_loss(minibatch_for(model, 0))
    evaluation = model.evaluator(minibatch.observations, minibatch.actions)
    loss, _ = ppo_loss(evaluation, minibatch, coefficients_of(), model.evaluator.ensemble)
    loss.backward()
    assert loss.isinf()
    assert all(parameter.grad.isfinite().all() for parameter in model.policy.parameters())
    assert runner_of(model).update(minibatch, coefficients_of())[1] == "skipped"


def test_above_one_and_a_half_times_target_kl_nothing_moves() -> None:
    model = model_of("pendulum")
    runner, minibatch, before = runner_of(model), minibatch_for(model, 0), learned(model)
    kl = runner.update(minibatch, coefficients_of(target_kl=0.0))[0]["approx_kl"].item()
    assert runner.update(minibatch, coefficients_of(target_kl=kl / 1.6))[1] == "stopped"
    assert_identical(learned(model), before)
    assert runner.update(minibatch, coefficients_of(target_kl=kl / 1.4))[1] == "moved"


HUGE = 1e25  # its square is not finite in float32


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in SB3's explained variance of such a reward
def test_some_skipped_updates_are_counted_and_the_others_logged() -> None:
    script = [(1.0, "terminates")] * 15 + [(HUGE, "terminates")]
    model = PPO("MlpPolicy", scripted(script), n_steps=16, batch_size=4, n_epochs=2, device="cpu")
    model.learn(16)
    logged = model.logger.name_to_value
    assert model.skipped_updates == logged["train/skipped_updates"] == 2, "the minibatch with it, in each epoch"
    assert 0.0 < logged["train/value_loss"] < 10.0
    assert all(math.isfinite(logged[f"train/{name}"]) for name in ("loss", "policy_gradient_loss", "approx_kl"))


def test_the_checks_of_torch_distributions_are_off_inside_only() -> None:
    with unchecked_distributions():
        torch.distributions.Normal(torch.tensor(0.0), torch.tensor(-1.0))
    with pytest.raises(ValueError, match="invalid values"):
        torch.distributions.Normal(torch.tensor(0.0), torch.tensor(-1.0))


def test_every_statistic_is_a_number_without_a_gradient() -> None:
    model = model_of("pendulum")
    stats, _ = runner_of(model).update(minibatch_for(model, 0), coefficients_of())
    assert {(tensor.dim(), tensor.requires_grad) for tensor in leaves(stats).values()} == {(0, False)}
