import math

import pytest

from everlearn.population.welch import incomplete_beta, p_value, upper_tail


@pytest.mark.parametrize(
    ("t", "freedom", "probability"),
    [
        (2.228139, 10, 0.025),
        (1.812461, 10, 0.05),
        (6.313752, 1, 0.05),
        (1.657651, 120, 0.05),
        (0.0, 5, 0.5),
        (-1.812461, 10, 0.95),
    ],
)
def test_tails_are_those_of_the_tables(t: float, freedom: float, probability: float) -> None:
    assert upper_tail(t, freedom) == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "x", "value"),
    [
        (1.0, 1.0, 0.3, 0.3),
        (2.0, 1.0, 0.5, 0.25),
        (0.5, 0.5, 0.5, 0.5),
        (2.0, 3.0, 0.4, 0.5248),
        (5.0, 0.5, 0.9, 0.31664),
        (3.0, 2.0, 0.0, 0.0),
        (3.0, 2.0, 1.0, 1.0),
    ],
)
def test_the_incomplete_beta_function_has_its_known_values(a: float, b: float, x: float, value: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(value, abs=5e-5)


def test_the_cauchy_distribution_is_students_with_one_degree() -> None:
    for t in (0.01, 0.5, 1.0, 30.0):
        assert upper_tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, abs=1e-12)


def test_welchs_own_degrees_of_freedom() -> None:
    """t = 2 with v/n of 1 and 3 over 4 and 2 numbers: 16 / (1/3 + 9/1) = 1.714 degrees."""
    higher, lower = [4.0, 8.0, 4.0, 8.0], [2.0 - math.sqrt(3), 2.0 + math.sqrt(3)]
    mean_variances = (16 / 3) / 4 + 6 / 2
    freedom = mean_variances**2 / (((16 / 3) / 4) ** 2 / 3 + (6 / 2) ** 2 / 1)
    assert p_value(higher, lower) == pytest.approx(upper_tail(4 / math.sqrt(mean_variances), freedom), rel=1e-12)


def test_a_higher_mean_is_less_surprising_the_more_there_is_of_it() -> None:
    low, high = [0.0, 1.0, 2.0], [10.0, 11.0, 12.0]
    assert p_value(high, low) < 0.001
    assert p_value(low, high) > 0.999
    assert p_value(low, low) == pytest.approx(0.5)
    assert p_value([0.5, 1.5], low) == pytest.approx(0.5)


def test_equal_variances_are_the_ordinary_test() -> None:
    assert p_value([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]) == pytest.approx(upper_tail(math.sqrt(1.5), 4), rel=1e-12)
    assert p_value([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]) == pytest.approx(0.1439, abs=1e-4)


def test_samples_that_do_not_vary_are_told_by_their_means() -> None:
    assert p_value([2.0, 2.0], [1.0, 1.0]) == 0.0
    assert p_value([1.0, 1.0], [2.0, 2.0]) == 1.0
    assert p_value([1.0, 1.0], [1.0, 1.0]) == 0.5


def test_tiny_variances_do_not_vanish() -> None:
    assert 0 <= p_value([1.0, 1.0 + 1e-200], [0.0, 1e-200]) < 1e-6
    assert p_value([1e-160, 2e-160], [0.0, 1e-160]) < 0.5
