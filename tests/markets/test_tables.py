"""Row 35 of the failure modes: columns and rows of a table are checked, and not repaired."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.tables import (
    between,
    check_columns,
    check_prices,
    feature_values,
    pieces,
    prices_of,
    require_rising,
    rows_by_symbol,
    scan_table,
)

SPEC = FeatureSpec(("a", "b"), (0.0,) * 2, (1.0,) * 2, ("Float64", "Float64"), symbol="symbol")

# --- columns --------------------------------------------------------------------------------------------------------


def kinds(**types: Any) -> dict[str, Any]:
    return {"timestamp": pl.Int64(), "symbol": pl.String(), "a": pl.Float64(), "b": pl.Float64()} | types


def test_the_columns_of_the_specification_are_enough_among_others() -> None:
    check_columns({"z": pl.String(), **kinds(), "note": pl.String()}, SPEC, "T")
    check_columns({"a": pl.Int8(), "symbol": pl.Null(), "b": pl.Null(), "timestamp": pl.Date()}, SPEC, "T")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"timestamp": 0, "symbol": 0, "a": 0}, "T: the policy needs columns that the table lacks: 'b'"),
        ({"timestamp": 0, "symbol": 0, "a": 0, "bb": 0}, "'b'. Did you mean 'bb'"),
        ({"Timestamp": 0, "symbol": 0, "A": 0, "b": 0}, r"'timestamp'. Did you mean 'Timestamp'\?; 'a'. Known: A, "),
        ({"timestamp": 0, "a": 0, "b": 0}, "'symbol'"),
        ({"timestamp": 0, "symbol": 0, "b": 0, "a": 0}, "in another order than in training: b, a, not a, b"),
        (kinds(b=pl.String()), "the feature 'b' is String, and was Float64 in training. Give numbers"),
        (kinds(b=pl.Boolean()), "the feature 'b' is Boolean, and was Float64 in training. Give numbers"),
        (kinds(b=pl.Date()), "the feature 'b' is Date"),
        (kinds(b=pl.List(pl.Float64())), "the feature 'b' is List"),
        (kinds(b=pl.Object()), "the feature 'b' is Object"),
    ],
    ids=range(10),
)
def test_columns_that_do_not_fit_are_refused_and_named(columns: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_columns({name: kind or pl.Int64() for name, kind in columns.items()}, SPEC, "T")


def test_numbers_are_no_truth_values() -> None:
    flag = FeatureSpec(("a",), (0.5,), (0.5,), ("Boolean",))
    check_columns({"timestamp": pl.Int64(), "a": pl.Boolean()}, flag, "T")
    with pytest.raises(DataError, match=r"'a' is Float64, and was Boolean in training. Give truth values"):
        check_columns({"timestamp": pl.Int64(), "a": pl.Float64()}, flag, "T")


def test_prices_are_there_and_are_numbers() -> None:
    check_prices({"close": pl.Int64()}, SPEC, "T")
    with pytest.raises(DataError, match=r"T: there is no column 'close' with prices. Did you mean 'Close'"):
        check_prices({"Close": pl.Int64()}, SPEC, "T")
    with pytest.raises(DataError, match=r"T: the prices 'close' are Boolean. Give numbers"):
        check_prices({"close": pl.Boolean()}, SPEC, "T")
    assert str(prices_of(pl.DataFrame({"close": [1, None]}), SPEC).tolist()) == "[1.0, nan]"


@pytest.mark.parametrize("dtype", [*(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128), *(pl.UInt8, pl.UInt64)])
def test_integers_of_every_type_are_features(dtype: Any) -> None:
    frame = pl.DataFrame({"a": pl.Series([1, None, 3], dtype=dtype), "b": [None, None, None]})
    assert str(feature_values(frame, SPEC, "T").tolist()) == "[[1.0, nan], [nan, nan], [3.0, nan]]"


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**53 + 1, pl.Int64), (-(2**53) - 1, pl.Int64), (2**64 - 1, pl.UInt64), (2**100, pl.Int128)]
)
def test_integers_that_would_lose_digits_are_refused(value: int, dtype: Any) -> None:
    frame = pl.DataFrame({"a": pl.Series([0, value], dtype=dtype), "b": [0, 0]})
    with pytest.raises(DataError, match=r"T: the feature 'a' has integers beyond 2\^53"):
        feature_values(frame, SPEC, "T")


def test_the_largest_integers_that_lose_none_are_read() -> None:
    frame = pl.DataFrame({"a": [2**53, -(2**53)], "b": [0, 0]})
    assert feature_values(frame, SPEC, "T")[:, 0].tolist() == [2**53, -(2**53)]


# --- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_pieces_are_the_rows_in_order(rows: int) -> None:
    frame = pl.DataFrame({"row": range(10)})
    found = [*pieces(frame.lazy(), rows)]
    assert pl.concat(found).equals(frame)
    assert max(piece.height for piece in found) <= rows


def test_pieces_of_a_file_are_the_rows_in_order(tmp_path: Path) -> None:
    frame = pl.DataFrame({"row": range(5000)})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=700)
    frame.write_csv(tmp_path / "t.csv")
    for name in ("t.parquet", "t.csv"):
        assert pl.concat([*pieces(scan_table(tmp_path / name), 256)]).equals(frame)


def test_a_column_of_symbols_may_have_any_name() -> None:
    named = FeatureSpec(("a",), (0.0,), (1.0,), ("",), symbol="row")
    assert rows_by_symbol(pl.DataFrame({"row": ["b"]}), named, "T")["b"].tolist() == [0]


@pytest.mark.parametrize("dtype", [pl.String(), pl.Categorical(), pl.Enum(["x"]), pl.Int64(), pl.UInt8()], ids=str)
def test_texts_and_whole_numbers_are_symbols(dtype: Any) -> None:
    check_columns(kinds(symbol=dtype), SPEC, "T")


@pytest.mark.parametrize("dtype", [pl.Float64(), pl.List(pl.String()), pl.Date(), pl.Boolean()], ids=str)
def test_other_kinds_are_no_symbols(dtype: Any) -> None:
    with pytest.raises(DataError, match=r"T: the symbols 'symbol' are .*\. Give texts"):
        check_columns(kinds(symbol=dtype), SPEC, "T")


def test_rows_of_symbols_are_found_in_order_of_appearance() -> None:
    found = rows_by_symbol(pl.DataFrame({"symbol": ["b", "a", "b", "c", "a"]}), SPEC, "T")
    assert {name: rows.tolist() for name, rows in found.items()} == {"b": [0, 2], "a": [1, 4], "c": [3]}
    assert [*found] == ["b", "a", "c"]
    assert rows_by_symbol(pl.DataFrame({"symbol": ["b", "a"]}), FeatureSpec(("a",), (0.0,), (1.0,), ("",)), "T") == {
        None: slice(0, 2)
    }
    with pytest.raises(DataError, match="T: row 1 has no 'symbol'"):
        rows_by_symbol(pl.DataFrame({"symbol": ["b", None]}), SPEC, "T")


@pytest.mark.parametrize(
    ("times", "before", "message"),
    [
        ([1, 2, 2], None, r"T: the bar of 'x' at 1970-01-01T00:00:00.000002\+00:00 is there twice. Keep one of each"),
        (
            [1, 3, 2],
            None,
            r"the bar of 'x' at .*000002\+00:00 comes after that of .*000003\+00:00. Sort .* 'timestamp'",
        ),
        ([2, 3], 2, "is there twice"),
        ([2, 3], 5, "comes after that of"),
        ([2], 2, "is there twice"),
    ],
)
def test_timestamps_that_do_not_rise_are_refused_across_pieces_too(
    times: list[int], before: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        require_rising(np.array(times), before, "x", SPEC, "T")


@pytest.mark.parametrize(("times", "before"), [([], None), ([], 5), ([6], 5), ([1], None), ([1, 2, 9], 0)])
def test_rising_timestamps_pass(times: list[int], before: int | None) -> None:
    require_rising(np.array(times, np.int64), before, None, SPEC, "T")


def test_without_a_symbol_the_message_says_what_may_be_missing() -> None:
    with pytest.raises(DataError, match=r"the bar at .* is there twice. A table of several symbols needs their column"):
        require_rising(np.array([1, 1]), None, None, SPEC, "T")


DAYS = pl.DataFrame({"timestamp": [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)]})


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [
        (None, None, [1, 2, 3]),
        ("2024-01-02", None, [2, 3]),
        (None, "2024-01-02", [1]),
        ("2024-01-02T00:00:00.000001", None, [3]),
        ("2024-01-02T01:00:00+01:00", "2024-01-03T00:00:00Z", [2]),
        ("2024-01-03", "2024-01-01", []),
    ],
)
def test_rows_are_taken_from_the_start_on_and_before_the_end(
    start: str | None, end: str | None, kept: list[int]
) -> None:
    assert between(DAYS, "timestamp", start, end)["timestamp"].dt.day().to_list() == kept


def test_without_a_range_no_timestamps_are_looked_for() -> None:
    assert between(pl.DataFrame({"a": [1]}), "timestamp", None, None).height == 1


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"start='january' is no timestamp. Write it as 2024-01-31T00:00:00"):
        between(DAYS, "timestamp", "january", None)
    with pytest.raises(DataError, match=r"The table: there is no column 'time'. Did you mean 'timestamp'"):
        between(DAYS, "time", "2024-01-01", None)
