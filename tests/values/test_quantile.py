import pytest
import torch
from sb3_contrib.common.utils import quantile_huber_loss as sb3_quantile_huber_loss
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError
from everlearn.testing.heads import ValueHeadConformance
from everlearn.values import QuantileDistribution, QuantileHead
from everlearn.values.quantile import quantile_huber_loss
from tests.reference import heads as reference


class TestQuantileHead(ValueHeadConformance):
    @pytest.fixture
    def head(self) -> QuantileHead:
        return QuantileHead()


class TestOneQuantile(ValueHeadConformance):
    @pytest.fixture
    def head(self) -> QuantileHead:
        return QuantileHead(n_quantiles=1, kappa=0.1)


@pytest.mark.parametrize(
    ("quantiles", "target", "kappa", "expected"),
    [
        ([0.0, 2.0], 1.0, 1.0, 0.125),  # one below and one above, each a quarter of 1/2
        ([0.0, 2.0], 4.0, 1.0, 1.0),  # mean of 0.25 * 3.5 and 0.75 * 1.5
        ([0.0, 2.0], -2.0, 1.0, 1.0),  # mean of 0.75 * 1.5 and 0.25 * 3.5
        ([0.0], 3.0, 0.5, 0.6875),  # half of 0.5 * (3 - 0.25): no division by kappa
    ],
)
def test_quantile_huber_loss(quantiles: list[float], target: float, kappa: float, expected: float) -> None:
    loss = quantile_huber_loss(torch.tensor([quantiles]), torch.tensor([target]), kappa)
    assert loss.tolist() == [pytest.approx(expected)]


def test_underestimation_costs_a_high_quantile_more_than_overestimation() -> None:
    low, high = torch.autograd.functional.jacobian(
        lambda quantiles: quantile_huber_loss(quantiles, torch.tensor([10.0]), 1.0), torch.zeros(1, 2)
    ).flatten()
    assert high < low < 0


def test_quantile_huber_loss_equals_its_twin_for_100_random_steps() -> None:
    for _ in range(100):
        quantiles, targets = 2 * torch.randn(3, 7), 2 * torch.randn(3)
        kappa = 0.2 + 2 * torch.rand(()).item()
        expected = [
            reference.quantile_huber_loss(row, target, kappa)
            for row, target in zip(quantiles.tolist(), targets.tolist(), strict=True)
        ]
        assert_close(quantile_huber_loss(quantiles, targets, kappa), torch.tensor(expected))


def test_quantile_huber_loss_agrees_with_sb3_contrib() -> None:
    """Theirs sums over quantiles, or means over everything; kappa is 1."""
    quantiles, targets = 2 * torch.randn(16, 32), 2 * torch.randn(16)
    ours = quantile_huber_loss(quantiles, targets, 1.0).mean()
    assert_close(ours, sb3_quantile_huber_loss(quantiles, targets.unsqueeze(-1), sum_over_quantiles=False))
    assert_close(32 * ours, sb3_quantile_huber_loss(quantiles, targets.unsqueeze(-1)))


def test_cvar_takes_part_of_a_quantile_where_the_tail_ends_inside_of_it() -> None:
    distribution = QuantileDistribution(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), kappa=1.0)
    assert distribution.cvar(0.25).tolist() == [1.0]
    assert distribution.cvar(0.375).tolist() == [pytest.approx((1.0 + 0.5 * 2.0) / 1.5)]


def test_cvar_refuses_a_tail_thinner_than_one_quantile() -> None:
    distribution = QuantileHead(n_quantiles=10).distribution(torch.randn(2, 10))
    assert distribution.cvar(0.1).shape == (2,)
    with pytest.raises(ArgumentError, match=r"alpha=0\.09 is outside \[0\.1, 1\]"):
        distribution.cvar(0.09)


def test_by_default_there_are_32_quantiles_and_the_threshold_is_one_unit() -> None:
    head = QuantileHead()
    assert (head.n_outputs, head.distribution(torch.zeros(1, 32)).kappa) == (32, 1.0)


def test_spread_is_the_standard_deviation_of_the_quantiles() -> None:
    assert QuantileDistribution(torch.tensor([[1.0, 5.0], [2.0, 2.0]]), 1.0).spread.tolist() == [2.0, 0.0]


def test_samples_teach_the_quantiles_of_their_distribution() -> None:
    samples = torch.linspace(0.0, 1.0, 1001)
    quantiles = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.SGD([quantiles], lr=40.0)
    for _ in range(300):
        optimizer.zero_grad()
        quantile_huber_loss(quantiles.expand(1001, 4), samples, kappa=0.01).mean().backward()
        optimizer.step()
    assert_close(quantiles.detach(), torch.tensor([[0.125, 0.375, 0.625, 0.875]]), atol=0.01, rtol=0.0)


@pytest.mark.parametrize("arguments", [{"n_quantiles": 0}, {"kappa": 0.0}, {"kappa": float("nan")}])
def test_arguments_outside_of_their_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        QuantileHead(**arguments)
