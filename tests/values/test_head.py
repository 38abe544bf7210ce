from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from everlearn.core.errors import ConfigError
from everlearn.values import CategoricalHead, QuantileHead, ScalarHead, ValueHead, heads
from everlearn.values.head import lower_tail_mean, rescale_affine_, weighted_quantiles
from tests.reference import heads as reference


@pytest.mark.parametrize(
    ("spec", "head"),
    [
        ("scalar", ScalarHead()),
        ("quantile", QuantileHead(n_quantiles=32, kappa=1.0)),
        ("Categorical", CategoricalHead(51, -5.0, 5.0, "two_hot", "linear", 0.75)),
        ({"kind": "quantile", "n_quantiles": 8}, QuantileHead(8)),
        (
            {"kind": "categorical", "target": "hl_gauss", "bins": "symlog"},
            CategoricalHead(51, -5, 5, "hl_gauss", "symlog"),
        ),
        (QuantileHead(3), QuantileHead(3)),
    ],
)
def test_a_head_is_given_by_name_by_mapping_or_as_an_object(spec: Any, head: ValueHead) -> None:
    assert heads.build(spec) == head


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "quantile", "n_quantile": 8}, "Did you mean 'n_quantiles'"),
        ({"kind": "categorical", "target": "one_hot"}, "target"),
        ("quantiles", "Did you mean 'quantile'"),
    ],
)
def test_a_wrong_spec_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        heads.build(spec)


def test_lower_tail_mean_equals_its_twin_for_100_random_steps() -> None:
    for _ in range(100):
        positions, probabilities = torch.randn(3, 6), torch.randn(3, 6).softmax(-1)
        alpha = 0.01 + 0.98 * torch.rand(()).item()
        expected = [
            reference.lower_tail_mean(position, mass, alpha)
            for position, mass in zip(positions.tolist(), probabilities.tolist(), strict=True)
        ]
        assert_close(lower_tail_mean(positions, probabilities, alpha), torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_lower_tail_mean_has_a_gradient_for_the_tail_only() -> None:
    positions = torch.tensor([[3.0, 1.0, 2.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(lower_tail_mean(positions, torch.full((1, 4), 0.25), 0.5).sum(), positions)
    assert gradient.tolist() == [[0.0, 0.5, 0.0, 0.5]]


def unit(old_mean: float, old_std: float, new_mean: float, new_std: float) -> list[Tensor]:
    return list(torch.tensor([old_mean, old_std, new_mean, new_std]))


def test_rescale_affine_with_literal_numbers() -> None:
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        layer.bias.copy_(torch.tensor([0.5, 3.0]))
    rescale_affine_(layer, *unit(10.0, 4.0, 8.0, 2.0))
    assert layer.weight.tolist() == [[4.0], [-2.0]]
    assert layer.bias.tolist() == [2.0, 7.0]


@pytest.mark.parametrize("head", [ScalarHead(), QuantileHead(), CategoricalHead()])
def test_rescale_keeps_the_parameters_that_the_optimizer_holds(head: ValueHead) -> None:
    layer = nn.Linear(3, head.n_outputs)
    held = [(parameter, parameter.data_ptr()) for parameter in layer.parameters()]
    head.rescale_(layer, *unit(0.0, 1.0, 0.3, 1.2))
    for (parameter, address), now in zip(held, layer.parameters(), strict=True):
        assert now is parameter
        assert now.data_ptr() == address
        assert now.requires_grad
        assert now.grad_fn is None


@pytest.mark.parametrize("head", [ScalarHead(), QuantileHead(), CategoricalHead(), CategoricalHead(bins="symlog")])
def test_an_unchanged_unit_changes_no_prediction(head: ValueHead) -> None:
    layer, features = nn.Linear(3, head.n_outputs), torch.randn(4, 3)
    before = head.distribution(layer(features)).mean
    head.rescale_(layer, *unit(-3.0, 7.0, -3.0, 7.0))
    assert_close(head.distribution(layer(features)).mean, before, atol=1e-5, rtol=1e-4)


def test_a_weighted_quantile_is_the_least_point_with_so_much_mass_at_or_below_it() -> None:
    positions = torch.tensor([[3.0, 1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 8.0]])
    probabilities = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.6, 0.1]])
    levels = torch.tensor([0.05, 0.25, 0.5, 0.51, 0.95])
    expected = torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0, 8.0]])
    assert torch.equal(weighted_quantiles(positions, probabilities, levels), expected)
