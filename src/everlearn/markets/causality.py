"""Whether what is made of a table's rows depends on later rows: that is looked for, not believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from everlearn.core.errors import DataError, require_in_range
from everlearn.markets.tables import read_table


def require_causal(
    function: Callable[[pl.DataFrame], pl.DataFrame],
    table: Any,
    *,
    prefixes: int = 10,
    generator: np.random.Generator | None = None,
) -> list[int]:
    """Row ``t`` of ``function(table)`` does not change when the rows after ``t`` are taken away.

    It is tried on prefixes of random length, one row and all but one among them. Use it on the function that makes your
    features of prices: what a centred average, a scaling by the whole series or a filling backwards knows of the future
    is found here, while a policy could live off it in a backtest.

    Args:
        function: From a table to one with as many rows; an equal table has to give an equal result.
        table: A path, or a table of polars, pandas or pyarrow.
        prefixes: How many to try.
        generator: Draws their lengths.

    Returns:
        The lengths that were tried.

    Raises:
        DataError: Naming column, row and prefix of the first difference.
    """
    require_in_range("prefixes", prefixes, 1)
    frame = read_table(table)
    whole = function(frame)
    if whole.height != frame.height:
        raise DataError(f"The result has {whole.height:,} rows for {frame.height:,}. Keep one row for each.")
    tried = _lengths(frame.height, prefixes, generator or np.random.default_rng(0))
    for length in tried:
        _require_equal(function(frame.head(length)), whole.head(length), length)
    return tried


def _lengths(rows: int, prefixes: int, generator: np.random.Generator) -> list[int]:
    """One row, all but one, and between them lengths of which half are short: beginnings are filled in most often."""
    if rows < 2:
        return []
    number = max(prefixes - 2, 0)
    anywhere, early = generator.uniform(1, rows, number), np.exp(generator.uniform(0, np.log(rows), number))
    between = np.where(np.arange(number) % 2, anywhere, early)
    return sorted({1, rows - 1, *map(int, between)})


def _require_equal(part: pl.DataFrame, whole: pl.DataFrame, length: int) -> None:
    if part.height != length:
        raise DataError(f"The result has {part.height:,} rows for the first {length:,}. Keep one row for each.")
    for name in whole.columns:
        different = whole[name].ne_missing(part[name])
        if different.any():
            row = different.arg_true()[0]
            raise DataError(
                f"'{name}' looks ahead: in row {row:,} it is {whole[name][row]} with all rows, and {part[name][row]} "
                f"with the first {length:,}. Make it from rows up to its own only."
            )
