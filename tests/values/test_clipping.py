import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import mse_loss
from torch.testing import assert_close

from everlearn.testing.heads import random_outputs
from everlearn.values import (
    CategoricalHead,
    QuantileDistribution,
    QuantileHead,
    ScalarDistribution,
    ScalarHead,
    ValueClipping,
    ValueHead,
    clipped_prediction_loss,
    clipped_value_loss,
)

HEADS = [ScalarHead(), QuantileHead(), CategoricalHead(v_min=-20.0, v_max=20.0)]
CLIPPINGS = [clipped_value_loss, clipped_prediction_loss]

# old value 0, clip range 1: prediction, return, loss with the maximum, loss of the clipped prediction
CASES = [
    (0.5, 2.0, 2.25, 2.25),  # inside of the range
    (3.0, 2.0, 1.0, 1.0),  # left the range, and the clipped prediction is as far away
    (3.0, 3.5, 6.25, 6.25),  # better than allowed: the clipped prediction counts
    (3.0, 0.5, 6.25, 0.25),  # worse than the clipped one: the maximum still teaches the way back
    (-3.0, 0.0, 9.0, 1.0),
]


@pytest.mark.parametrize(("prediction", "target", "expected", "_"), CASES)
def test_the_clipped_value_loss_is_the_larger_one(prediction: float, target: float, expected: float, _: float) -> None:
    loss = clipped_value_loss(
        ScalarDistribution(torch.tensor([prediction])), torch.tensor([target]), torch.zeros(1), 1.0
    )
    assert loss.tolist() == [expected]


@pytest.mark.parametrize(("prediction", "target", "_", "expected"), CASES)
def test_the_clipped_prediction_loss_is_that_of_the_clipped_prediction(
    prediction: float, target: float, _: float, expected: float
) -> None:
    distribution = ScalarDistribution(torch.tensor([prediction]))
    loss = clipped_prediction_loss(distribution, torch.tensor([target]), torch.zeros(1), 1.0)
    assert loss.tolist() == [expected]


def test_the_maximum_is_taken_per_sample_before_any_mean() -> None:
    """One sample has the larger loss unclipped, the other clipped: the result is above both means."""
    distribution, returns, old = (
        ScalarDistribution(torch.tensor([3.0, 3.0])),
        torch.tensor([0.5, 3.5]),
        torch.zeros(2),
    )
    pessimistic = clipped_value_loss(distribution, returns, old, 1.0).mean()
    assert pessimistic > distribution.loss(returns).mean()
    assert pessimistic > clipped_prediction_loss(distribution, returns, old, 1.0).mean()


def test_the_clipped_prediction_loss_equals_stable_baselines_to_the_bit() -> None:
    outputs, old, returns = torch.randn(64, 1, requires_grad=True), torch.randn(64), 3 * torch.randn(64)
    ours = clipped_prediction_loss(ScalarHead().distribution(outputs), returns, old, 0.2)
    clipped = old + torch.clamp(outputs.flatten() - old, -0.2, 0.2)
    assert torch.equal(ours, mse_loss(returns, clipped, reduction="none"))
    losses = ours.mean(), mse_loss(returns, clipped)
    assert torch.equal(*losses)
    assert torch.equal(*(torch.autograd.grad(0.5 * loss, outputs)[0] for loss in losses))


def test_clipping_moves_all_quantiles_together() -> None:
    """The mean is 6 and may be 1: every quantile is clipped around itself, not onto the old mean."""
    loss = clipped_prediction_loss(
        QuantileDistribution(torch.tensor([[4.0, 8.0]]), 1.0), torch.tensor([9.0]), torch.zeros(1), 1.0
    )
    assert_close(loss, QuantileDistribution(torch.tensor([[-1.0, 3.0]]), 1.0).loss(torch.tensor([9.0])))


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("head", HEADS)
def test_inside_of_the_range_loss_and_gradient_are_those_without_clipping(
    head: ValueHead, clipping: ValueClipping
) -> None:
    outputs, returns = random_outputs(head, batch=8).requires_grad_(), torch.randn(8)
    distribution = head.distribution(outputs)
    clipped = clipping(distribution, returns, distribution.mean.detach() + 0.1, 10.0)
    assert_close(clipped, distribution.loss(returns), atol=1e-5, rtol=1e-4)
    gradients = [
        torch.autograd.grad(loss.sum(), outputs, retain_graph=True)[0] for loss in (clipped, distribution.loss(returns))
    ]
    assert_close(*gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("head", [ScalarHead(), QuantileHead()])
def test_no_sample_gains_by_leaving_the_range(head: ValueHead) -> None:
    """Where the return lies beyond the range, moving the prediction further changes nothing."""
    distribution = head.distribution(random_outputs(head))
    old, further = distribution.mean - 1.0, torch.zeros(5, requires_grad=True)
    loss = clipped_value_loss(distribution.shift(further), old + 8.0, old, 0.1).sum()
    (gradient,) = torch.autograd.grad(loss, further)
    assert_close(gradient, torch.zeros(5), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("head", HEADS)
def test_a_clip_range_as_a_tensor_equals_the_number_also_traced(head: ValueHead, clipping: ValueClipping) -> None:
    """The range is an input of the traced graph: another one needs no new trace."""

    def loss(outputs: Tensor, returns: Tensor, old: Tensor, clip_range: Tensor) -> Tensor:
        return clipping(head.distribution(outputs), returns, old, clip_range)

    traced = make_fx(loss)(random_outputs(head), torch.randn(5), torch.randn(5), torch.tensor(0.3))
    outputs, returns, old = random_outputs(head, seed=1), torch.randn(5), torch.randn(5)
    expected = clipping(head.distribution(outputs), returns, old, 0.7)
    assert_close(loss(outputs, returns, old, torch.tensor(0.7)), expected)
    assert_close(traced(outputs, returns, old, torch.tensor(0.7)), expected)
