"""The bars of each symbol that can be traded, and tables that cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.series import feature_spec_of, series_of


def spec(**options: Any) -> FeatureSpec:
    return FeatureSpec(("x",), (0.0,), (1.0,), ("Float64",), **options)


def table(x: list[Any] | None = None, close: list[Any] | None = None, **columns: Any) -> pl.DataFrame:
    x = [0.0, 1.0, 2.0, 3.0, 4.0] if x is None else x
    close = [float(100 + bar) for bar in range(len(x))] if close is None else close
    return pl.DataFrame({"timestamp": np.arange(len(x)) * 3600, "close": close, "x": x, **columns})


def test_each_symbol_has_its_own_bars_in_their_order() -> None:
    names = ["b", "a", "b", "a", "b", "a"]
    found = series_of(table(x=[0.0, 1, 2, 3, 4, 5], symbol=names), spec(symbol="symbol"))
    assert [each.symbol for each in found] == ["b", "a"]
    assert [each.prices.tolist() for each in found] == [[100, 102, 104], [101, 103, 105]]
    assert [each.windows.observations(slice(None)).ravel().tolist() for each in found] == [[0, 2, 4], [1, 3, 5]]
    assert [(each.times // 3_600_000_000).tolist() for each in found] == [[0, 2, 4], [1, 3, 5]]


def test_prices_of_any_numbers_are_read() -> None:
    (found,) = series_of(table(close=[1, 2, 3, 4, 5]), spec())
    assert (found.prices.dtype, found.prices.tolist()) == (np.float64, [1, 2, 3, 4, 5])


def test_trading_begins_with_the_first_complete_observation() -> None:
    gap = [math.nan, None, 1.0, 2.0, 3.0, 4.0, 5.0]
    prices = [math.nan, 0.0, -1.0, 4.0, 5.0, 6.0, 7.0]
    (found,) = series_of(table(gap, prices), spec(window=2))
    assert found.first == 3


def test_what_is_out_of_range_or_stale_is_traded() -> None:
    (found,) = series_of(table([99.0, 1, 2, math.inf, 4]), spec(max_gap_seconds=1.0))
    assert (found.first, len(found)) == (0, 5)


@pytest.mark.parametrize("window", [1, 2])
def test_a_gap_behind_the_first_complete_observation_is_refused_with_its_time(window: int) -> None:
    with pytest.raises(DataError, match=r"a feature of 'a' is missing at or shortly before 1970-01-01T02:00:00\+00:00"):
        series_of(table([0.0, 1, math.nan, 3, 4, 5], symbol=["a"] * 6), spec(symbol="symbol", window=window))


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf, None])
def test_a_price_that_is_none_is_refused_with_its_time(price: float | None) -> None:
    named = "nan" if price is None else price
    with pytest.raises(DataError, match=rf"T: the price at 1970-01-01T01:00:00\+00:00 is {named}. Prices are above 0"):
        series_of(table(close=[100.0, price, 100, 100, 100]), spec(), "T")


@pytest.mark.parametrize(("size", "window"), [(2, 1), (4, 3), (1, 5)])
def test_too_few_bars_are_refused(size: int, window: int) -> None:
    before = min(window - 1, size)
    with pytest.raises(DataError, match=rf"the bars are too few: {size}, of which {before} lie before the first"):
        series_of(table([0.0] * size), spec(window=window))
    assert len(series_of(table([0.0] * (window + 2)), spec(window=window))[0]) == window + 2


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().drop("close"), "there is no column 'close' with prices"),
        (table().rename({"close": "Close"}), "Did you mean 'Close'"),
        (table(close=["1", "2", "3", "4", "5"]), "the prices 'close' are String. Give numbers"),
        (table().head(0), "there are no rows"),
        (table().drop("x"), "lacks: 'x'"),
        (table([None] * 5), "the bars are too few"),
        (table().reverse(), r"comes after that of 1970-01-01T04:00:00\+00:00. Sort the table by 'timestamp'"),
        (pl.concat([table(), table()]), r"comes after"),
        (table().with_columns(timestamp=0), r"at 1970-01-01T00:00:00\+00:00 is there twice.*column in the spec"),
    ],
    ids=range(9),
)
def test_a_table_that_cannot_be_traded_is_refused(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        series_of(frame, spec())


def test_a_specification_is_taken_or_fitted_on_the_table() -> None:
    given = spec()
    assert feature_spec_of(given, table()) is given
    assert feature_spec_of({"features": ["x"], "window": 2}, table()) == FeatureSpec.fit(table(), ["x"], window=2)
    with pytest.raises(ArgumentError, match=r"names no features. Give a FeatureSpec, or features: \[...\]"):
        feature_spec_of({"window": 2}, table())
