import pytest
import torch
from torch import Tensor
from torch.func import vmap

from everlearn.optim.averages import advance_weights_, ema_, ema_of_product_

FORMS = pytest.mark.parametrize("form", [float, torch.tensor], ids=["float", "tensor"])
"""A decay is a float in an eager step and a 0-d tensor in a traced one."""


@FORMS
def test_an_average_moves_towards_the_value(form):
    average = torch.tensor([4.0, 8.0])
    ema_(average, torch.tensor([8.0, 0.0]), form(0.75))
    assert average.tolist() == [5.0, 6.0]


@FORMS
def test_an_average_of_a_product_moves_towards_the_product(form):
    average = torch.tensor([4.0, 8.0])
    ema_of_product_(average, torch.tensor([2.0, 3.0]), torch.tensor([4.0, 8.0]), form(0.75))
    assert average.tolist() == [5.0, 12.0]


@FORMS
def test_an_average_of_a_product_may_be_of_its_negative(form):
    average = torch.tensor([4.0, 8.0])
    ema_of_product_(average, torch.tensor([2.0, 3.0]), torch.tensor([4.0, 8.0]), form(0.75), sign=-1.0)
    assert average.tolist() == [1.0, 0.0]


@FORMS
def test_a_float_has_the_bits_of_torchs_adamw(form):
    """One ``lerp_``, one ``addcmul_``: as in torch's own step; a tensor agrees to rounding."""
    value, squared = torch.randn(50), torch.rand(50)
    average, average_sq = torch.randn(50), torch.rand(50)
    expected = (
        average.clone().lerp_(value, 1 - 0.9),
        average_sq.clone().mul_(0.999).addcmul_(squared, squared, value=1 - 0.999),
    )
    ema_(average, value, form(0.9))
    ema_of_product_(average_sq, squared, squared, form(0.999))
    compare = torch.equal if form is float else lambda left, right: torch.allclose(left, right, rtol=1e-5)
    assert all(map(compare, (average, average_sq), expected))


def test_a_decay_may_differ_from_member_to_member():
    """Under ``vmap`` a decay has no number that could be read."""

    def averages(value: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        average, product = value.clone(), value.clone()
        ema_(average, 2 * value, beta)
        ema_of_product_(product, value, value, beta, sign=-1.0)
        return average, product

    average, product = vmap(averages)(torch.tensor([[2.0], [4.0]]), torch.tensor([0.5, 0.75]))
    assert (average.tolist(), product.tolist()) == ([[3.0], [5.0]], [[-1.0], [-1.0]])


def test_each_running_weight_advances_with_its_own_decay():
    weights = torch.tensor([0.0, 0.5, 1.0])
    advance_weights_(weights, torch.tensor([0.75, 0.5, 0.25]))
    assert weights.tolist() == [0.25, 0.75, 1.0]


def test_constants_average_to_themselves_when_divided_by_the_weight_also_while_the_decay_changes():
    average, weight = torch.zeros(1), torch.zeros(1)
    for beta in (0.9, 0.99, 0.5):
        ema_(average, torch.tensor([7.0]), beta)
        advance_weights_(weight, torch.tensor([beta]))
        assert (average / weight).item() == pytest.approx(7.0, rel=1e-6)
