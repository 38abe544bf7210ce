"""The bars of each symbol of a table that is to be traded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from everlearn.core.errors import ArgumentError, DataError
from everlearn.markets.account import LOOK_AHEAD
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import instants, text_of
from everlearn.markets.tables import (
    check_columns,
    check_prices,
    feature_values,
    prices_of,
    require_rising,
    rows_by_symbol,
)
from everlearn.markets.windows import FeatureWindows, Reason


@dataclass(frozen=True)
class Series:
    """The bars of one symbol.

    Attributes:
        symbol: Whose; None in a table of one.
        times: Microseconds, (bars,).
        prices: At which positions change, (bars,).
        windows: What the policy observes.
        first: The first bar whose observation is complete.
    """

    symbol: Any
    times: np.ndarray
    prices: np.ndarray
    windows: FeatureWindows
    first: int

    def __len__(self) -> int:
        return len(self.times)


def feature_spec_of(spec: FeatureSpec | Mapping[str, Any], frame: pl.DataFrame) -> FeatureSpec:
    """A specification, or one with the arguments of ``FeatureSpec.fit``, fitted on a table.

    Raises:
        ArgumentError: If the arguments name no features.
    """
    if isinstance(spec, FeatureSpec):
        return spec
    if "features" not in spec:
        raise ArgumentError(f"spec: {dict(spec)!r} names no features. Give a FeatureSpec, or features: [...].")
    given = dict(spec)
    return FeatureSpec.fit(frame, given.pop("features"), **given)


def series_of(frame: pl.DataFrame, spec: FeatureSpec, where: str = "The table") -> list[Series]:
    """The bars of every symbol, each complete from its first whole observation on.

    Raises:
        DataError: If the table does not fit the specification, a bar cannot be observed or has no price, or there are
            too few.
    """
    columns = dict(frame.schema)
    check_columns(columns, spec, where)
    check_prices(columns, spec, where)
    if not frame.height:
        raise DataError(f"{where}: there are no rows.")
    values, times = feature_values(frame, spec, where), instants(frame[spec.timestamp], where)
    prices = prices_of(frame, spec)
    found = []
    for symbol, rows in rows_by_symbol(frame, spec, where).items():
        require_rising(times[rows], None, symbol, spec, where)
        windows = FeatureWindows(spec, values[rows], times[rows])
        complete = np.flatnonzero(windows.reasons < Reason.nan_feature)
        first = int(complete[0]) if len(complete) else len(windows)
        found.append(Series(symbol, times[rows], prices[rows], windows, first))
        _require_tradable(found[-1], where)
    return found


def _require_tradable(series: Series, where: str) -> None:
    """Refuse gaps behind the first complete observation, impossible prices, and too few bars."""
    of = "" if series.symbol is None else f" of '{series.symbol}'"
    first, times = series.first, series.times
    if len(series) - first < LOOK_AHEAD + 1:
        raise DataError(
            f"{where}: the bars{of} are too few: {len(series)}, of which {first} lie before the first complete "
            f"observation, which {LOOK_AHEAD} more have to follow."
        )
    missing = np.flatnonzero(series.windows.reasons[first:] == Reason.nan_feature)
    if len(missing):
        when = text_of(times[first + missing[0]])
        raise DataError(f"{where}: a feature{of} is missing at or shortly before {when}. Fill or drop such bars first.")
    prices = series.prices[first:]
    wrong = np.flatnonzero(~(np.isfinite(prices) & (prices > 0)))
    if len(wrong):
        when = text_of(times[first + wrong[0]])
        raise DataError(f"{where}: the price{of} at {when} is {prices[wrong[0]]}. Prices are above 0.")
