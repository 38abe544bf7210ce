"""Row 35 of the failure modes: timestamps of all kinds, and what is none."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from everlearn.core.errors import DataError
from everlearn.markets.instants import from_text, instants, text_of

NEW_YEAR = 1_704_067_200_000_000
HOUR = 3_600_000_000


def series(values: Any, dtype: Any = None) -> pl.Series:
    return pl.Series("timestamp", values, dtype=dtype)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["2024-01-01"], pl.String),
        (["2024-01-01T00:00"], pl.String),
        (["2024-01-01T00:00:00"], pl.String),
        (["2024-01-01 00:00:00.000"], pl.String),
        (["2024-01-01T00:00:00Z"], pl.String),
        (["2024-01-01T02:00:00+02:00"], pl.String),
        (["2023-12-31 19:00:00-0500"], pl.String),
        (["2023-12-31 19:00:00-05"], pl.String),
        ([datetime(2024, 1, 1)], pl.Datetime("ms")),
        ([datetime(2024, 1, 1)], pl.Datetime("us")),
        ([datetime(2024, 1, 1)], pl.Datetime("ns")),
        ([datetime(2024, 1, 1, tzinfo=UTC)], pl.Datetime("us", "Europe/Berlin")),
        ([date(2024, 1, 1)], pl.Date),
        ([1_704_067_200], pl.Int64),
        ([1_704_067_200], pl.UInt32),
        ([1_704_067_200], pl.Int128),
    ],
    ids=str,
)
def test_timestamps_of_all_kinds_are_one_and_without_a_zone_they_are_utc(values: Any, dtype: Any) -> None:
    found = instants(series(values, dtype), "T")
    assert (found.dtype, found.tolist()) == (np.int64, [NEW_YEAR])


def test_fractions_of_seconds_are_kept_to_the_microsecond() -> None:
    texts = series(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:01.000001Z"])
    assert (instants(texts, "T") - NEW_YEAR).tolist() == [0, 500_000, 1_000_001]


def test_before_1970_is_negative() -> None:
    assert instants(series([-1], pl.Int64), "T").tolist() == [-1_000_000]
    assert instants(series(["1969-12-31T23:59:59"]), "T").tolist() == [-1_000_000]


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64, pl.Datetime("us", "UTC"), pl.Date, pl.Null], ids=str)
def test_of_no_rows_there_are_no_instants(dtype: Any) -> None:
    found = instants(series([], dtype), "T")
    assert (found.dtype, found.shape) == (np.int64, (0,))


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64, pl.Datetime("us"), pl.Null], ids=str)
def test_a_missing_timestamp_is_refused_with_its_row(dtype: Any) -> None:
    column = series([0, 0, None], pl.Int64).cast(dtype) if dtype != pl.Null else series([None])
    with pytest.raises(DataError, match=rf"T: row {len(column) - 1} has no 'timestamp'"):
        instants(column, "T")


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"], r"\+01:00, Z"),
        (["2024-03-31T00:00:00+01:00", "2024-03-31T04:00:00+02:00"], r"\+01:00, \+02:00"),
        (["2024-01-01T00:00:00", "2024-01-01T01:00:00Z"], "Z, none"),
        (["2024-01-01", "2024-01-01T01:00:00Z"], "Z, none"),
        (["2024-01-01 00:00:00-05", "2024-01-01 00:00:00-06"], "-05, -06"),
    ],
    ids=str,
)
def test_texts_in_several_time_zones_are_refused_and_the_zones_named(texts: list[str], named: str) -> None:
    with pytest.raises(DataError, match=rf"T: 'timestamp' mixes time zones \({named}\)"):
        instants(series(texts), "T")


def test_time_zones_are_compared_from_piece_to_piece() -> None:
    zones: set[str] = set()
    instants(series(["2024-01-01T00:00:00Z"]), "T", zones)
    instants(series([], pl.String), "T", zones)
    instants(series(["2024-01-01T01:00:00Z"]), "T", zones)
    with pytest.raises(DataError, match=r"\+01:00, Z"):
        instants(series(["2024-01-01T03:00:00+01:00"]), "T", zones)


@pytest.mark.parametrize(
    "text",
    [
        *("01/02/2024", "01/02/2024 10:00", "02-01-2024", "2024/01/02", "24-01-02", "2024-1-2"),  # whose month is it?
        *("20240102", "1704067200", "now", "2024-13-01", "2024-02-30T00:00:00", "2024-01-01T24:00:00", ""),
        *("2024-01-01T00:00:00 UTC", " 2024-01-01"),
    ],
)
def test_texts_other_than_iso_8601_are_refused_and_not_guessed(text: str) -> None:
    with pytest.raises(DataError) as caught:
        instants(series(["2024-01-01", text]), "T")
    assert f"T: row 1 has 'timestamp' = {text!r}, no timestamp in ISO 8601" in str(caught.value)
    with pytest.raises(DataError, match="row 0 has"):
        instants(series([text]), "T")


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1_704_067_200_000, pl.Int64),  # milliseconds
        (1_704_067_200_000_000, pl.Int64),
        (253_402_300_800, pl.Int64),  # the year 10000
        (-62_135_596_801, pl.Int64),
        (2**64 - 1, pl.UInt64),
        (-(2**63), pl.Int64),
        (2**100, pl.Int128),
    ],
    ids=str,
)
def test_integers_that_are_no_seconds_are_refused_and_do_not_overflow(value: int, dtype: Any) -> None:
    with pytest.raises(DataError, match="T: 'timestamp' has timestamps outside the years 1 to 9999"):
        instants(series([0, value], dtype), "T")


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("us"), pl.Date], ids=str)
def test_datetimes_outside_the_calendar_are_refused_and_polars_does_not_panic(dtype: Any) -> None:
    steps = series([0, 2**30 if dtype == pl.Date else 2**62], pl.Int32 if dtype == pl.Date else pl.Int64)
    with pytest.raises(DataError, match="outside the years 1 to 9999"):
        instants(steps.cast(dtype), "T")


def test_the_ends_of_the_calendar_are_inside() -> None:
    ends = instants(series([-62_135_596_800, 253_402_300_799], pl.Int64), "T")
    assert [text_of(each) for each in ends] == ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"]


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Boolean, pl.Time, pl.Duration, pl.Categorical], ids=str)
def test_another_kind_of_column_is_no_timestamp_even_without_rows(dtype: Any) -> None:
    with pytest.raises(DataError, match=rf"T: 'timestamp' is {dtype}.*, no timestamp"):
        instants(series([], dtype), "T")


def test_numbers_with_fractions_are_no_timestamps() -> None:
    with pytest.raises(DataError, match="'timestamp' is Float64, no timestamp"):
        instants(series([1_704_067_200.0]), "T")


def test_an_instant_and_its_text_are_the_same() -> None:
    assert text_of(NEW_YEAR + 1) == "2024-01-01T00:00:00.000001+00:00"
    assert from_text("2024-01-01T00:00:00.000001+00:00") == NEW_YEAR + 1
    assert from_text("2024-01-01") == from_text("2024-01-01T01:00:00+01:00") == NEW_YEAR
    assert from_text("2024-01-01T01:00") == NEW_YEAR + HOUR
    with pytest.raises(ValueError, match="Invalid isoformat"):
        from_text("yesterday")
