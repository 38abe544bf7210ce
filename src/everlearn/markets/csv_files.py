"""Tables in csv files, which do not say what their columns are."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from everlearn.core.errors import DataError

if TYPE_CHECKING:
    from everlearn.markets.feature_spec import FeatureSpec


def scanned_csv(path: Path, spec: FeatureSpec | None) -> pl.LazyFrame:
    """A file that is read when it is needed.

    Without guesses where it is known what a column is: pieces of a file could be guessed to be different things.

    Args:
        path: Of the file.
        spec: Whose columns are read as what they have to be; None to guess.

    Raises:
        DataError: If it is empty, or has several columns of one name.
    """
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty, it has not even the names of columns.")
    first = _first_row(path)
    if spec is None:
        return pl.scan_csv(path, infer_schema_length=None, glob=False)
    names = pl.scan_csv(path, infer_schema=False, glob=False).collect_schema().names()
    kinds: dict[str, Any] = dict.fromkeys(names, pl.String)
    seconds = re.fullmatch(r"-?\d+", first.get(spec.timestamp, ""))
    known: dict[str, Any] = {spec.price: pl.Float64, spec.timestamp: pl.Int64 if seconds else pl.String}
    for name, trained in zip(spec.features, spec.dtypes, strict=True):
        known[name] = pl.Boolean if trained == "Boolean" else pl.Float64
    kinds |= {name: kind for name, kind in known.items() if name in kinds}
    return pl.scan_csv(path, schema_overrides=kinds, null_values=["", "null", "NULL", "None", "NA"], glob=False)


def _first_row(path: Path) -> dict[str, str]:
    """Of a csv file, by the names of its columns; polars would give a second of the same name another one."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = (row for row in csv.reader(file) if row)
        names, first = next(rows, []), next(rows, [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: there are several columns {', '.join(map(repr, twice))}. Keep one of each.")
    return dict(zip(names, first, strict=False))
