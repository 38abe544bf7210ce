import numpy as np
import pytest

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.explore import ExploreStrategy, Perturb, PerturbOrResample, Resample, Reset, explores
from everlearn.population.space import HyperparamConfig, SearchSpace
from everlearn.testing.strategies import ExploreConformance


def values(strategy: ExploreStrategy, start: float, n: int = 2000, **config) -> list[float]:
    space = SearchSpace([HyperparamConfig("x", 1.0, 100.0, **config)])
    generator = np.random.default_rng(0)
    return [strategy.explored({"x": start}, space, (), generator)["x"] for _ in range(n)]


@pytest.mark.parametrize("name", sorted(explores))
class TestEveryStrategy(ExploreConformance):
    @pytest.fixture
    def strategy(self, name: str) -> ExploreStrategy:
        return explores.build({"kind": "pb2", "candidates": 50} if name == "pb2" else name)


def test_a_perturbed_value_is_one_factor_away() -> None:
    found = values(Perturb(), 10.0)
    assert set(found) == {12.0, 10.0 / 1.2}
    assert found.count(12.0) == pytest.approx(1000, rel=0.1)
    assert set(values(Perturb(), 10.0, perturbation_factor=(1.5, 0.8))) == {15.0, 8.0}


def test_a_resampled_value_comes_from_everywhere() -> None:
    found = values(Resample(), 10.0)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx([10.9, 50.5, 90.1], rel=0.1)


def test_both_resamples_with_the_probability_of_the_hyperparameter() -> None:
    near = {12.0, 10.0 / 1.2}
    assert sum(value in near for value in values(PerturbOrResample(), 10.0)) == pytest.approx(1500, rel=0.05)
    assert all(value in near for value in values(PerturbOrResample(), 10.0, 200, resample_probability=0.0))
    assert not any(value in near for value in values(PerturbOrResample(), 10.0, 200, resample_probability=1.0))


def test_a_reset_leads_back_to_the_default() -> None:
    found = values(Reset(0.5), 10.0, default=50)
    assert found.count(50.0) == pytest.approx(1000, rel=0.1)
    assert set(found) == {50.0, 12.0, 10.0 / 1.2}


def test_a_reset_needs_defaults() -> None:
    with pytest.raises(ConfigError, match="x: the explore method 'reset' needs a default"):
        Reset().require(SearchSpace([HyperparamConfig("x", 0.0, 1.0)]))
    with pytest.raises(ArgumentError, match="probability"):
        Reset(1.5)


def test_b30_what_the_source_lacks_or_has_outside_is_put_inside() -> None:
    space = SearchSpace([HyperparamConfig("x", 1.0, 100.0)])
    for start in ({}, {"x": -5.0}, {"x": 1e9}, {"x": float("nan")}):
        for strategy in (Perturb(), Resample(), PerturbOrResample()):
            assert 1.0 <= strategy.explored(start, space, (), np.random.default_rng(0))["x"] <= 100.0
