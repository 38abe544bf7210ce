import pytest
import torch
from torch.nn.functional import mse_loss

from everlearn.testing.heads import ValueHeadConformance
from everlearn.values import ScalarDistribution, ScalarHead


class TestScalarHead(ValueHeadConformance):
    @pytest.fixture
    def head(self) -> ScalarHead:
        return ScalarHead()


@pytest.mark.parametrize("batch", [1, 2, 64, 256])
def test_the_mean_loss_and_its_gradient_are_those_of_mse_loss_to_the_bit(batch: int) -> None:
    returns, outputs = 30 * torch.randn(batch), torch.randn(batch, 1, requires_grad=True)
    ours = ScalarHead().distribution(outputs).loss(returns).mean()
    theirs = mse_loss(returns, outputs.flatten())
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(0.37 * loss, outputs)[0] for loss in (ours, theirs)]
    assert torch.equal(*gradients)


def test_the_loss_is_the_squared_error_without_a_half() -> None:
    assert ScalarDistribution(torch.tensor([1.0, -2.0])).loss(torch.tensor([4.0, -2.5])).tolist() == [
        9.0,
        0.25,
    ]


def test_a_point_has_no_spread_and_is_its_own_tail() -> None:
    point = ScalarDistribution(torch.tensor([3.0, -1500.0]))
    assert point.spread.tolist() == [0.0, 0.0]
    assert point.cvar(0.01).tolist() == [3.0, -1500.0]


def test_recentre_gives_the_mean_to_the_bit() -> None:
    mean = torch.randn(1000)
    assert torch.equal(ScalarDistribution(1e4 * torch.randn(1000)).recentre(mean).mean, mean)
