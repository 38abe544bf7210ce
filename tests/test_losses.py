import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, Normal, kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from everlearn.losses import (
    approximate_kl,
    clip_fraction,
    clipped_surrogate_loss,
    entropy_loss,
    kl_bernoulli,
    kl_categorical,
    kl_diagonal_gaussian,
    normalize_advantages,
)

LN2 = math.log(2.0)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected", "slope"),
    [
        (0.0, 3.0, -3.0, -3.0),  # unchanged policy: the policy gradient
        (LN2, 1.0, -1.2, 0.0),  # more probable than allowed, and good: clipped
        (LN2, -1.0, 2.0, 2.0),  # more probable, and bad: not clipped
        (-LN2, 1.0, -0.5, -0.5),  # less probable, and good: not clipped
        (-LN2, -1.0, 0.8, 0.0),  # less probable than allowed, and bad: clipped
    ],
)
@pytest.mark.parametrize("clip_range", [0.2, torch.tensor(0.2)], ids=["number", "tensor"])
def test_the_surrogate_is_pessimistic(
    log_ratio: float, advantage: float, expected: float, slope: float, clip_range: float | Tensor
) -> None:
    log_prob = torch.tensor([log_ratio - 1.0], requires_grad=True)
    loss, ratio = clipped_surrogate_loss(log_prob, torch.tensor([-1.0]), torch.tensor([advantage]), clip_range)
    assert loss.item() == pytest.approx(expected)
    assert ratio.tolist() == [pytest.approx(math.exp(log_ratio))]
    assert torch.autograd.grad(loss, log_prob)[0].tolist() == [pytest.approx(slope)]


def test_the_surrogate_is_a_mean_over_samples() -> None:
    log_prob, advantages = torch.tensor([LN2, 0.0]), torch.tensor([1.0, 2.0])
    loss, ratio = clipped_surrogate_loss(log_prob, torch.zeros(2), advantages, 0.2)
    assert loss.item() == pytest.approx(-1.6)
    assert ratio.tolist() == pytest.approx([2.0, 1.0])


def test_the_clip_range_is_an_input_of_a_traced_surrogate() -> None:
    data = torch.randn(8), torch.randn(8), torch.randn(8)
    traced = make_fx(clipped_surrogate_loss)(*data, torch.tensor(0.1))
    others = torch.randn(8), torch.randn(8), torch.randn(8)
    for graph, eager in zip(traced(*others, torch.tensor(0.4)), clipped_surrogate_loss(*others, 0.4), strict=True):
        assert_close(graph, eager)


def test_clip_fraction_counts_both_sides_strictly() -> None:
    ratio = torch.tensor([0.5, 0.75, 1.0, 1.25, 1.5])
    assert clip_fraction(ratio, 0.25).item() == pytest.approx(0.4)
    assert clip_fraction(ratio, torch.tensor(0.1)).item() == pytest.approx(0.8)


def test_advantages_get_mean_0_and_the_unbiased_standard_deviation_1() -> None:
    assert normalize_advantages(torch.tensor([1.0, 2.0, 6.0, 3.0])).tolist() == pytest.approx(
        [-2 / math.sqrt(14 / 3), -1 / math.sqrt(14 / 3), 3 / math.sqrt(14 / 3), 0.0]
    )


def test_equal_advantages_become_zero_and_not_nan() -> None:
    assert normalize_advantages(torch.full((4,), 7.0)).tolist() == [0.0] * 4


def test_advantages_of_the_size_of_the_floor_shrink() -> None:
    """Their standard deviation, sqrt 2 * 1e-8, is not trusted alone."""
    expected = 1 / (math.sqrt(2) + 1)
    assert normalize_advantages(torch.tensor([1e-8, -1e-8])).tolist() == pytest.approx([expected, -expected], rel=1e-4)


def test_b40_a_single_advantage_stays_as_it_is() -> None:
    """B40: one number has no standard deviation."""
    assert normalize_advantages(torch.tensor([5.0])).tolist() == [5.0]


