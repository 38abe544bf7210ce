import math

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.population.scales import LinearScale, LogitScale, LogScale, OneMinusScale, scales

EACH = [(LinearScale(), 0.25), (LogScale(), 0.25), (OneMinusScale(), 0.25), (LogitScale(), 0.25), (LinearScale(), -3.0)]


@pytest.mark.parametrize(
    ("scale", "value", "factor", "moved"),
    [
        (LinearScale(), 0.5, 1.2, 0.6),
        (LinearScale(), 0.6, 1 / 1.2, 0.5),
        (LinearScale(), -1.0, 1.25, -0.8),
        (LinearScale(), -0.8, 0.8, -1.0),
        (LinearScale(), 0.0, 1.2, 0.4),
        (LinearScale(), 0.0, 0.8, -0.4),
        (LogScale(), 1e-4, 1.2, 1.2e-4),
        (OneMinusScale(), 0.99, 1.25, 0.992),
        (OneMinusScale(), 0.99, 0.5, 0.98),
        (LogitScale(), 0.5, 3.0, 0.75),
        (LogitScale(), 0.75, 1 / 3, 0.5),
    ],
)
def test_a_factor_multiplies_what_the_scale_is_about(scale, value: float, factor: float, moved: float) -> None:
    assert scale.times(value, factor, width=2.0) == pytest.approx(moved, abs=1e-12)


@pytest.mark.parametrize(
    ("scale", "value", "position"),
    [
        (LinearScale(), 0.3, 0.3),
        (LogScale(), math.e**2, 2.0),
        (OneMinusScale(), 0.99, math.log(100)),
        (LogitScale(), 0.9, math.log(9)),
    ],
)
def test_positions_are_uniform_in_the_right_quantity(scale, value: float, position: float) -> None:
    assert scale.position(value) == pytest.approx(position, rel=1e-12)
    assert scale.value(position) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("scale", "value"), EACH)
def test_a_factor_above_one_leads_up_and_below_one_down(scale, value: float) -> None:
    assert scale.times(value, 0.8, 1.0) < value < scale.times(value, 1.2, 1.0)


@pytest.mark.parametrize(
    ("name", "low", "high", "where"),
    [
        ("log", 0.0, 1.0, "above 0"),
        ("one_minus", 0.0, 1.0, "below 1"),
        ("logit", 0.0, 0.5, "between 0 and 1"),
        ("logit", 0.5, 1.0, "between 0 and 1"),
    ],
)
def test_a_range_outside_of_the_scale_is_refused(name: str, low: float, high: float, where: str) -> None:
    with pytest.raises(ArgumentError, match=rf"gamma: the range .* {where}.*'{name}'"):
        scales.build(name).require(low, high, "gamma")


def test_ranges_inside_of_the_scales_are_taken() -> None:
    LinearScale().require(-5, 5, "x")
    LogScale().require(1e-300, 5, "x")
    OneMinusScale().require(-5, 0.9, "x")
    LogitScale().require(0.1, 0.9, "x")
