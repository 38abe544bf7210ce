"""The quantile Huber loss is that of sb3-contrib: the cases of its tests, and random ones."""

import pytest
import torch
from sb3_contrib.common.utils import quantile_huber_loss as contrib_loss
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError
from everlearn.values.quantile import QuantileDistribution, quantile_huber_loss


def test_ten_quantiles_of_zero_and_a_target_of_one_lose_2_5_in_sum_and_0_25_in_the_mean():
    loss = quantile_huber_loss(torch.zeros(1, 10), torch.ones(1), kappa=1.0)
    assert_close(loss, torch.tensor([0.25]))
    assert_close(10 * loss, torch.tensor([2.5]))
    assert_close(contrib_loss(torch.zeros(1, 10), torch.ones(1, 10)), torch.tensor(2.5))
    assert_close(contrib_loss(torch.zeros(1, 10), torch.ones(1, 10), sum_over_quantiles=False), torch.tensor(0.25))


@pytest.mark.parametrize("n_quantiles", [1, 2, 32])
@pytest.mark.parametrize("spread", [0.1, 3.0])  # inside the quadratic part, and mostly outside
def test_random_cases_agree_with_contrib(n_quantiles, spread):
    quantiles, targets = torch.randn(7, n_quantiles) * spread, torch.randn(7) * spread
    ours = quantile_huber_loss(quantiles, targets, kappa=1.0)
    theirs = contrib_loss(quantiles, targets.unsqueeze(-1), sum_over_quantiles=False)
    assert_close(ours.mean(), theirs)
    assert_close(n_quantiles * ours.mean(), contrib_loss(quantiles, targets.unsqueeze(-1)))


def test_gradients_agree_with_contrib():
    quantiles, targets = torch.randn(7, 5, requires_grad=True), torch.randn(7)
    (ours,) = torch.autograd.grad(quantile_huber_loss(quantiles, targets, kappa=1.0).mean(), quantiles)
    theirs = contrib_loss(quantiles, targets.unsqueeze(-1), sum_over_quantiles=False)
    assert_close(ours, *torch.autograd.grad(theirs, quantiles))


@pytest.mark.parametrize("kappa", [0.25, 4.0])
def test_another_threshold_is_contribs_loss_in_another_unit(kappa):
    """Contrib's threshold is 1: in units of kappa the errors are u/kappa, and the loss is kappa**2 as large."""
    quantiles, targets = torch.randn(7, 5), torch.randn(7)
    theirs = contrib_loss(quantiles / kappa, targets.unsqueeze(-1) / kappa, sum_over_quantiles=False)
    assert_close(quantile_huber_loss(quantiles, targets, kappa).mean(), kappa**2 * theirs)


@pytest.mark.parametrize("targets", [torch.zeros(4, 4), torch.zeros(3), torch.zeros(4, 1), torch.zeros(())])
def test_targets_that_are_not_one_for_each_sample_are_refused(targets):
    with pytest.raises(ArgumentError, match="returns"):
        QuantileDistribution(torch.zeros(4, 4), kappa=1.0).loss(targets)