def test_entropy_loss_is_minus_the_mean_entropy_or_its_estimate() -> None:
    log_prob = torch.tensor([-1.0, -4.0])
    assert entropy_loss(torch.tensor([1.0, 2.0]), log_prob).item() == -1.5
    assert entropy_loss(None, log_prob).item() == -2.5


def test_approximate_kl_of_a_doubled_probability() -> None:
    assert approximate_kl(torch.tensor([LN2, 0.0]), torch.zeros(2)).item() == pytest.approx((1 - LN2) / 2)


def test_approximate_kl_is_never_negative_and_zero_for_the_same_policy() -> None:
    log_prob = torch.randn(1000)
    assert (torch.stack([approximate_kl(each, torch.zeros(1)) for each in log_prob.split(1)]) >= 0).all()
    assert approximate_kl(log_prob, log_prob).item() == 0.0


def test_approximate_kl_estimates_the_divergence_of_old_from_new() -> None:
    old, new = Normal(0.0, 1.0), Normal(0.4, 1.3)
    actions = old.sample((200_000,))
    expected = kl_divergence(old, new).item()
    assert approximate_kl(new.log_prob(actions), old.log_prob(actions)).item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("shape", [(3,), (5, 3)], ids=["state-independent", "per sample"])
def test_kl_of_diagonal_gaussians_is_exact(shape: tuple[int, ...]) -> None:
    old, new = (torch.randn(5, 3), torch.randn(shape)), (torch.randn(5, 3), torch.randn(shape))
    expected = kl_divergence(*(Independent(Normal(mean, log_std.exp()), 1) for mean, log_std in (old, new)))
    assert_close(kl_diagonal_gaussian(*old, *new), expected)


def test_kl_of_diagonal_gaussians_keeps_the_digits_of_a_small_divergence() -> None:
    """One dimension 1e-4 wider: 1e-8, where float32 would leave nothing of 1 + 2e-4 - 1 - 2e-4."""
    mean, log_std = torch.zeros(1, 1), torch.zeros(1)
    assert kl_diagonal_gaussian(mean, log_std + 1e-4, mean, log_std).item() == pytest.approx(1e-8, rel=0.01)


def test_kl_of_categoricals_is_exact_whatever_is_added_to_the_logits() -> None:
    old, new = 2 * torch.randn(5, 4), 2 * torch.randn(5, 4)
    expected = kl_divergence(Categorical(logits=old), Categorical(logits=new))
    assert_close(kl_categorical(old + 7.0, new - 3.0), expected, atol=1e-5, rtol=1e-4)


def test_kl_of_bernoullis_is_exact() -> None:
    old, new = 2 * torch.randn(5, 4), 2 * torch.randn(5, 4)
    expected = kl_divergence(Independent(Bernoulli(logits=old), 1), Independent(Bernoulli(logits=new), 1))
    assert_close(kl_bernoulli(old, new), expected)


@pytest.mark.parametrize("kl", [kl_categorical, kl_bernoulli])
def test_the_divergence_of_certain_distributions_stays_finite(kl) -> None:
    old = torch.tensor([[80.0, -80.0]], requires_grad=True)
    divergence = kl(old, -old.detach())
    assert divergence.item() >= 80.0
    assert torch.isfinite(torch.autograd.grad(divergence.sum(), old)[0]).all()


@pytest.mark.parametrize("kl", [kl_categorical, kl_bernoulli])
def test_a_distribution_does_not_diverge_from_itself(kl) -> None:
    logits = 3 * torch.randn(5, 4)
    assert kl(logits, logits).tolist() == [0.0] * 5


def test_a_masked_category_adds_nothing_to_the_divergence_or_its_gradient():
    minus = -math.inf
    old = torch.tensor([[0.0, 1.0, minus]])
    new = torch.tensor([[0.5, 0.2, minus]], requires_grad=True)
    divergence = kl_categorical(old, new)
    divergence.sum().backward()
    plain = kl_categorical(old[:, :2], new.detach()[:, :2])
    assert torch.equal(divergence, plain)
    assert torch.isfinite(new.grad).all()
    assert kl_categorical(torch.zeros(1, 2), torch.tensor([[0.0, minus]])) == math.inf
