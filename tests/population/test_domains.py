import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.domains import Choices, Domain, Interval, divisors, is_number
from everlearn.population.scales import LinearScale, LogitScale, LogScale, OneMinusScale, Scale

FACTORS = (1.2, 1 / 1.2)


class Coin:
    """A generator that always decides for up, or always for down."""

    def __init__(self, up: bool) -> None:
        self.random = lambda: 0.0 if up else 0.9


UP, DOWN = Coin(up=True), Coin(up=False)


def log(low: float, high: float) -> Interval:
    return Interval(LogScale(), low, high)


def whole(low: int, high: int, scale: Scale | None = None) -> Interval:
    return Interval(scale or LinearScale(), low, high, whole=True)


@pytest.mark.parametrize(
    ("domain", "value", "up", "down"),
    [
        (log(1e-4, 1e-2), 1e-3, 1.2e-3, 1e-3 / 1.2),
        (Interval(LinearScale(), 0.0, 1.0), 0.5, 0.6, 0.5 / 1.2),
        (Interval(OneMinusScale(), 0.9, 0.999), 0.99, 1 - 0.01 / 1.2, 0.988),
        (whole(1, 100), 10, 12, 8),
        (whole(1, 100), 2, 3, 1),
        (Choices((32, 64, 128)), 64, 128, 32),
    ],
)
def test_a_step_is_a_factor_or_the_neighbour(domain: Domain, value, up, down) -> None:
    assert domain.perturbed(value, FACTORS, UP) == pytest.approx(up, rel=1e-12)
    assert domain.perturbed(value, FACTORS, DOWN) == pytest.approx(down, rel=1e-12)


@pytest.mark.parametrize(
    ("domain", "value", "moved"),
    [
        (log(1e-4, 1e-2), 1e-2, 1e-2 / 1.2),
        (log(1e-4, 1e-2), 9e-3, 1e-2),
        (whole(1, 8), 8, 7),
        (Choices((32, 64, 128)), 128, 64),
        (Interval(LinearScale(), -1.0, 0.0), 0.0, -1 / 6),
    ],
)
def test_b30_where_a_bound_is_in_the_way_the_step_leads_back(domain: Domain, value, moved) -> None:
    assert domain.perturbed(value, FACTORS, UP) == pytest.approx(moved, rel=1e-12)


def test_b30_zero_is_left_again() -> None:
    assert Interval(LinearScale(), 0.0, 0.1).perturbed(0.0, FACTORS, UP) == pytest.approx(0.02)
    assert Interval(LinearScale(), 0.0, 0.1).perturbed(0.0, FACTORS, DOWN) == pytest.approx(0.02)


def test_a_single_value_stays() -> None:
    assert Choices([3]).perturbed(5, FACTORS, UP) == 3


@pytest.mark.parametrize(
    ("domain", "given_value", "nearest"),
    [
        (whole(2, 10), 3.6, 4),
        (whole(2, 10), -5, 2),
        (whole(2, 10), math.inf, 10),
        (whole(2, 10), -math.inf, 2),
        (whole(2, 10), math.nan, 2),
        (whole(2, 10), "x", 2),
        (whole(2, 10), True, 2),
        (log(1e-4, 1e-2), np.float32(0.5), 1e-2),
        (Choices((32, 64)), 50, 64),
        (Choices((32, 64)), "x", 32),
        (Choices(("relu", "tanh")), "tanh", "tanh"),
        (Choices(((0.9, 0.99), (0.8, 0.9))), [0.8, 0.9], (0.8, 0.9)),
        (Choices((np.float64(0.5), np.int64(2))), 2, 2),
    ],
)
def test_row_30_whatever_comes_becomes_a_value_of_the_type(domain: Domain, given_value, nearest) -> None:
    found = domain.nearest(given_value)
    assert found == nearest
    assert type(found) is type(nearest)
    assert domain.contains(found)


@pytest.mark.parametrize(
    ("domain", "value", "verdict"),
    [
        (whole(1, 3), 2, True),
        (whole(1, 3), 2.0, True),
        (whole(1, 3), 2.5, False),
        (whole(1, 3), 4, False),
        (whole(1, 3), True, False),
        (log(1e-4, 1e-2), 1e-2, True),
        (log(1e-4, 1e-2), 1.1e-2, False),
        (log(1e-4, 1e-2), math.nan, False),
        (log(1e-4, 1e-2), None, False),
        (Choices((True, False)), 1, False),
        (Choices((1, 2)), True, False),
        (Choices((1, 2)), 1.0, False),
        (Choices((None, 0.5)), None, True),
    ],
)
def test_what_belongs_to_a_domain(domain: Domain, value, verdict: bool) -> None:
    assert domain.contains(value) is verdict


INTERVALS = st.sampled_from(
    [
        log(1e-6, 1e-2),
        Interval(LinearScale(), -2.0, 3.0),
        Interval(LinearScale(), 0.0, 1e-3),
        Interval(OneMinusScale(), 0.5, 0.9999),
        Interval(LogitScale(), 0.01, 0.99),
        whole(-3, 4),
        whole(1, 4096, LogScale()),
        whole(0, 2),
    ]
)


