import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from everlearn.values.projection import (
    categorical_projection,
    gaussian_histogram,
    interpolation_weights,
    symexp,
    symlog,
    two_hot,
)
from tests.reference import heads as reference

UNEVEN = torch.tensor([-3.0, -1.0, 0.0, 0.5, 4.0])


@st.composite
def supports(draw: st.DrawFn) -> Tensor:
    gaps = draw(st.lists(st.floats(0.05, 10.0), min_size=1, max_size=12))
    start = draw(st.floats(-20.0, 20.0))
    return torch.tensor([start, *gaps], dtype=torch.float64).cumsum(0)


@st.composite
def masses(draw: st.DrawFn, size: int) -> Tensor:
    weights = torch.tensor(draw(st.lists(st.floats(0.0, 1.0), min_size=size, max_size=size)), dtype=torch.float64)
    return ((weights + 1e-3) / (weights + 1e-3).sum()).unsqueeze(0)


@settings(max_examples=50)
@given(st.data(), supports())
def test_projection_conserves_mass_wherever_it_comes_from(data: st.DataObject, support: Tensor) -> None:
    probabilities = data.draw(masses(4))
    positions = torch.tensor([data.draw(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=4))]).double()
    projected = categorical_projection(probabilities, positions, support)
    assert (projected >= 0).all()
    assert_close(projected.sum(), torch.ones((), dtype=torch.float64))


@settings(max_examples=50)
@given(st.data(), supports())
def test_projection_keeps_a_mean_that_comes_from_inside_of_the_support(data: st.DataObject, support: Tensor) -> None:
    probabilities = data.draw(masses(4))
    shares = torch.tensor([data.draw(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4))]).double()
    positions = support[0] + shares * (support[-1] - support[0])
    projected = categorical_projection(probabilities, positions, support)
    assert_close((projected * support).sum(), (probabilities * positions).sum())


@settings(max_examples=50)
@given(st.data(), supports())
def test_projection_onto_the_same_atoms_is_the_identity_to_the_bit(data: st.DataObject, support: Tensor) -> None:
    probabilities = data.draw(masses(len(support)))
    assert torch.equal(categorical_projection(probabilities, support.unsqueeze(0), support), probabilities)


def test_projection_equals_its_twin_for_100_random_steps() -> None:
    for _ in range(100):
        support = torch.randn(9).sort().values
        probabilities, positions = torch.rand(3, 6).softmax(-1), 2 * torch.randn(3, 6)
        expected = [
            reference.project(mass, position, support.tolist())
            for mass, position in zip(probabilities.tolist(), positions.tolist(), strict=True)
        ]
        assert_close(categorical_projection(probabilities, positions, support), torch.tensor(expected))


def test_projection_has_a_gradient_for_probabilities_and_positions() -> None:
    probabilities = torch.rand(2, 3, dtype=torch.float64).softmax(-1).requires_grad_()
    positions = torch.tensor([[-2.5, 0.2, 3.0], [-9.0, -0.3, 9.0]], dtype=torch.float64, requires_grad=True)
    support = UNEVEN.double()
    assert torch.autograd.gradcheck(lambda p, x: categorical_projection(p, x, support), (probabilities, positions))


def test_several_positions_on_one_atom_give_it_all_their_mass() -> None:
    projected = categorical_projection(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([[0.5, 0.5, 9.0]]), UNEVEN)
    assert projected.tolist() == [[0.0, 0.0, 0.0, 0.5, 0.5]]


def test_each_position_is_shared_by_its_two_neighbours() -> None:
    weights = interpolation_weights(torch.tensor([-2.5, 0.5, 3.125, -7.0]), UNEVEN)
    assert weights.tolist() == [
        [0.75, 0.25, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.25, 0.75],
        [1.0, 0.0, 0.0, 0.0, 0.0],
    ]


def test_two_hot_is_clamped_to_the_support() -> None:
    assert two_hot(torch.tensor([-0.25, 100.0]), UNEVEN).tolist() == [
        [0.0, 0.25, 0.75, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ]


def test_gaussian_histogram_equals_its_twin_for_100_random_steps() -> None:
    centres = torch.linspace(-2.0, 3.0, 11)
    for _ in range(100):
        values, ratio = 2 * torch.randn(3), 0.2 + torch.rand(()).item()
        expected = [reference.gaussian_histogram(value, centres.tolist(), ratio) for value in values.tolist()]
        assert_close(gaussian_histogram(values, centres, ratio), torch.tensor(expected), atol=1e-6, rtol=1e-4)


def test_a_narrow_gaussian_fills_one_bin_and_a_wide_one_many() -> None:
    centres = torch.arange(5.0)
    assert_close(gaussian_histogram(torch.tensor([2.0]), centres, 0.01), torch.eye(5)[2:3])
    assert_close(gaussian_histogram(torch.tensor([2.0]), centres, 1e3), torch.full((1, 5), 0.2))


@pytest.mark.parametrize(("value", "expected"), [(math.e - 1, 1.0), (1 - math.e**2, -2.0), (0.0, 0.0)])
def test_symlog_and_its_inverse(value: float, expected: float) -> None:
    assert symlog(torch.tensor(value)).item() == pytest.approx(expected)
    assert symexp(torch.tensor(expected)).item() == pytest.approx(value)
