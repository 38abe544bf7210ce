import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from everlearn.gradients.factors import (
    FACTOR_RULES,
    noise_factors,
    relative_factors,
    scale_factor,
    scaling_factors,
    scope_matrix,
    weighted_mean,
)

ONES = torch.ones(3, dtype=torch.float64)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def factors(noise, signal, trusted=(True, True, True), *, scope="tensor", groups=(0, 0, 0), rule=noise_factors):
    return scaling_factors(
        noise,
        signal,
        0.01 * noise,
        torch.tensor(trusted),
        ONES,
        rule=rule,
        same_scope=scope_matrix(scope, groups, like=noise),
        alpha=0.5,
        min_scale=0.1,
        tiny=1e-8,
    )


@pytest.mark.parametrize(("ratio", "factor"), [(0.0, 1.0), (2.0, 0.5), (6.0, 0.25), (1e8, 0.1)])
def test_the_factor_falls_with_noise_to_signal_down_to_its_floor(ratio, factor):
    assert scale_factor(tensor(ratio), 0.5, 0.1).item() == pytest.approx(factor, rel=1e-12)


def test_strength_and_floor_may_be_tensors():
    found = scale_factor(tensor(2.0, 1e8), torch.tensor(0.5), torch.tensor(0.1, dtype=torch.float64))
    assert found.tolist() == [0.5, 0.1]


def test_the_noise_rule_divides_noise_by_signal():
    assert factors(tensor(0.0, 4.0, 1.0), tensor(1.0, 2.0, -1.0)).tolist() == [1.0, 0.5, 0.1]


def test_b16_a_tensor_that_is_not_trusted_has_factor_exactly_one():
    assert factors(tensor(4.0, 4.0, 4.0), tensor(2.0, 2.0, 2.0), (False, True, False)).tolist() == [
        1.0,
        0.5,
        1.0,
    ]


def test_a_group_shares_the_factor_of_its_summed_noise_and_signal():
    noise, signal = tensor(3.0, 1.0, 6.0), tensor(1.0, 1.0, 1.0)
    assert factors(noise, signal, scope="group", groups=(0, 0, 1)).tolist() == [0.5, 0.5, 0.25]


def test_the_global_scope_gives_all_tensors_one_factor():
    noise, signal = tensor(4.0, 2.0, 0.0), tensor(1.0, 1.0, 1.0)
    assert factors(noise, signal, scope="global").tolist() == [0.5, 0.5, 0.5]


def test_the_relative_rule_moves_step_size_from_noisy_tensors_to_quiet_ones():
    # shares of signal 0.5, 0.5, 0.125: the mean over 1, 1 and 2 elements is 0.3125
    found = relative_factors(
        tensor(1.0, 2.0, 7.0), tensor(1.0, 2.0, 1.0), 0 * ONES, tensor(1.0, 1.0, 2.0), 0.5, 0.1, 1e-8
    )
    assert found.tolist() == pytest.approx([1.6**0.5, 1.6**0.5, 0.4**0.5], rel=1e-12)


def test_relative_factors_stay_between_the_floor_and_its_reciprocal():
    found = relative_factors(
        tensor(0.0, 1.0, 1.0), tensor(1.0, 0.0, 0.0), 0 * ONES, tensor(1.0, 50.0, 50.0), 1.0, 0.25, 1e-8
    )
    assert found.tolist() == [4.0, 0.25, 0.25]


def test_relative_factors_are_one_where_nothing_has_signal():
    assert relative_factors(ONES, -ONES, 0 * ONES, ONES, 0.5, 0.1, 1e-8).tolist() == [1.0, 1.0, 1.0]


def test_a_tensor_without_gradients_takes_no_part_in_the_reference():
    # shares 0.5 and 0.25: relative to their mean 4/3 and 2/3
    found = relative_factors(
        tensor(1.0, 0.0, 3.0), tensor(1.0, 0.0, 1.0), 0 * ONES, tensor(1.0, 9.0, 1.0), 1.0, 0.1, 1e-8
    )
    assert found.tolist() == pytest.approx([4 / 3, 1.0, 2 / 3], rel=1e-12)


def test_a_tensor_without_visible_signal_counts_as_just_visible():
    # shares 0.2 (from the resolution 0.25) and 0.8: relative to their mean 0.4 and 1.6
    found = relative_factors(tensor(1.0, 1.0), tensor(-3.0, 4.0), tensor(0.25, 0.25), tensor(1.0, 1.0), 1.0, 0.1, 1e-8)
    assert found.tolist() == pytest.approx([0.4, 1.6], rel=1e-12)


def test_a_group_shares_what_it_cannot_resolve():
    # shares 0.2 (from the resolution 0.5 of a noise of 2) twice and 0.8: their mean is 0.4
    found = scaling_factors(
        ONES,
        tensor(-3.0, -3.0, 4.0),
        0.25 * ONES,
        ONES.bool(),
        ONES,
        rule=relative_factors,
        same_scope=scope_matrix("group", (0, 0, 1), like=ONES),
        alpha=1.0,
        min_scale=0.1,
        tiny=1e-8,
    )
    assert found.tolist() == pytest.approx([0.5, 0.5, 2.0], rel=1e-12)


@pytest.mark.parametrize("mode", FACTOR_RULES)
def test_a_traced_rule_equals_an_eager_one_on_other_data(mode):
    def run(noise, signal):
        return factors(noise, signal, scope="group", groups=(0, 1, 1), rule=FACTOR_RULES[mode])

    traced = make_fx(run)(tensor(1.0, 2.0, 3.0), tensor(1.0, 1.0, 2.0))
    for _ in range(20):
        noise, signal = torch.rand(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        assert torch.equal(traced(noise, signal), run(noise, signal))


def test_a_weighted_mean_weighs():
    assert weighted_mean(tensor(1.0, 0.5), tensor(3.0, 1.0)).item() == 0.875


def test_a_weighted_mean_never_leaves_the_range_of_its_values():
    for size in range(1, 60):
        values = torch.full((size,), 0.1, dtype=torch.float64)
        assert weighted_mean(values, torch.arange(1, size + 1, dtype=torch.float64)).item() == 0.1
