import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from everlearn.core.errors import ArgumentError, NonFiniteError
from everlearn.values import ReturnScale
from tests.reference import heads as reference


def scale_of(*rollouts: list[float], beta: float = 0.9) -> ReturnScale:
    scale = ReturnScale(beta)
    for rollout in rollouts:
        scale.observe(torch.tensor(rollout))
    scale.refresh_()
    return scale


def test_a_new_scale_is_the_identity() -> None:
    scale, returns = ReturnScale(), torch.randn(5)
    assert torch.equal(scale.normalize(returns), returns)
    assert torch.equal(scale.denormalize(returns), returns)


def test_the_unit_is_subtracted_and_divided_out_and_put_back() -> None:
    scale = ReturnScale()
    scale.mean.fill_(10.0)
    scale.std.fill_(4.0)
    assert scale.normalize(torch.tensor([10.0, 18.0, -2.0])).tolist() == [0.0, 2.0, -3.0]
    assert scale.denormalize(torch.tensor([0.0, 2.0, -3.0])).tolist() == [10.0, 18.0, -2.0]


def test_one_rollout_gives_its_mean_and_standard_deviation() -> None:
    scale = scale_of([1.0, 3.0])
    assert scale.normalize(torch.tensor([0.0, 2.0, 4.0])).tolist() == [-2.0, 0.0, 2.0]
    assert scale.denormalize(torch.tensor([-2.0, 0.0, 2.0])).tolist() == [0.0, 2.0, 4.0]


def test_the_unit_stays_frozen_between_observing_and_refreshing() -> None:
    scale = scale_of([1.0, 3.0])
    scale.observe(torch.tensor([100.0, 200.0]))
    assert (scale.mean.item(), scale.std.item()) == (2.0, 1.0)


def test_the_moments_equal_their_twin_for_100_rollouts() -> None:
    scale, rollouts = ReturnScale(beta=0.8), []
    for step in range(100):
        rollouts.append((step + 3 * torch.randn(4)).tolist())
        scale.observe(torch.tensor(rollouts[-1]))
        *_, mean, std = scale.refresh_()
        assert (mean.item(), std.item()) == pytest.approx(reference.running_scale(rollouts, 0.8), rel=1e-5)


def test_a_small_spread_around_a_large_mean_is_found() -> None:
    assert scale_of([-150000.0, -150001.0]).std.item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 5.0, -1500.1, 1e7])
def test_constant_returns_have_the_unit_one(value: float) -> None:
    scale = scale_of([value] * 7, [value] * 3)
    assert (scale.mean.item(), scale.std.item()) == (pytest.approx(value), 1.0)


def test_a_spread_that_is_rounding_is_not_a_scale() -> None:
    assert scale_of([1e-8, -1e-8]).std.item() == 1.0
    assert scale_of([1e6 - 0.1, 1e6 + 0.1]).std.item() == 1.0
    assert scale_of([-1e6 - 0.1, -1e6 + 0.1]).std.item() == 1.0


def test_refreshing_without_an_observation_changes_nothing() -> None:
    assert [value.item() for value in ReturnScale().refresh_()] == [0.0, 1.0, 0.0, 1.0]


def test_refreshing_returns_the_old_and_the_new_unit_as_snapshots() -> None:
    scale = scale_of([1.0, 3.0], beta=0.0)
    scale.observe(torch.tensor([0.0, 20.0]))
    unit = scale.refresh_()
    scale.observe(torch.tensor([7.0]))
    scale.refresh_()
    assert [value.item() for value in unit] == [2.0, 1.0, 10.0, 10.0]
    assert all(value.shape == () for value in unit)


def test_the_unit_moves_in_place_for_whoever_holds_its_tensors() -> None:
    scale = ReturnScale()
    mean, std = scale.mean, scale.std
    scale.observe(torch.tensor([1.0, 5.0]))
    scale.refresh_()
    assert (mean.item(), std.item()) == (3.0, 2.0)


@pytest.mark.parametrize("bad", [[1.0, float("nan")], [float("inf"), 0.0], []])
def test_returns_that_are_not_finite_are_refused_and_change_nothing(bad: list[float]) -> None:
    scale = scale_of([1.0, 3.0])
    before = copy.deepcopy(scale.state_dict())
    with pytest.raises(NonFiniteError, match="return scale stays"):
        scale.observe(torch.tensor(bad))
    assert scale.state_dict() == before


def test_the_unit_goes_with_the_weights_of_the_module_that_owns_the_scale() -> None:
    module, other = nn.Module(), nn.Module()
    module.scale, other.scale = scale_of([1.0, 3.0]), ReturnScale()
    other.load_state_dict(module.state_dict())
    assert (other.scale.mean.item(), other.scale.std.item(), other.scale.weight.item()) == (
        2.0,
        1.0,
        pytest.approx(0.1),
    )
    assert list(module.parameters()) == []


def test_observing_keeps_no_graph() -> None:
    scale = ReturnScale()
    scale.observe(torch.randn(4, requires_grad=True))
    assert not scale.first_moment.requires_grad


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_a_decay_outside_of_its_range_is_refused(beta: float) -> None:
    with pytest.raises(ArgumentError, match="beta"):
        ReturnScale(beta)


def test_b8_a_restored_scale_goes_on_to_the_bit() -> None:
    """B8: the normaliser's statistics are part of the state."""
    scale, other = scale_of([1.0, 3.0], [4.0]), ReturnScale()
    other.load_state_dict(scale.state_dict())
    for each in (scale, other):
        each.observe(torch.tensor([-1.0, 0.3]))
    assert [value.item() for value in other.refresh_()] == [value.item() for value in scale.refresh_()]


def test_copies_are_independent() -> None:
    scale = scale_of([1.0, 3.0])
    twin = copy.deepcopy(scale)
    twin.observe(torch.tensor([50.0]))
    twin.refresh_()
    assert scale.mean.item() == 2.0
    assert_close(scale.first_moment, torch.tensor(0.2, dtype=torch.float64))
