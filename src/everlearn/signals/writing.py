"""Signals in files: whole or not at all, from tables that may be larger than memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import put_whole, sweep, sync_file
from everlearn.core.errors import ConfigError, DataError
from everlearn.markets.tables import format_of, read_table, scan_table

if TYPE_CHECKING:
    from everlearn.signals.predictor import SignalPredictor

KEY = ("timestamp", "symbol")
"""By which a row of signals is known."""
_SINKS = {"parquet": "sink_parquet", "csv": "sink_csv", "feather": "sink_ipc"}


@dataclass
class Summary:
    """What was written.

    Attributes:
        file: Where.
        model_id: Of the policy that decided.
        rows: That were scored.
        written: Of these; fewer where they were there already.
        valid: Of the rows scored, those that could be decided on.
        signals: How many of each.
        reasons: How many of each.
        first: Timestamp of the first bar; None without rows.
        last: Of the last.
        seconds: That it took.
    """

    file: str
    model_id: str
    rows: int = 0
    written: int = 0
    valid: int = 0
    signals: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    first: str | None = None
    last: str | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a machine."""
        return {**asdict(self), "signals": dict(self.signals), "reasons": dict(self.reasons)}

    def count(self, piece: pl.DataFrame) -> None:
        """Take note of a piece of signals."""
        self.rows += piece.height
        self.valid += int(piece["valid"].sum())
        for column, tally in (("signal", self.signals), ("reason", self.reasons)):
            found = piece[column].value_counts()
            tally.update(dict(zip(found[column].to_list(), found["count"].to_list(), strict=True)))
        if piece.height:
            self.first = self.first or str(piece["timestamp"][0])
            self.last = str(piece["timestamp"][-1])


def write_signals(
    predictor: SignalPredictor,
    table: Any,
    out: str | Path,
    *,
    append: bool = False,
    overwrite: bool = False,
    decided_at: datetime | None = None,
) -> Summary:
    """Score a table into a file, whose format its suffix says; at every moment it is what it was, or the whole new one.

    Args:
        predictor: What scores.
        table: A path, or a table of polars, pandas or pyarrow.
        out: The file: parquet, csv or feather.
        append: Add the rows whose timestamp and symbol the file does not have yet. The table has to begin early enough
            for their windows, and where the policy sees its account, with the first bar of the file. Rows that are
            there stay as they were decided, by whichever model. Doing it again changes nothing. The new rows are held
            in memory meanwhile.
        overwrite: Replace the file if it is there.
        decided_at: For the column of that name; the present by default.

    Raises:
        ConfigError: If the file is there and neither was asked for, or its suffix says no format.
        DataError: If the table does not fit or begins too late, or what is there is no table of signals like these.
        SaveError: If it cannot be written; what was there is untouched.
    """
    started, path = time.monotonic(), Path(out)
    kind, there = format_of(path), path.exists()
    if append and overwrite:
        raise ConfigError(f"{path}: to append and to overwrite exclude each other. Say one.")
    if there and not (append or overwrite):
        raise ConfigError(
            f"{path}: it is there already. Append to it (--append), replace it (--overwrite), or name another."
        )
    summary = Summary(str(path), predictor.model_id)
    moment = decided_at or datetime.now(UTC)
    schema = predictor.schema(table)
    before = _earlier(path, schema) if there and append else None
    if before is not None and predictor.spec.account:
        _require_beginning(before, predictor.predict(scan_table(table, predictor.spec).head(1)), path)
    scored = _counted(predictor.predictions(table, decided_at=moment), summary)
    pieces: Iterable[pl.DataFrame] = scored if before is None else _beyond(scored, before)
    if path.parent.is_dir():
        sweep(path.parent)
    if before is not None:
        _append(path, kind, before, pieces, schema, summary)
    else:
        _write(path, kind, pieces, schema)
        summary.written = summary.rows
    summary.seconds = time.monotonic() - started
    return summary


def _append(
    path: Path,
    kind: str,
    before: pl.DataFrame,
    pieces: Iterable[pl.DataFrame],
    schema: Mapping[str, Any],
    summary: Summary,
) -> None:
    """Write what was there, and what is new; nothing at all if there is nothing new."""
    new = [piece for piece in pieces if piece.height]
    summary.written = sum(piece.height for piece in new)
    if new:
        _write(path, kind, [before, *new], schema)


def _write(path: Path, kind: str, pieces: Iterable[pl.DataFrame], schema: Mapping[str, Any]) -> None:
    """Let polars write pieces as they come.

    Raises:
        SaveError: If it cannot.
    """

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        yield from pieces

    def write(draft: Path) -> None:
        frame = register_io_source(source, schema=dict(schema))
        try:
            getattr(frame, _SINKS[kind])(draft, maintain_order=True)
        except pl.exceptions.PolarsError as error:
            raise SaveError(path, str(error)) from error
        sync_file(draft)

    put_whole(path, write)


def _counted(pieces: Iterable[pl.DataFrame], summary: Summary) -> Iterator[pl.DataFrame]:
    for piece in pieces:
        summary.count(piece)
        yield piece


def _beyond(pieces: Iterable[pl.DataFrame], before: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of pieces that are not there already."""
    known = before.select(KEY)
    for piece in pieces:
        yield piece.join(known, on=list(KEY), how="anti", nulls_equal=True, maintain_order="left")


def _earlier(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """The signals in a file, in the types of new ones.

    Raises:
        DataError: If they are none, or of other columns.
    """
    frame = pl.read_csv(path, infer_schema=False) if format_of(path) == "csv" else read_table(path)
    if frame.columns != list(schema):
        raise DataError(
            f"{path}: its columns are {', '.join(frame.columns)}; new signals have {', '.join(schema)}. Write to "
            "another file, or replace this one (--overwrite)."
        )
    try:
        return frame.select(_typed(frame[name], kind) for name, kind in schema.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: it holds no signals like these: {error}") from error


def _require_beginning(before: pl.DataFrame, first: pl.DataFrame, path: Path) -> None:
    """An account is what all decisions since the first bar have made it."""
    if before.height and not first.select(KEY).equals(before.head(1).select(KEY)):
        raise DataError(
            f"{path}: the policy sees its account, which follows from all bars since {before['timestamp'][0]}; the "
            "table begins with another. Give the whole table."
        )


def _typed(series: pl.Series, kind: Any) -> pl.Series:
    """A column as it would be written anew."""
    if series.dtype == pl.String and isinstance(kind, pl.Datetime):
        return series.str.to_datetime(time_unit=kind.time_unit, time_zone=kind.time_zone)
    if series.dtype == pl.String and kind == pl.Boolean:
        return series == "true"
    return series.cast(kind)
