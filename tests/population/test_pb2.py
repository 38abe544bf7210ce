import math

import numpy as np
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.population.members import Observation, Record
from everlearn.population.pb2 import PB2, kappa
from everlearn.population.space import HyperparamConfig, SearchSpace

SPACE = SearchSpace([HyperparamConfig("x", 0.0, 1.0), HyperparamConfig("batch_size", values=(32, 64, 128))])


def record(member_id: int, x: float, *seen: tuple[int, float, float], generation: int = 0) -> Record:
    observations = tuple(Observation(time, {"x": place, "batch_size": 64}, gain) for time, place, gain in seen)
    return Record(member_id, {"x": x, "batch_size": 64}, 1.0, generation=generation, observations=observations)


def chosen(*population: Record, seed: int = 0, **options) -> dict:
    generator = np.random.default_rng(seed)
    return PB2(**options).explored(population[0].hyperparams, SPACE, population, generator)


@pytest.mark.parametrize(("observations", "value"), [(0, 0.2), (1, 0.2), (2, 0.2), (10, 0.2 + math.log(4))])
def test_kappa_grows_with_what_is_known(observations: int, value: float) -> None:
    assert kappa(observations) == pytest.approx(math.sqrt(value))


def test_numbers_go_where_the_gain_was() -> None:
    """The gain has its peak at 0.7; everywhere it was looked at."""
    seen = [(0, x, -10 * (x - 0.7) ** 2) for x in np.linspace(0, 1, 21)]
    found = [chosen(record(0, 0.5, *seen), seed=seed)["x"] for seed in range(5)]
    assert found == pytest.approx([0.7] * 5, abs=0.1)


def test_the_latest_counts_when_the_peak_has_moved() -> None:
    early = [(0, x, math.exp(-((x - 0.2) ** 2) / 0.02)) for x in np.linspace(0, 1, 15)]
    late = [(40, x, math.exp(-((x - 0.7) ** 2) / 0.02)) for x in np.linspace(0, 1, 15)]
    assert chosen(record(0, 0.5, *early, *late, generation=40))["x"] == pytest.approx(0.7, abs=0.1)
    assert chosen(record(0, 0.5, *early, *late, generation=40), memory=15)["x"] == pytest.approx(0.7, abs=0.1)


def test_without_observations_it_keeps_away_from_what_is_being_tried() -> None:
    tried = [record(number, 0.05 * number) for number in range(10)]
    assert chosen(*tried)["x"] > 0.9


def test_copies_of_one_generation_spread_out() -> None:
    population = [record(0, 0.5), record(1, 0.5)]
    first = chosen(*population)["x"]
    second = chosen(*population, record(2, first))["x"]
    assert abs(first - second) > 0.5


def test_choices_take_a_step() -> None:
    assert {chosen(record(0, 0.5), seed=seed)["batch_size"] for seed in range(20)} == {32, 128}


def test_a_space_of_choices_alone_is_explored_too() -> None:
    space = SearchSpace([HyperparamConfig("batch_size", values=(32, 64))])
    population = (Record(0, {"batch_size": 32}, 1.0),)
    assert PB2().explored({"batch_size": 32}, space, population, np.random.default_rng(0)) == {"batch_size": 64}


@pytest.mark.parametrize("options", [{"candidates": 0}, {"memory": 0}])
def test_options_outside_of_their_range_are_refused(options) -> None:
    with pytest.raises(ArgumentError):
        PB2(**options)