@given(INTERVALS, st.integers(0, 2**32), st.floats(1.01, 5.0))
def test_b30_draws_and_steps_stay_inside_keep_their_type_and_always_move(domain: Interval, seed: int, factor) -> None:
    generator = np.random.default_rng(seed)
    value = domain.sample(generator)
    for _ in range(20):
        assert domain.contains(value)
        assert type(value) is (int if domain.whole else float)
        moved = domain.perturbed(value, (factor, 1 / factor), generator)
        assert moved != value
        value = moved


@given(INTERVALS, st.floats(0, 1))
def test_coordinates_lead_there_and_back(domain: Interval, coordinate: float) -> None:
    value = domain.at(coordinate)
    assert domain.contains(value)
    assert 0 <= domain.coordinate(value) <= 1
    assert domain.at(domain.coordinate(value)) == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_coordinates_are_even_on_the_scale() -> None:
    assert log(1e-4, 1e-2).coordinate(1e-3) == pytest.approx(0.5)
    assert log(1e-4, 1e-2).at(0.25) == pytest.approx(1e-4 * 10**0.5)
    assert Choices((1, 2)).coordinate(1) is None
    with pytest.raises(ArgumentError, match="no coordinates"):
        Choices((1, 2)).at(0.5)


def test_whole_numbers_are_equally_likely() -> None:
    generator = np.random.default_rng(0)
    draws = [whole(1, 4).sample(generator) for _ in range(4000)]
    assert np.bincount(draws).tolist()[1:] == pytest.approx([1000] * 4, rel=0.1)


def test_choices_and_both_directions_are_equally_likely() -> None:
    generator, choices = np.random.default_rng(0), Choices(("a", "b", "c"))
    draws = [choices.sample(generator) for _ in range(3000)]
    steps = [choices.perturbed("b", FACTORS, generator) for _ in range(2000)]
    numbers = [log(1e-4, 1e-2).perturbed(1e-3, FACTORS, generator) > 1e-3 for _ in range(2000)]
    assert [draws.count(each) for each in "abc"] == pytest.approx([1000] * 3, rel=0.1)
    assert [steps.count(each) for each in "abc"] == pytest.approx([1000, 0, 1000], rel=0.1)
    assert sum(numbers) == pytest.approx(1000, rel=0.1)


def test_draws_may_come_from_a_function_and_are_put_inside() -> None:
    domain = Interval(LinearScale(), 0.0, 1.0, draw=lambda generator: generator.normal(0.5, 5))
    generator = np.random.default_rng(0)
    draws = {domain.sample(generator) for _ in range(100)}
    assert {0.0, 1.0} <= draws
    assert len(draws) > 5
    assert all(map(domain.contains, draws))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (2.0, 1.0, "has to be below"),
        (1.0, 1.0, "has to be below"),
        (-1e308, 1e308, "has to be below"),
        (math.nan, 1.0, "no finite number"),
        (0.0, math.inf, "no finite number"),
        (True, 2.0, "no finite number"),
    ],
)
def test_bounds_that_do_not_rise_are_refused(low, high, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"lr: .*{message}"):
        Interval(LinearScale(), low, high, name="lr")


def test_bounds_outside_of_the_scale_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"lr: the range .* above 0"):
        Interval(LogScale(), 0.0, 1.0, name="lr")


def test_bounds_of_whole_numbers_are_whole() -> None:
    with pytest.raises(ArgumentError, match=r"no whole number"):
        whole(1, 2.5)


def test_choices_are_some_and_different() -> None:
    assert Choices((1, True, 1.0)).values == (1, True, 1.0)
    with pytest.raises(ConfigError, match="n: 1 is there twice"):
        Choices((2, 1, 1), "n")
    with pytest.raises(ConfigError, match="n: there is no value"):
        Choices((), "n")


def test_choices_are_plain_python() -> None:
    choices = Choices((np.float64(0.5), [1, np.int64(2)], {"kind": "linear", "points": [0.1]}))
    assert choices.values == (0.5, (1, 2), {"kind": "linear", "points": (0.1,)})
    assert type(choices.values[0]) is float
    assert choices.contains({"kind": "linear", "points": [0.1]})


def test_divisors_within_bounds() -> None:
    assert divisors(2048, 32, 512) == (32, 64, 128, 256, 512)
    assert divisors(12, 0, 100) == (1, 2, 3, 4, 6, 12)
    assert divisors(7, 2, 6) == ()


@pytest.mark.parametrize(("value", "verdict"), [(1, True), (0.5, True), (np.int8(1), True), (np.float32(1), True)])
def test_numbers(value, verdict: bool) -> None:
    assert is_number(value) is verdict


@pytest.mark.parametrize("value", [True, np.bool_(True), None, "1", math.nan, math.inf, 1j])
def test_no_numbers(value) -> None:
    assert not is_number(value)
