from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.optim.block import Block
from everlearn.optim.rules import largest_utilities_per_parameter, largest_utility, neutral_where_useless
from everlearn.optim.scopes import SCOPES
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.testing.optimizers import held, take_step
from tests.optim.gating import at_zero, multipliers, taken

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]


# --- the gate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
def test_useful_weights_move_less_and_harmful_ones_more(kind):
    taken = multipliers(kind, [4.0, 2.0, 0.4, 0.0, -0.4, -4.0])
    assert taken.tolist() == pytest.approx([0.5379, 0.7551, 0.9500, 1.0, 1.0500, 1.4621], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_the_paper_halves_every_step(kind):
    taken = multipliers(kind, [4.0, 0.0, -4.0], preset="paper").tolist()
    assert taken == pytest.approx([0.2689, 0.5, 0.7311], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_without_a_positive_utility_nothing_is_gated(kind):
    """B10: a negative maximum must not turn the gate around, nor a maximum of zero divide."""
    for utilities in ([-4.0, -1.0, -0.1], [0.0, 0.0, 0.0], [-1.0, 0.0, -2.0]):
        assert multipliers(kind, utilities).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_b10_a_maximum_that_is_not_positive_finite_and_normal_is_neutral():
    """B10: the smallest normal number included; beyond it the reciprocal would overflow."""
    tiny = torch.finfo(torch.float32).tiny
    found = neutral_where_useless(torch.tensor([2.0, 1.5 * tiny, tiny, 0.0, -1.0, torch.nan]))
    assert found.tolist() == [2.0, 1.5 * tiny, torch.inf, torch.inf, torch.inf, torch.inf]


def test_the_largest_utility_is_corrected_unless_asked_otherwise():
    utilities = {"avg_utility": torch.tensor([1.0, -4.0])}
    block = Block(torch.zeros(2), torch.zeros(2), utilities, {"avg_utility": 0.25})
    assert largest_utility(block).item() == largest_utilities_per_parameter(block).item() == 4.0
    assert largest_utility(block, corrected=False).item() == 1.0


@pytest.mark.parametrize("kind", FAMILY)
def test_an_infinite_utility_does_not_switch_the_others_off(kind):
    assert multipliers(kind, [torch.inf, 1.0, 0.0])[1:].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("weight", [1e-3, 1.0])
@pytest.mark.parametrize("unit", [1e-30, 1e-34, 1e-36, 1e-37, 1e-38, 1e-40, 1e-45])
def test_b10_utilities_at_the_edge_of_the_floats_gate_or_do_not_but_stay_finite(kind, unit, weight):
    high, none, low = multipliers(kind, [unit, 0.0, -unit], weight).tolist()
    assert 0.53 < high <= none <= low < 1.47
    assert none == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", FAMILY)
@settings(max_examples=60)
@given(
    utilities=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8),
    scope=st.sampled_from(SCOPES),
)
def test_b11_a_higher_utility_never_means_a_larger_step(kind, utilities, scope):
    """B11: for utilities of any sign; where all are negative or zero, none is gated."""
    taken = multipliers(kind, utilities, scope=scope)
    by_utility = taken[torch.tensor(utilities).argsort()]
    assert (by_utility.diff() <= 1e-6).all()
    if scope in ("global", "group", "tensor") and max(utilities) <= 0:
        assert taken.tolist() == pytest.approx([1.0] * len(utilities), abs=1e-6)
    assert ((taken >= 0) & (taken <= 2 + 1e-6)).all()


def gate_over_time(kind: type[UtilityOptimizer], utilities: Sequence[float], steps: int, **options) -> Tensor:
    """The multipliers after ``steps`` steps in which the utilities are the same: ``-g * w`` with ``g = -1``."""
    weights = torch.tensor(utilities)
    param = nn.Parameter(weights.clone())
    optimizer = kind([param], lr=1.0, weight_decay=0.0, sigma=0.0, **options)
    for _ in range(steps):
        param.detach().copy_(weights)
        take_step(optimizer, [-torch.ones_like(param)])
    return param.detach() - weights


CONSTANT = [1.0, 0.1, 0.01, 0.0, -0.01, -0.1, -1.0]


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("steps", [1, 2, 100])
def test_constant_utilities_gate_the_same_at_every_step(kind, steps):
    """Numerator and maximum are corrected alike, so the age of the averages does not matter."""
    taken = gate_over_time(kind, CONSTANT, steps).tolist()
    assert taken == pytest.approx([0.5379, 0.9500, 0.9950, 1.0, 1.0050, 1.0500, 1.4621], abs=1e-4)


@pytest.mark.parametrize(("steps", "expected"), [(1, [0, 0, 0, 1, 2, 2, 2]), (100, [0, 0.52, 0.95, 1, 1.05, 1.48, 2])])
def test_the_official_preset_saturates_while_the_averages_are_young(steps, expected):
    """The released code's maximum is not corrected: kept to reproduce its results."""
    taken = gate_over_time(UPGD, CONSTANT, steps, preset="official").tolist()
    assert taken == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("kind", FAMILY)
def test_scaling_the_loss_leaves_the_gate_as_it_is(kind):
    small, large = (multipliers(kind, [scale * utility for utility in CONSTANT]) for scale in (1.0, 1e5))
    assert large.tolist() == pytest.approx(small.tolist(), rel=1e-5)


@pytest.mark.parametrize("kind", FAMILY)
def test_the_gate_leaves_the_decay_alone(kind):
    param = nn.Parameter(torch.tensor([1.0, 2.0, -3.0]))
    take_step(kind([param], lr=0.1, weight_decay=0.5, sigma=0.0), [torch.zeros(3)])
    assert param.tolist() == pytest.approx([0.95, 1.9, -2.85])


@pytest.mark.parametrize("kind", FAMILY)
def test_without_protection_the_gradient_is_not_gated(kind):
    assert multipliers(kind, [4.0, 0.0, -4.0], protect=False).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


def test_the_utility_is_that_of_the_gradient_as_it_was_given():
    """After clipping, as published; a factor that a gradient scaler put on the gradient is taken out again."""
    param = nn.Parameter(torch.tensor([2.0, 3.0]))
    optimizer = UPGD([param], beta_utility=0.0)
    param.grad = torch.tensor([-30.0, 40.0])
    torch.nn.utils.clip_grad_norm_([param], 1.0)
    param.grad *= 0.5
    optimizer.scale_next_step([param], torch.tensor([0.5]))
    optimizer.step()
    assert optimizer.state[param]["avg_utility"].tolist() == pytest.approx([1.2, -2.4], rel=1e-5)


@pytest.mark.parametrize("kind", FAMILY)
def test_utilities_of_a_layer_whose_scale_does_not_matter_sum_to_zero_and_still_gate(kind):
    """Before a LayerNorm the gradient is orthogonal to the weights: the gate compares them with each other."""
    layer = nn.Linear(6, 8, bias=False)
    optimizer = kind(layer.parameters(), sigma=0.0)
    normalised = torch.nn.functional.layer_norm(layer(torch.randn(5, 6)), (8,), eps=0.0)
    (normalised * torch.randn(5, 8)).sum().backward()
    optimizer.step()
    utility = optimizer.state[layer.weight]["avg_utility"]
    assert utility.sum().item() == pytest.approx(0.0, abs=1e-5 * utility.abs().sum().item())
    diagnostics = optimizer.diagnostics()
    assert diagnostics["protected"] > 0
    assert diagnostics["refreshed"] > 0


# --- noise ---------------------------------------------------------------------------------------------------------

MANY = 20_000


def resting_noise(kind: type[UtilityOptimizer], gradient: float = 0.0, steps: int = 1, **options) -> float:
    """The standard deviation of weights that began at zero."""
    optimizer = kind(at_zero((MANY,)), seed=1, **{"weight_decay": 0.0, **options})
    for _ in range(steps):
        take_step(optimizer, [torch.full((MANY,), gradient)])
    return held(optimizer)[0].std().item()


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(("preset", "expected"), [(None, 0.05), ("official", 0.05), ("paper", 0.025)])
def test_noise_of_a_useless_weight_has_sigma_times_the_learning_rate(kind, preset, expected):
    assert resting_noise(kind, lr=0.1, sigma=0.5, preset=preset) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("kind", FAMILY)
def test_noise_is_gated(kind):
    """Useful weights rest, also without protection of their gradients."""
    optimizer = kind(at_zero((MANY,), (MANY,)), lr=1.0, weight_decay=0.0, sigma=1.0, protect=False, seed=1)
    useful, harmful = taken(optimizer, [10.0] * MANY, [-10.0] * MANY)
    assert useful.std().item() == pytest.approx(0.538, rel=0.03)
    assert harmful.std().item() == pytest.approx(1.462, rel=0.03)


def test_noise_with_decay_comes_to_rest_at_its_equilibrium():
    """Variance ``(lr * sigma)^2 / (1 - (1 - lr*wd)^2)``: here 0.01 / 0.19."""
    assert resting_noise(UPGD, steps=60, lr=0.1, weight_decay=1.0, sigma=1.0) == pytest.approx(0.2294, rel=0.03)


def test_noise_without_decay_is_a_random_walk():
    assert resting_noise(UPGD, steps=49, lr=0.1, sigma=1.0) == pytest.approx(0.7, rel=0.03)


@pytest.mark.parametrize(("kind", "expected"), [(UPGD, 1.5), (AdaptiveUPGD, 0.5), (UPGDW, 0.5)])
def test_adaptive_noise_is_relative_to_the_update_from_the_first_step(kind, expected):
    """A gradient of 3: that is UPGD's update; Adam's is 1."""
    noise = resting_noise(kind, gradient=3.0, lr=1.0, sigma=0.5, adaptive_noise=True)
    assert noise == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("kind", FAMILY)
def test_adaptive_noise_never_falls_below_its_floor(kind):
    noise = resting_noise(kind, lr=1.0, sigma=0.5, adaptive_noise=True, min_noise_std=0.01)
    assert noise == pytest.approx(0.01, rel=0.03)


@pytest.mark.parametrize("kind", FAMILY)
def test_adaptive_noise_does_not_depend_on_the_size_of_a_tensor(kind):
    params = at_zero((4,), (40, 30), (300, 200))
    optimizer = kind(params, adaptive_noise=True)
    take_step(optimizer, [torch.full_like(param, 3.0) for param in params])
    small, *larger = [(optimizer.state[p]["update_rms"] / optimizer.state[p]["ema_weights"][-1]).item() for p in params]
    assert larger == pytest.approx([small, small], rel=1e-5)
