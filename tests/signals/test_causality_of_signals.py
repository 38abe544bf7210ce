"""A row of signals depends on the rows up to its own, and not on how the table was cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import DataError
from everlearn.signals import SignalPredictor
from tests.signals.markets_for_tests import bars, bits, in_pieces, predictor

VALUE = st.sampled_from([0.0, 0.02, -0.03, 0.5, -1.5, 40.0, np.inf, np.nan, None])
PRICE = st.sampled_from([100.0, 101.0, 99.5, 120.0, 100.0, 98.0, None, 0.0, np.nan])
ROW = st.tuples(st.sampled_from(["gold", "salt", "tin"]), st.integers(1, 7200), VALUE, VALUE, PRICE)
CASES = [("continuous", 1, False), ("continuous", 5, False), ("discrete", 3, False), ("continuous", 4, True)]
POLARS = {"timestamp": pl.Int64, "symbol": pl.String, "close": pl.Float64, "slope": pl.Float64, "spread": pl.Float64}


@st.composite
def tables(draw: Any) -> pl.DataFrame:
    """Bars of several symbols in any order, each later than the ones before, with holes and wild values."""
    now: dict[str, int] = {}
    rows = []
    for symbol, seconds, slope, spread, close in draw(st.lists(ROW, min_size=1, max_size=30)):
        now[symbol] = now.get(symbol, 0) + seconds
        rows.append((now[symbol], symbol, close, slope, spread))
    return pl.DataFrame(rows, schema=POLARS, orient="row")


@pytest.mark.parametrize(("positions", "window", "account"), CASES)
def test_signals_for_the_first_rows_are_the_first_rows_of_all_signals(
    positions: str, window: int, account: bool
) -> None:
    made = predictor(positions, window, account)

    @settings(max_examples=15)
    @given(tables(), st.integers(0, 30))
    def holds(table: pl.DataFrame, rows: int) -> None:
        assert bits(made.predict(table.head(rows))) == bits(made.predict(table).head(rows))

    holds()


@pytest.mark.parametrize(("positions", "window", "account"), CASES)
def test_pieces_of_any_size_change_nothing(positions: str, window: int, account: bool) -> None:
    made = predictor(positions, window, account)

    @settings(max_examples=15)
    @given(tables(), st.integers(1, 12))
    def holds(table: pl.DataFrame, rows: int) -> None:
        assert bits(in_pieces(made, rows).predict(table)) == bits(made.predict(table))

    holds()


@pytest.mark.parametrize(("positions", "window", "account"), CASES)
def test_a_number_stands_where_a_row_is_valid_and_nowhere_else(positions: str, window: int, account: bool) -> None:
    made = predictor(positions, window, account)

    @settings(max_examples=15)
    @given(tables())
    def holds(table: pl.DataFrame) -> None:
        found = made.predict(table)
        for name in ("score", "position", "value_q05", "value_q50", "value_q95"):
            assert found[name].is_not_null().to_list() == found["valid"].to_list()
            assert found[name].drop_nulls().is_finite().all()
        assert (found["reason"] == "ok").to_list() == found["valid"].to_list()
        assert (found.filter(~pl.col("valid"))["signal"] == "HOLD").all()

    holds()


class Foreseeing(SignalPredictor):
    """One that knows how many rows there will be."""

    def predict(self, table: Any, **options: Any) -> pl.DataFrame:
        found = super().predict(table, **options)
        return found.with_columns(score=pl.col("score").reverse())


def test_what_looks_ahead_is_found() -> None:
    made = predictor("continuous", 1, True)
    assert made.require_causal(bars(20), prefixes=4)[-1] == 39
    with pytest.raises(DataError, match="'score' looks ahead"):
        Foreseeing(made.spec, made._decide, "m").require_causal(bars(20))
