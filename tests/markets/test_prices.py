"""Generated markets are what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.markets.prices import FEATURES, PriceGenerator, RandomWalkPrices, RegimePrices, generators
from everlearn.markets.tables import read_table

KINDS: list[type[Any]] = [RegimePrices, RandomWalkPrices]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_give_an_equal_table(kind: type[Any], untouched_generators: None) -> None:
    first = kind(bars=50, seed=4, symbols=2).prices()
    assert first.equals(kind(bars=50, seed=4, symbols=2).prices())
    assert not first.equals(kind(bars=50, seed=5, symbols=2).prices())


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_has_as_many_bars_at_equal_distances_for_each_symbol(kind: type[Any]) -> None:
    table = kind(bars=40, symbols=3).prices()
    assert table["symbol"].to_list() == ["S0"] * 40 + ["S1"] * 40 + ["S2"] * 40
    for part in table.partition_by("symbol"):
        assert part["timestamp"].diff().n_unique() == 2  # the first has none
        assert part["timestamp"].is_sorted()
    assert table.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert table.drop("symbol", "timestamp").null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_bars_fit_together(kind: type[Any]) -> None:
    table = kind(bars=300).prices()
    body = table.select(low=pl.min_horizontal("open", "close"), high=pl.max_horizontal("open", "close"))
    assert (table["open"][1:] == table["close"][:-1]).all()
    assert (table["high"] >= body["high"]).all()
    assert (table["low"] <= body["low"]).all()
    assert table["low"].min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_closes_up_to_their_bar(kind: type[Any]) -> None:
    table = kind(bars=400, seed=3).prices()
    logs = np.log(table["close"].to_numpy())
    returns = np.concatenate([[logs[0] - math.log(table["open"][0])], np.diff(logs)])
    assert table["return_1"].to_numpy() == pytest.approx(returns, abs=1e-12)
    for bar in (130, 257, 399):
        for span in (8, 32, 128):
            assert table[f"momentum_{span}"][bar] == pytest.approx(logs[bar] - logs[bar - span], abs=1e-11)
        square = sum(each**2 for each in returns[bar - 31 : bar + 1]) / 32
        assert table["volatility_32"][bar] == pytest.approx(math.sqrt(square), abs=1e-12)
    assert set(FEATURES) <= set(table.columns)


def test_the_first_bar_has_features_of_bars_before_it() -> None:
    """With one regime and hardly any noise each of 128 bars before it went the same way."""
    first = RegimePrices(bars=5, switch=0.0, trend=0.002, volatility=1e-9).prices().row(0, named=True)
    assert abs(first["momentum_128"]) == pytest.approx(128 * 0.002, rel=1e-4)
    assert first["volatility_32"] == pytest.approx(0.002, rel=1e-4)


def test_a_market_with_regimes_drifts_one_way_or_the_other_and_changes_at_the_stated_rate() -> None:
    drift = RegimePrices(trend=0.003, switch=0.02).drift(np.random.default_rng(0), 50_000)
    assert set(drift.tolist()) == {0.003, -0.003}
    changes = np.mean(np.diff(drift) != 0)
    assert changes == pytest.approx(0.02, abs=4 * math.sqrt(0.02 / 50_000))
    steady = RegimePrices(trend=0.003, switch=0.0)
    assert {float(steady.drift(np.random.default_rng(seed), 9).mean()) for seed in range(9)} == {0.003, -0.003}


def test_returns_with_regimes_have_the_stated_drift_and_volatility() -> None:
    returns = RegimePrices(bars=20_000, switch=0.0, trend=0.002, volatility=0.01).prices()["return_1"]
    assert abs(returns.mean()) == pytest.approx(0.002, abs=4 * 0.01 / math.sqrt(20_000))
    assert returns.std() == pytest.approx(0.01, rel=0.02)


def test_momentum_tells_the_regime() -> None:
    table = RegimePrices(bars=20_000, trend=0.002, switch=0.01).prices()
    following = table["close"].log().diff().shift(-1)[:-1].to_numpy()
    assert np.corrcoef(table["momentum_32"][:-1].to_numpy(), following)[0, 1] > 4 / math.sqrt(20_000)


def test_in_a_random_walk_the_price_is_expected_to_stay_and_nothing_tells_where_it_goes() -> None:
    table = RandomWalkPrices(bars=40_000, volatility=0.02).prices()
    growth = np.exp(table["return_1"].to_numpy())
    bound = 4 / math.sqrt(40_000)
    assert growth.mean() == pytest.approx(1.0, abs=0.02 * bound)
    assert table["return_1"].mean() == pytest.approx(-0.0002, abs=0.02 * bound)
    for name in FEATURES:
        assert abs(np.corrcoef(table[name][:-1].to_numpy(), growth[1:])[0, 1]) < bound, name


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_are_independent_and_a_further_one_changes_none(kind: type[Any]) -> None:
    table = kind(bars=10_000, symbols=2).prices()
    first, second = (part["return_1"].to_numpy() for part in table.partition_by("symbol"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / math.sqrt(10_000)
    assert kind(bars=10_000).prices().equals(table.head(10_000))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"), [("bars", 0), ("symbols", 0), ("seed", -1), ("volatility", 0.0), ("volatility", math.nan)]
)
def test_impossible_arguments_are_refused(kind: type[Any], name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("switch", 1.5), ("switch", -0.1), ("trend", math.nan), ("trend", -0.1)])
def test_impossible_regimes_are_refused(name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=name):
        RegimePrices(**{name: value})


def test_generated_prices_are_tables_by_their_names() -> None:
    assert [*generators] == ["regimes", "random_walk"]
    made = read_table({"kind": "regimes", "bars": 12, "seed": 3})
    assert made.equals(RegimePrices(bars=12, seed=3).prices())
    assert issubclass(generators["random_walk"], PriceGenerator)
