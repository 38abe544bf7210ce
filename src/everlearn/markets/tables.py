"""Tables of bars: read from whatever holds them, whole or in pieces, and checked before anything is made of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from everlearn.core.errors import ArgumentError, ConfigError, DataError, suggestion
from everlearn.markets.csv_files import scanned_csv
from everlearn.markets.instants import from_text, instants, text_of
from everlearn.markets.prices import generators

if TYPE_CHECKING:
    from everlearn.markets.feature_spec import FeatureSpec

FORMATS = ("parquet", "csv", "feather")
_SUFFIXES = {".parquet": "parquet", ".csv": "csv", ".feather": "feather", ".arrow": "feather", ".ipc": "feather"}
_LARGEST_INTEGER = 2**53
"""Up to which float64 has every integer."""
_NO_COLUMN = (NotImplementedError, OverflowError)
"""Of values that no column can hold: complex numbers, integers of more than 128 bits."""


def format_of(path: Path) -> str:
    """``parquet``, ``csv`` or ``feather``, by a path's suffix.

    Raises:
        ConfigError: For another suffix.
    """
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(_SUFFIXES)
        raise ConfigError(f"{path}: the suffix says no format of tables. Use one of: {known}.") from None


def read_table(table: Any, spec: FeatureSpec | None = None) -> pl.DataFrame:
    """A whole table in memory.

    Args:
        table: A path; a table of polars, pandas or pyarrow, or a dictionary of columns; or ``{"kind": ...}`` for
            generated prices.
        spec: Whose columns are read as what they have to be, where the file does not say it.

    Raises:
        DataError: If it is damaged, or no table.
        ConfigError: If there is no such file.
    """
    frame = scan_table(table, spec)
    with told_of(table):
        whole: pl.DataFrame = frame.collect()
    return whole


def scan_table(table: Any, spec: FeatureSpec | None = None) -> pl.LazyFrame:
    """A table that is read when it is needed, piece by piece; arguments and errors as of ``read_table``."""
    if isinstance(table, str | Path):
        return _scanned(Path(table), spec)
    if isinstance(table, pl.LazyFrame):
        return table
    if isinstance(table, Mapping) and "kind" in table:
        return generators.build(table).prices().lazy()
    try:
        if isinstance(table, Mapping):
            return pl.DataFrame(table).lazy()
        if hasattr(table, "__arrow_c_stream__"):
            return pl.DataFrame(table).lazy()
    except (pl.exceptions.PolarsError, ImportError, TypeError, ValueError, *_NO_COLUMN) as error:
        raise DataError(f"The table cannot be read: {error}") from error
    raise ArgumentError(
        f"{type(table).__name__} is no table. Give a path, or a table of polars, pandas (with pyarrow) or pyarrow."
    )


def between(frame: pl.DataFrame, timestamp: str, start: str | None, end: str | None) -> pl.DataFrame:
    """The rows from one timestamp on, before another; ISO 8601, without a zone in UTC.

    Raises:
        ArgumentError: If one is no timestamp.
        DataError: If the table has no such column.
    """
    if start is None and end is None:
        return frame
    times = times_of(frame, timestamp, "The table")
    inside = np.ones(len(times), bool)
    for name, text in (("start", start), ("end", end)):
        if text is not None:
            bound = _bound(name, text)
            inside &= times >= bound if name == "start" else times < bound
    return frame.filter(pl.Series(inside))


def times_of(frame: pl.DataFrame, timestamp: str, where: str) -> np.ndarray:
    """The timestamps of a table in microseconds, (rows,).

    Raises:
        DataError: If the table has no such column, or there is one that is none.
    """
    if timestamp not in frame.columns:
        raise DataError(f"{where}: there is no column '{timestamp}'.{suggestion(timestamp, frame.columns)}")
    return instants(frame[timestamp], where)


def _bound(name: str, text: str) -> int:
    try:
        return from_text(str(text))
    except ValueError as error:
        raise ArgumentError(f"{name}={text!r} is no timestamp. Write it as 2024-01-31T00:00:00.") from error


def pieces(frame: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """The rows of a table in order, at most so many at a time."""
    for piece in frame.collect_batches(chunk_size=rows, maintain_order=True):
        for start in range(0, piece.height, rows):
            yield piece.slice(start, rows)


def _scanned(path: Path, spec: FeatureSpec | None) -> pl.LazyFrame:
    kind = format_of(path)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file. Name a table.")
    with told_of(path):
        if kind == "csv":
            return scanned_csv(path, spec)
        scan = pl.scan_parquet if kind == "parquet" else pl.scan_ipc
        frame: pl.LazyFrame = scan(path, glob=False)  # t[1].parquet is a name, and does not mean t1.parquet
        frame.collect_schema()  # a damaged file is said here
        return frame


@contextmanager
def told_of(table: Any) -> Iterator[None]:
    """What the reading library complains of becomes an error of ours that names the table.

    Raises:
        DataError: Instead of polars's errors, and of what it panics with on damaged files.
    """
    name = str(table) if isinstance(table, str | Path) else "The table"
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeDecodeError, csv.Error) as error:
        first = str(error).strip().split("\n")[0]
        raise DataError(f"{name}: it cannot be read: {first}") from error


def check_columns(columns: Mapping[str, Any], spec: FeatureSpec, where: str) -> None:
    """Row 35 of the failure modes: a table has the columns of the specification, in its order and of its kinds.

    Args:
        columns: Name to type, in the table's order.
        spec: What is wanted.
        where: The table, for the message.

    Raises:
        DataError: Naming all columns that are missing, in another order, or of another kind.
    """
    missing = [name for name in spec.columns if name not in columns]
    if missing:
        lacking = "; ".join(f"'{name}'.{suggestion(name, columns)}" for name in missing)
        raise DataError(f"{where}: the policy needs columns that the table lacks: {lacking}")
    symbols = pl.Null() if spec.symbol is None else columns[spec.symbol]
    if not (symbols.is_integer() or isinstance(symbols, _NAMES)):
        raise DataError(f"{where}: the symbols '{spec.symbol}' are {symbols}. Give texts.")
    found = [name for name in columns if name in spec.features]
    if found != list(spec.features):
        raise DataError(
            f"{where}: the feature columns are in another order than in training: {', '.join(found)}, not "
            f"{', '.join(spec.features)}. If the names are right, select the columns in that order."
        )
    for name, trained in zip(spec.features, spec.dtypes, strict=True):
        kind = _kind(columns[name])
        if kind is None or (trained and kind != _KINDS.get(trained, "number")):
            was = f", and was {trained} in training" if trained else ""
            wanted = "truth values" if trained in _KINDS else "numbers"
            raise DataError(f"{where}: the feature '{name}' is {columns[name]}{was}. Give {wanted}.")


def check_prices(columns: Mapping[str, Any], spec: FeatureSpec, where: str) -> None:
    """A table that is traded, or scored by a policy that sees its account, has prices.

    Raises:
        DataError: If the column is missing, or of another kind.
    """
    if spec.price not in columns:
        lacking = suggestion(spec.price, columns)
        raise DataError(f"{where}: there is no column '{spec.price}' with prices.{lacking} Name it with price=.")
    if _kind(columns[spec.price]) != "number":
        raise DataError(f"{where}: the prices '{spec.price}' are {columns[spec.price]}. Give numbers.")


_KINDS = {"Boolean": "truth value"}
_NAMES = (pl.String, pl.Categorical, pl.Enum, pl.Null)


def _kind(dtype: Any) -> str | None:
    if dtype.is_numeric() or dtype == pl.Null:
        return "number"
    return "truth value" if dtype == pl.Boolean else None


def feature_values(frame: pl.DataFrame, spec: FeatureSpec, where: str) -> np.ndarray:
    """The features in float64, (rows, features), in the memory order of columns; what is missing is NaN.

    Raises:
        DataError: For an integer that float64 has not.
    """
    chosen = frame.select(spec.features)
    for series in chosen:
        ends: list[Any] = [series.min(), series.max()] if series.dtype.is_integer() else []
        if any(end is not None and abs(end) > _LARGEST_INTEGER for end in ends):
            raise DataError(f"{where}: the feature '{series.name}' has integers beyond 2^53, which lose digits.")
    values = chosen.select(pl.all().cast(pl.Float64).fill_null(float("nan"))).to_numpy()
    return np.asarray(values, np.float64)


def prices_of(frame: pl.DataFrame, spec: FeatureSpec) -> np.ndarray:
    """The prices at which positions change in float64, (rows,); what is missing is NaN."""
    return frame[spec.price].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def rows_by_symbol(frame: pl.DataFrame, spec: FeatureSpec, where: str) -> dict[Any, np.ndarray | slice]:
    """Where the bars of each symbol are, in order of appearance; with one symbol, everywhere.

    Raises:
        DataError: If a row has no symbol.
    """
    if spec.symbol is None:
        return {None: slice(0, frame.height)}
    symbols = frame[spec.symbol]
    if symbols.null_count():
        raise DataError(f"{where}: row {symbols.is_null().arg_true()[0]:,} has no '{spec.symbol}'.")
    numbered = symbols.rename("symbol").to_frame().with_row_index("row")
    groups = numbered.group_by("symbol", maintain_order=True).agg("row")
    return {
        symbol: rows.to_numpy().astype(np.int64) for symbol, rows in zip(groups["symbol"], groups["row"], strict=True)
    }


def require_rising(times: np.ndarray, before: int | None, symbol: Any, spec: FeatureSpec, where: str) -> None:
    """Bars of a symbol come one after the other.

    Args:
        times: Of the bars, (rows,), in microseconds.
        before: Of the bar before the first; None if there is none.
        symbol: Whose.
        spec: Names the columns.
        where: The table, for the message.

    Raises:
        DataError: Naming the first timestamp that is there twice, or lies before its predecessor.
    """
    previous = times[:-1] if before is None else np.concatenate([[before], times[:-1]])
    following = times[len(times) - len(previous) :]
    wrong = np.flatnonzero(following <= previous)
    if not len(wrong):
        return
    at, earlier = following[wrong[0]], previous[wrong[0]]
    of = "" if symbol is None else f" of '{symbol}'"
    if at == earlier:
        hint = " A table of several symbols needs their column in the specification." if symbol is None else ""
        raise DataError(f"{where}: the bar{of} at {text_of(at)} is there twice.{hint} Keep one of each.")
    raise DataError(
        f"{where}: the bar{of} at {text_of(at)} comes after that of {text_of(earlier)}. Sort the table by "
        f"'{spec.timestamp}'."
    )


def statistics_of(frame: pl.DataFrame, spec: FeatureSpec) -> dict[str, Any]:
    """What ``FeatureSpec.fit`` finds in a table: means, deviations and types of features, and the last timestamp.

    Raises:
        DataError: If the table does not fit, or a feature has no finite value.
    """
    where = "The table to fit on"
    check_columns(frame.schema, spec, where)
    values = feature_values(frame, spec, where)
    counts = np.isfinite(values).sum(axis=0)
    for name, count in zip(spec.features, counts, strict=True):
        if not count:
            raise DataError(f"{where}: the feature '{name}' has no finite value.")
    finite = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # the specification refuses what is not finite
        mean, std = np.nanmean(finite, axis=0), np.nanstd(finite, axis=0)
    std[std <= 1e-12 * np.maximum(np.abs(mean), 1e-300)] = 1.0
    return {
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
        "dtypes": tuple(str(frame.schema[name]) for name in spec.features),
        "fitted_until": text_of(int(instants(frame[spec.timestamp], where).max())),
    }
