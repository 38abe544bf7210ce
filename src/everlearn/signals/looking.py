"""What the policy has to see of a table, piece by piece, made while the piece before is decided on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import polars as pl

from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import instants
from everlearn.markets.tables import feature_values, require_rising, rows_by_symbol
from everlearn.markets.windows import FeatureWindows, History
from everlearn.signals.decision import Decide

T = TypeVar("T")
Windows = dict[Any, tuple[np.ndarray | slice, FeatureWindows]]
"""By symbol: which rows of a piece are its, and what is observed there."""


@dataclass(frozen=True)
class Seen:
    """A piece of a table, looked at.

    Attributes:
        piece: Its rows.
        times: Of these, in microseconds, (rows,).
        reasons: Whether each can be decided on, (rows,).
        windows: By symbol.
        observations: What the policy has to see, (rows, size); None where that depends on the account.
    """

    piece: pl.DataFrame
    times: np.ndarray
    reasons: np.ndarray
    windows: Windows
    observations: np.ndarray | None


@dataclass
class Looker:
    """Looks at the pieces of a table in their order.

    Attributes:
        spec: What an observation is.
        decide: Says what it has to see.
        where: The table, for messages.
        rows: That have been looked at.
    """

    spec: FeatureSpec
    decide: Decide
    where: str
    rows: int = 0
    _histories: dict[Any, History] = field(default_factory=dict)
    _zones: set[str] = field(default_factory=set)

    def look(self, piece: pl.DataFrame) -> Seen:
        """Check a piece, and make observations of it and of what is remembered of earlier ones.

        Raises:
            DataError: If a row does not fit, naming it.
        """
        spec, where = self.spec, f"{self.where}, from row {self.rows:,} on" if self.rows else self.where
        values, times = feature_values(piece, spec, where), instants(piece[spec.timestamp], where, self._zones)
        windows: Windows = {}
        for symbol, at in rows_by_symbol(piece, spec, where).items():
            known = self._histories.get(symbol)
            require_rising(times[at], None if known is None else known.last, symbol, spec, where)
            windows[symbol] = at, FeatureWindows(spec, values[at], times[at], known, raw=self.decide.raw)
            self._histories[symbol] = windows[symbol][1].history()
        reasons = np.empty(piece.height, np.uint8)
        for at, each in windows.values():
            reasons[at] = each.reasons
        self.rows += piece.height
        return Seen(piece, times, reasons, windows, None if spec.account else self._observations(windows, piece.height))

    def _observations(self, windows: Windows, rows: int) -> np.ndarray:
        if len(windows) == 1:
            ((_, only),) = windows.values()
            return self.decide.look(only, slice(None), None)
        observations = np.empty((rows, self.spec.size), self.decide.dtype)
        for at, each in windows.values():
            observations[at] = self.decide.look(each, slice(None), None)
        return observations


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by another thread while the one before is in use; an error comes in its place."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="everlearn-ahead") as pool:
        coming: Any = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
