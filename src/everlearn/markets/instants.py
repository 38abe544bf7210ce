"""Timestamps of all kinds as one: microseconds since 1970 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from everlearn.core.errors import DataError

SECOND = 1_000_000
_DATE, _OFFSET = r"^\d{4}-\d{2}-\d{2}", r"[T ].*?(Z|z|[+-]\d{2}(?::?\d{2})?)$"
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds from 1970 to the beginning of the year 1, and to the end of 9999."""


def instants(series: pl.Series, where: str, zones: set[str] | None = None) -> np.ndarray:
    """A column of timestamps in microseconds, (rows,): datetimes, dates, ISO 8601 texts, or whole seconds since 1970.

    Times without a zone are taken for UTC.

    Args:
        series: The column.
        where: The table, for the message.
        zones: Of texts in earlier pieces of the table; that of these is added.

    Raises:
        DataError: If a timestamp is missing or none, or they are of several time zones.
    """
    if series.null_count():
        raise DataError(f"{where}: row {series.is_null().arg_true()[0]:,} has no '{series.name}'.")
    if series.dtype == pl.String:
        series = _from_texts(series, where, set() if zones is None else zones)
    if series.dtype == pl.Null:  # of no rows, so it could be anything
        series = series.cast(pl.Int64)
    _require_calendar(series, where)
    if series.dtype.is_integer():
        return series.cast(pl.Int64).to_numpy() * SECOND
    return series.cast(pl.Datetime("us")).to_physical().to_numpy()


def text_of(instant: int) -> str:
    """An instant as ISO 8601 in UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(instant))).isoformat()


def from_text(text: str) -> int:
    """The instant of an ISO 8601 text; without a zone it is UTC.

    Raises:
        ValueError: If it is none.
    """
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _require_calendar(series: pl.Series, where: str) -> None:
    """Refuse what is no timestamp, and years outside 1 to 9999: casts would overflow, and most are milliseconds."""
    each_second = _steps_of_a_second(series.dtype)
    if each_second is None:
        raise DataError(
            f"{where}: '{series.name}' is {series.dtype}, no timestamp. Give datetimes, ISO 8601 texts, or whole "
            "seconds since 1970."
        )
    steps: Any = series.to_physical()
    if len(steps) and not _FIRST * each_second <= steps.min() <= steps.max() <= _LAST * each_second:
        raise DataError(
            f"{where}: '{series.name}' has timestamps outside the years 1 to 9999. Integers are seconds since 1970."
        )


def _steps_of_a_second(dtype: pl.DataType) -> float | None:
    """How many of the integers that a type holds go into a second; None if they are no timestamps."""
    if isinstance(dtype, pl.Datetime):
        return {"ms": 1_000, "us": SECOND, "ns": 1_000 * SECOND}[dtype.time_unit]
    if dtype.is_integer():
        return 1
    return 1 / 86_400 if dtype == pl.Date else None


def _from_texts(series: pl.Series, where: str, zones: set[str]) -> pl.Series:
    dates = series.str.contains(_DATE)
    if not dates.all():  # other forms would be guessed, and 01/02 is January in one country and February in another
        raise _no_timestamp(series, dates.arg_min() or 0, where)
    zones |= {each or "none" for each in series.str.extract(_OFFSET, 1).unique()}
    if len(zones) > 1:
        named = ", ".join(sorted(zones))
        raise DataError(f"{where}: '{series.name}' mixes time zones ({named}). Write all in one, best in UTC.")
    try:
        times = series.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError as error:
        raise _no_timestamp(series, 0, where) from error
    if times.null_count():
        raise _no_timestamp(series, times.is_null().arg_true()[0], where)
    return times


def _no_timestamp(series: pl.Series, row: int, where: str) -> DataError:
    return DataError(
        f"{where}: row {row:,} has '{series.name}' = {series[row]!r:.100}, no timestamp in ISO 8601. Write all in one "
        "form."
    )
