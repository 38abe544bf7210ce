"""Rows 12 and 35 of the failure modes: wrong tables are refused, and wrong bars are not decided on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from everlearn.core.errors import ConfigError, DataError
from everlearn.signals import SignalPredictor
from tests.signals.markets_for_tests import bars, bits, in_pieces, predictor, saved

TABLE = bars(20)
FORMS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "parquet": lambda table, place: saved(table, place / "t.parquet"),
    "csv": lambda table, place: saved(table, place / "t.csv"),
    "feather": lambda table, place: saved(table, place / "t.feather"),
    "polars": lambda table, _: table,
    "lazy": lambda table, _: table.lazy(),
    "pandas": lambda table, _: table.to_pandas(),
    "pyarrow": lambda table, _: table.to_arrow(),
}
each_form = pytest.mark.parametrize("form", FORMS)


def refused(table: Any, message: str, made: SignalPredictor | None = None) -> None:
    with pytest.raises(DataError, match=message):
        (made or predictor()).predict(table)


# --- columns --------------------------------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop("spread"), "lacks: 'spread'. Known: close, slope, symbol, timestamp"),
        (lambda table: table.rename({"spread": "spreads"}), r"lacks: 'spread'. Did you mean 'spreads'\?"),
        (lambda table: table.rename({"symbol": "Symbol"}), r"lacks: 'symbol'. Did you mean 'Symbol'\?"),
        (lambda table: table.rename({"timestamp": " timestamp"}), "lacks: 'timestamp'. Did you mean ' timestamp'"),
        (lambda table: table.select("timestamp", "symbol", "spread", "slope"), "spread, slope, not slope, spread"),
        (lambda table: table.with_columns(slope=pl.lit("high")), "slope"),
        (lambda table: table.with_columns(slope=pl.lit(True)), "slope"),
        (lambda table: table.with_columns(timestamp=pl.lit(1.5)), "timestamp.*no timestamp"),
    ],
    ids=["missing", "renamed", "renamed symbol", "space", "order", "text", "truth", "number"],
)
def test_columns_that_do_not_fit_are_refused_by_name(form: str, change: Any, message: str, tmp_path: Path) -> None:
    refused(FORMS[form](change(TABLE), tmp_path), message)


@pytest.mark.parametrize("form", ["csv", "pandas", "parquet"])
def test_columns_of_one_name_are_refused(form: str, tmp_path: Path) -> None:
    twice = pd.concat([TABLE.to_pandas(), TABLE.to_pandas()[["slope"]]], axis=1)
    if form == "csv":
        twice.to_csv(tmp_path / "t.csv", index=False)
        refused(tmp_path / "t.csv", "several columns 'slope'")
    else:
        refused(twice, "cannot be read")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop("close"), "there is no column 'close' with prices"),
        (lambda table: table.with_columns(close=pl.lit("high")), "the prices 'close' are String"),
    ],
)
def test_prices_are_needed_where_the_policy_sees_its_account(change: Any, message: str) -> None:
    refused(change(TABLE), message, predictor("continuous", 1, True))
    assert predictor().predict(change(TABLE))["valid"].all()


def test_integers_that_would_lose_digits_are_refused_wherever_they_are() -> None:
    large = TABLE.with_columns(spread=pl.when(pl.int_range(pl.len()) == 33).then(2**60).otherwise(0))
    refused(large, r"from row 30 on: the feature 'spread' has integers beyond 2\^53", in_pieces(predictor(), 10))


# --- timestamps and symbols -----------------------------------------------------------------------------------------


def with_timestamps(values: list[Any], dtype: Any = None) -> pl.DataFrame:
    return TABLE.head(len(values)).with_columns(timestamp=pl.Series(values, dtype=dtype))


@pytest.mark.parametrize("rows", [1, 2, 3, 40])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 10, 10, 20], r"the bar of 'gold' at 1970-01-01T00:00:10\+00:00 is there twice. Keep one of each"),
        ([0, 20, 10, 30], r"at 1970-01-01T00:00:10\+00:00 comes after that of 1970-01-01T00:00:20\+00:00. Sort the"),
        ([0, 10, 20, 253_402_300_800], "outside the years 1 to 9999"),
        ([0, 10, 20, 1_704_067_200_000], "Integers are seconds since 1970"),
        (["2024-01-01", "2024-01-02", "2024-01-03Z", "2024-01-04"], "no timestamp in ISO 8601|mixes time zones"),
        (["2024-01-01T00:00Z", "2024-01-02T00:00Z", "2024-01-03T00:00+01:00"], r"mixes time zones \(\+01:00, Z\)"),
        (["2024-01-01T00:00", "2024-01-02T00:00", "2024-01-03T00:00Z"], r"mixes time zones \(Z, none\)"),
        (["2024-01-01T00:00", "2024-01-02T00:00", "02/01/2024"], "'02/01/2024', no timestamp in ISO 8601"),
    ],
    ids=["twice", "unsorted", "overflow", "milliseconds", "date and zone", "zones", "naive", "form"],
)
def test_timestamps_that_are_wrong_are_refused_across_pieces_too(values: list[Any], message: str, rows: int) -> None:
    refused(with_timestamps(values), message, in_pieces(predictor(), rows))


def nameless(window: int = 1) -> SignalPredictor:
    """One that knows of one symbol only."""
    whole = predictor("continuous", window)
    return SignalPredictor(replace(whole.spec, symbol=None), whole._decide, "m")


def test_timestamps_of_several_symbols_may_repeat_and_go_back() -> None:
    assert predictor().predict(TABLE)["valid"].all()
    assert predictor().predict(TABLE.sort("timestamp"))["valid"].all()
    refused(TABLE.sort("timestamp"), "is there twice. A table of several symbols needs their column", nameless())


@each_form
@pytest.mark.parametrize("name", ["timestamp", "symbol"])
def test_a_missing_timestamp_or_symbol_is_refused_with_its_row(form: str, name: str, tmp_path: Path) -> None:
    hole = TABLE.with_columns(pl.when(pl.int_range(pl.len()) != 7).then(name).alias(name))
    refused(FORMS[form](hole, tmp_path), f"row 7 has no '{name}'")


@pytest.mark.parametrize("name", ["timestamp", "symbol"])
def test_in_a_later_piece_the_row_can_be_found(name: str) -> None:
    hole = TABLE.with_columns(pl.when(pl.int_range(pl.len()) != 27).then(name).alias(name))
    refused(hole, f"from row 20 on: row 7 has no '{name}'", in_pieces(predictor(), 10))


# --- few rows -------------------------------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize(("window", "account"), [(1, False), (5, False), (5, True)])
def test_empty_in_is_empty_out_with_the_same_schema(form: str, window: int, account: bool, tmp_path: Path) -> None:
    made = predictor("continuous", window, account)
    full, empty = (made.predict(FORMS[form](table, tmp_path)) for table in (TABLE, TABLE.head(0)))
    assert empty.schema == full.schema
    assert empty.height == 0


@pytest.mark.parametrize("window", [1, 5])
def test_an_empty_table_that_does_not_know_its_types_is_empty_too(window: int) -> None:
    found = predictor("continuous", window).predict({name: [] for name in TABLE.columns})
    assert found.schema == predictor().predict(TABLE).schema
    assert nameless(window).predict(TABLE.head(0)).schema == found.schema


def test_an_empty_table_still_needs_its_columns() -> None:
    refused(TABLE.head(0).drop("slope"), "lacks: 'slope'")


def test_a_csv_file_without_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"")
    refused(tmp_path / "t.csv", "the file is empty, it has not even the names of columns")


def test_one_row_is_decided_on_or_warm_up() -> None:
    assert predictor().predict(TABLE.head(1))["reason"].to_list() == ["ok"]
    assert predictor("continuous", 5).predict(TABLE.head(1))["reason"].to_list() == ["warmup"]


@pytest.mark.parametrize("account", [False, True])
def test_rows_before_the_first_whole_window_are_warm_up(account: bool) -> None:
    few = TABLE.group_by("symbol", maintain_order=True).head(4)
    found = predictor("continuous", 5, account).predict(few)
    assert found["reason"].to_list() == ["warmup"] * 8
    assert found.select("score", "position", "value_q50").rows() == [(None, None, None)] * 8


# --- files that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_damaged_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = saved(TABLE, tmp_path / f"t.{suffix}")
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, f"t.{suffix}: it cannot be read")


def test_a_place_where_no_table_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.parquet").mkdir()
    for name in ("folder.parquet", "missing.csv"):
        with pytest.raises(ConfigError, match=f"{name}: there is no such file"):
            predictor().predict(tmp_path / name)
    with pytest.raises(ConfigError, match=r"t\.json: the suffix says no format"):
        predictor().predict(tmp_path / "t.json")


# --- bars that cannot be decided on ---------------------------------------------------------------------------------


def gold(signals: pl.DataFrame) -> pl.DataFrame:
    return signals.filter(pl.col("symbol") == "gold")


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("name", ["slope", "spread"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((math.nan, "nan_feature"), (None, "nan_feature"), (math.inf, "out_of_range"), (-math.inf, "out_of_range")),
        *((1e300, "out_of_range"), (-50.0, "out_of_range")),
    ],
)
def test_a_wrong_value_spoils_the_bars_whose_window_holds_it_and_no_bit_of_others(
    value: float | None, reason: str, name: str, window: int
) -> None:
    made = predictor("continuous", window)
    wrong = TABLE.with_columns(pl.when(pl.int_range(pl.len()) == 9).then(value).otherwise(name).alias(name))
    clean, found = made.predict(TABLE), made.predict(wrong)
    spoiled = range(9, 9 + window)
    assert found["reason"][9 : 9 + window].to_list() == [reason] * window
    for row in spoiled:
        assert found.select("signal", "score", "position", "value_q05", "valid").row(row) == (
            *("HOLD", None, None, None, False),
        )
    others = [row for row in range(TABLE.height) if row not in spoiled]
    assert bits(found[others]) == bits(clean[others])


@pytest.mark.parametrize("price", [None, math.nan, 0.0, -5.0, math.inf])
def test_without_a_price_an_account_cannot_be_valued_and_no_order_is_executed(price: float | None) -> None:
    """The bar is not decided on, the position lapses, and later bars are as after a bar that was flat."""
    made = predictor("continuous", 1, True)
    found = made.predict(TABLE.with_columns(close=pl.when(pl.int_range(pl.len()) == 9).then(price).otherwise("close")))
    clean = made.predict(TABLE)
    assert found["reason"].to_list() == ["ok"] * 9 + ["nan_feature"] + ["ok"] * 30
    assert found["score"][9] is None
    assert found["score"].drop_nulls().is_finite().all()
    assert bits(found.head(9)) == bits(clean.head(9))
    assert bits(found.tail(20)) == bits(clean.tail(20))  # another symbol's
    assert bits(found[10:20]) == bits(made.predict(TABLE[10:20]))


def test_what_cannot_be_decided_on_is_flat() -> None:
    """After a bar that was not decided on the account is that of one who begins."""
    made = predictor("continuous", 1, True)
    wrong = TABLE.head(20).with_columns(slope=pl.when(pl.int_range(pl.len()) == 9).then(None).otherwise("slope"))
    found = made.predict(wrong)
    assert bits(found[10:]) == bits(made.predict(TABLE[10:20]))


def test_bars_after_too_long_a_gap_are_stale_while_it_is_in_the_window() -> None:
    made = predictor("continuous", 3)
    patient = SignalPredictor(replace(made.spec, max_gap_seconds=3600.0), made._decide, "m")
    gap = TABLE.filter(~((pl.col("symbol") == "gold") & (pl.col("timestamp").dt.hour() == 8)))
    found = patient.predict(gap)
    assert gold(found)["reason"].to_list() == [*["warmup"] * 2, *["ok"] * 6, *["stale"] * 2, *["ok"] * 9]
    assert found["reason"][-18:].to_list() == ["ok"] * 18
    assert (gold(made.predict(gap))["reason"].to_list()) == [*["warmup"] * 2, *["ok"] * 17]


def test_of_several_reasons_the_highest_is_given() -> None:
    made = predictor("continuous", 2)
    patient = SignalPredictor(replace(made.spec, max_gap_seconds=60.0), made._decide, "m")
    values = [math.nan, 99.0, 99.0, None, 0.0, 0.0]
    found = patient.predict(TABLE.head(6).with_columns(slope=pl.Series(values)))
    assert found["reason"].to_list() == ["warmup", "nan_feature", "out_of_range", "nan_feature", "nan_feature", "stale"]
