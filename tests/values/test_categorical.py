import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError
from everlearn.testing.heads import ValueHeadConformance, fitted_layer, predicted
from everlearn.values import CategoricalDistribution, CategoricalHead


class CategoricalConformance(ValueHeadConformance):
    shift_tolerance = 1e-3
    rescale_tolerance = 0.15


class TestTwoHot(CategoricalConformance):
    @pytest.fixture
    def head(self) -> CategoricalHead:
        return CategoricalHead()


class TestHistogramLoss(CategoricalConformance):
    @pytest.fixture
    def head(self) -> CategoricalHead:
        return CategoricalHead(target="hl_gauss")


class TestSymlogTwoHot(CategoricalConformance):
    @pytest.fixture
    def head(self) -> CategoricalHead:
        return CategoricalHead(bins="symlog")


class TestSymlogHistogramLoss(CategoricalConformance):
    fit_tolerance = 0.02

    @pytest.fixture
    def head(self) -> CategoricalHead:
        return CategoricalHead(bins="symlog", target="hl_gauss")


def certain(head: CategoricalHead, *masses: float) -> CategoricalDistribution:
    return head.distribution(torch.tensor([masses]).log())


def test_linear_atoms_are_evenly_spaced_from_end_to_end() -> None:
    assert CategoricalHead(5, -1.0, 3.0).support(torch.zeros(())).tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]


def test_symlog_atoms_lie_closer_near_zero() -> None:
    end = math.exp(2.0) - 1
    atoms = CategoricalHead(5, -end, end, bins="symlog").support(torch.zeros((), dtype=torch.float64))
    assert atoms.tolist() == pytest.approx([-end, 1 - math.e, 0.0, math.e - 1, end])


def test_the_defaults_are_those_of_c51_on_ten_units() -> None:
    head = CategoricalHead(n_atoms=51, v_min=-5.0, v_max=5.0, target="two_hot", bins="linear", sigma_ratio=0.75)
    assert CategoricalHead() == head


def test_two_atoms_are_enough() -> None:
    head = CategoricalHead(n_atoms=2, v_min=0.0, v_max=4.0)
    assert head.targets(torch.tensor([1.0])).tolist() == [[0.75, 0.25]]


def test_the_loss_is_the_cross_entropy_to_the_two_neighbours() -> None:
    head = CategoricalHead(3, 0.0, 2.0)
    loss = certain(head, 0.5, 0.25, 0.25).loss(torch.tensor([0.25]))
    assert loss.tolist() == [pytest.approx(0.75 * math.log(2) + 0.25 * math.log(4))]


def test_a_return_outside_of_the_support_counts_as_its_end() -> None:
    distribution = certain(CategoricalHead(3, 0.0, 2.0), 0.5, 0.25, 0.25)
    assert distribution.loss(torch.tensor([-1e6])).tolist() == [pytest.approx(math.log(2))]


def test_the_loss_of_a_confident_error_stays_finite() -> None:
    outputs = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    loss = CategoricalHead(3, 0.0, 2.0).distribution(outputs).loss(torch.tensor([2.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), outputs)
    assert loss.tolist() == [400.0]
    assert gradient.tolist() == [[1.0, 0.0, -1.0]]


def test_a_shifted_confident_error_has_a_finite_loss_and_gradient() -> None:
    outputs = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    moved = CategoricalHead(3, 0.0, 2.0).distribution(outputs).shift(torch.tensor([0.5]))
    (gradient,) = torch.autograd.grad(moved.loss(torch.tensor([2.0])).sum(), outputs)
    assert torch.isfinite(moved.loss(torch.tensor([2.0]))).all()
    assert torch.isfinite(gradient).all()


def test_shift_moves_atoms_and_gathers_at_the_end_what_leaves() -> None:
    moved = certain(CategoricalHead(3, 0.0, 2.0), 0.5, 0.25, 0.25).shift(torch.tensor([0.5]))
    assert_close(moved.probabilities, torch.tensor([[0.25, 0.375, 0.375]]))


def test_shift_follows_the_spacing_of_uneven_atoms() -> None:
    head = CategoricalHead(5, -5.0, 5.0, bins="symlog")
    moved = certain(head, 0.0, 0.0, 1.0, 0.0, 0.0).shift(torch.tensor([2.0]))
    assert_close(moved.mean, torch.tensor([2.0]))
    assert (moved.probabilities[0] > 1e-3).tolist() == [False, False, False, True, True]


def test_cvar_takes_part_of_the_atom_where_the_tail_ends() -> None:
    distribution = certain(CategoricalHead(3, 0.0, 2.0), 0.1, 0.5, 0.4)
    assert distribution.cvar(0.05).tolist() == [pytest.approx(0.0)]
    assert distribution.cvar(0.4).tolist() == [pytest.approx(0.75)]


def test_spread_is_the_standard_deviation_of_the_atoms() -> None:
    assert certain(CategoricalHead(3, 0.0, 2.0), 0.5, 0.0, 0.5).spread.tolist() == [pytest.approx(1.0)]


def test_atoms_outside_of_the_old_support_get_mass_by_the_third_power_of_their_distance_in_bins() -> None:
    head, layer = CategoricalHead(9, -4.0, 4.0), nn.Linear(1, 9)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    head.rescale_(layer, *torch.tensor([0.0, 1.0, 0.0, 2.0]))
    outside, inside = [1 / 27, 1 / 8], [1.0] * 5
    assert predicted(head, layer).probabilities[0].tolist() == pytest.approx(
        [mass / (5 + 2 * sum(outside)) for mass in (*outside, *inside, *reversed(outside))]
    )


@pytest.mark.parametrize("bins", ["linear", "symlog"])
@pytest.mark.parametrize("target", ["two_hot", "hl_gauss"])
def test_an_untrained_layer_survives_a_much_wider_unit(bins: Any, target: Any) -> None:
    """The first rollout may move the unit from (0, 1) to (-50, 30); the old support is then one bin wide."""
    head = CategoricalHead(bins=bins, target=target)
    layer = nn.Linear(5, head.n_outputs)
    before = predicted(head, layer).mean
    head.rescale_(layer, *torch.tensor([0.0, 1.0, -50.0, 30.0]))
    after = predicted(head, layer).mean * 30.0 - 50.0
    assert (after - before).abs().max() < 10.0
    assert layer(torch.eye(5)).std(dim=-1).max() < 5.0  # logits that can still be unlearned


@pytest.mark.parametrize("bins", ["linear", "symlog"])
def test_a_layer_follows_a_unit_that_drifts_for_50_rollouts(bins: Any) -> None:
    head, returns = CategoricalHead(target="hl_gauss", bins=bins), torch.tensor([-1.0, 0.0, 1.5])
    layer = fitted_layer(head, returns)
    units = torch.stack([torch.linspace(0.0, 0.5, 51), torch.linspace(1.0, 1.5, 51)], dim=-1)
    for old, new in pairwise(units):
        head.rescale_(layer, *old, *new)
    assert_close(predicted(head, layer).mean * 1.5 + 0.5, returns, atol=0.15, rtol=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_atoms": 1}, "n_atoms"),
        ({"v_min": 1.0, "v_max": 1.0}, "v_max"),
        ({"v_min": float("nan")}, "v_min"),
        ({"v_min": -float("inf")}, "v_min"),
        ({"v_max": float("inf")}, "v_max"),
        ({"sigma_ratio": 0.0}, "sigma_ratio"),
        ({"target": "two-hot"}, "Did you mean 'two_hot'"),
        ({"bins": "log"}, "bins='log' is unknown"),
    ],
)
def test_arguments_outside_of_their_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        CategoricalHead(**arguments)
