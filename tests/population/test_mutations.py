"""What Ray Tune takes as ``hyperparam_mutations``; its domains are stood in for by classes of the same attributes."""

import random

import numpy as np
import pytest

from everlearn.core.errors import ConfigError
from everlearn.population.domains import Choices, Interval
from everlearn.population.mutations import from_mutations
from everlearn.population.scales import LinearScale, LogScale


class _LogUniform:
    pass


class _Uniform:
    pass


class Quantized:
    def __init__(self, sampler, q) -> None:
        self.sampler, self.q = sampler, q


class Float:
    def __init__(self, lower=None, upper=None, sampler=None) -> None:
        self.lower = lower if lower is not None else float("-inf")
        self.upper = upper if upper is not None else float("inf")
        self._sampler = sampler

    def get_sampler(self):
        return self._sampler or _Uniform()

    def sample(self, config=None, size=1):
        return float(np.random.normal(3.0, 0.1))


class Integer(Float):
    pass


class Categorical:
    def __init__(self, categories) -> None:
        self.categories = categories


class FloatDistribution:
    """As another library has it."""

    def __init__(self, low, high, log=False) -> None:
        self.low, self.high, self.log = low, high, log


class IntDistribution(FloatDistribution):
    pass


def domain(spec):
    (config,) = from_mutations({"x": spec})
    return config.allowed


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ([1e-3, 5e-4, 1e-4], (1e-3, 5e-4, 1e-4)),
        ((16, 32), (16, 32)),
        (np.array([1, 2]), (1, 2)),
        (Categorical(["a", "b"]), ("a", "b")),
        (Integer(3, 4), (3,)),
        (Integer(10, 30, Quantized(_Uniform(), 10)), (10, 20, 30)),
        (Float(0.1, 0.45, Quantized(_Uniform(), 0.1)), (0.1, 0.2, 0.3, 0.4)),
        (lambda: random.choice([64, 32]), (32, 64)),
        (lambda: random.choice(["relu"]), ("relu",)),
        (lambda generator: int(generator.integers(2)), (0, 1)),
    ],
)
def test_some_values_are_choices(spec, values) -> None:
    found = domain(spec)
    assert isinstance(found, Choices)
    assert found.values == values


@pytest.mark.parametrize(
    ("spec", "low", "high", "scale", "is_whole"),
    [
        ({"min": 0.0, "max": 1.0}, 0.0, 1.0, LinearScale, False),
        ({"min": 1e-5, "max": 1e-3, "log": True}, 1e-5, 1e-3, LogScale, False),
        ({"min": 1, "max": 9}, 1, 9, LinearScale, True),
        ({"min": 1, "max": 9, "scale": "log"}, 1.0, 9.0, LogScale, False),
        (Float(0.0, 1.0), 0.0, 1.0, LinearScale, False),
        (Float(1e-4, 1e-1, _LogUniform()), 1e-4, 1e-1, LogScale, False),
        (Integer(1, 10), 1, 9, LinearScale, True),
        (FloatDistribution(1e-4, 1e-1, log=True), 1e-4, 1e-1, LogScale, False),
        (IntDistribution(1, 10), 1, 10, LinearScale, True),
    ],
)
def test_what_has_bounds_is_a_range(spec, low, high, scale, is_whole: bool) -> None:
    found = domain(spec)
    assert isinstance(found, Interval)
    assert (found.low, found.high, found.whole) == (low, high, is_whole)
    assert isinstance(found.scale, scale)


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        (lambda: random.uniform(1.0, 2.0), 1.0, 2.0),
        (lambda: np.random.uniform(-1.0, 2.0), -1.0, 2.0),
        (lambda generator: generator.uniform(1.0, 2.0), 1.0, 2.0),
        (lambda: random.randint(0, 1000), 0, 1000),
        (lambda low=0.5: random.uniform(low, 1.0), 0.5, 1.0),
        (np.random.random_sample, 0.0, 1.0),
    ],
)
def test_row_30_what_a_function_gives_is_bounded_by_what_it_gave(spec, low, high) -> None:
    found = domain(spec)
    assert isinstance(found, Interval)
    width = high - low
    assert low <= found.low < low + 0.02 * width
    assert high - 0.02 * width < found.high <= high
    assert type(found.sample(np.random.default_rng(0))) is type(low)
    assert found.perturbed(found.high, (1.2, 0.8), np.random.default_rng(0)) < found.high


def test_positive_numbers_of_a_function_are_seen_on_a_logarithmic_scale() -> None:
    assert isinstance(domain(lambda: random.uniform(0.1, 0.9)).scale, LogScale)
    assert isinstance(domain(lambda: random.uniform(-0.1, 0.9)).scale, LinearScale)


@pytest.mark.parametrize("spec", [Float(), Float(lower=0.0), Float(upper=9.0)])
def test_a_domain_without_bounds_is_drawn_from(spec) -> None:
    found = domain(spec)
    assert isinstance(found, Interval)
    assert 2 < found.low < found.high < 4


def test_functions_are_reproducible_and_leave_the_global_generators(untouched_generators: None) -> None:
    for spec in (random.random, lambda: np.random.normal(), lambda: random.choice("ab"), Float()):
        first, second = (from_mutations({"x": spec})[0].allowed for _ in range(2))
        draws = [[each.sample(np.random.default_rng(seed)) for seed in range(5)] for each in (first, second)]
        assert draws[0] == draws[1]
        assert len(set(draws[0])) > 1


def test_nested_dictionaries_have_dots_in_their_names() -> None:
    found = from_mutations({"lr": [1, 2], "optimizer": {"sigma": {"min": 1e-4, "max": 1e-2}, "more": {"deep": (1, 2)}}})
    assert [config.name for config in found] == ["lr", "optimizer.sigma", "optimizer.more.deep"]
    bounds = {"x": {"min": {"a": [1, 2]}, "max": {"a": [3, 4]}}}
    assert [config.name for config in from_mutations(bounds)] == ["x.min.a", "x.max.a"]


def test_factors_and_probability_are_those_of_all() -> None:
    (config,) = from_mutations({"x": {"min": 0.0, "max": 10.0}}, (1.2, 0.8), resample_probability=0.0)
    assert (config.factors, config.resample_probability) == ((1.2, 0.8), 0.0)
    (config,) = from_mutations({"x": [1, 2]})
    assert (config.perturbation_factor, config.resample_probability) == (1.2, 0.25)


@pytest.mark.parametrize(
    ("mutations", "message"),
    [
        ({"x": 3}, r"x=3 is no space"),
        ({"optimizer": {"sigma": "high"}}, r"optimizer.sigma='high' is no space"),
        ({"x": {"min": 0.0, "max": 1.0, "logarithmic": True}}, "x.logarithmic is unknown. Known: log, max, min, scale"),
        ({"x": {"min": 0.0}}, "x.min=0.0 is no space"),
        ({3: [1, 2]}, "the key 3 is no name"),
        ({"x": []}, "there is no value"),
        ({"x": lambda: object()}, "x gives more than numbers"),
        ({"n_critics": [1, 2]}, "belongs to an agent's structure"),
    ],
)
def test_what_is_no_space_is_refused_by_its_name(mutations, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mutations(mutations)
