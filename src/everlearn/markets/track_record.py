"""What an account did in a backtest, bar by bar and on the whole.

``r`` are net simple returns per bar, ``n`` their number, ``P`` the bars per year. What is undefined is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from everlearn.core.errors import ArgumentError, require_in_range

Floats = NDArray[np.float64]

_ROUNDING = 1e-12  # a deviation of this share of the largest value is the rounding error of a constant


def one_per_bar(name: str, values: ArrayLike) -> Floats:
    """The values as an array of one finite number per bar, of one bar or more; anything else is an error."""
    given = np.array(values, dtype=np.float64)
    _require_bars(name, given)
    _require(name, given, np.isfinite(given), "is not finite; leave it out")
    return given


def simple_returns(returns: ArrayLike) -> Floats:
    """One return per bar, each finite and at least -1; anything else is an error."""
    given = one_per_bar("returns", returns)
    _require("returns", given, given >= -1.0, "is below -1; an account loses at most what it has")
    return given


def equity_curve(returns: ArrayLike) -> Floats:
    """``E_0 = 1``, ``E_t = E_{t-1} * (1 + r_t)``: what one unit of money becomes, (bars + 1,)."""
    return np.concatenate([[1.0], np.cumprod(1.0 + simple_returns(returns))])


def drawdown_curve(returns: ArrayLike) -> Floats:
    """``E_t / max_{s <= t} E_s - 1``: how far below its highest point the equity is, (bars + 1,), in [-1, 0]."""
    equity = equity_curve(returns)
    below: Floats = equity / np.maximum.accumulate(equity) - 1.0
    return below


def maximum_drawdown(returns: ArrayLike) -> float:
    """``max_t (1 - E_t / max_{s <= t} E_s)`` of the equity E, its start included: a loss in [0, 1]."""
    return abs(float(drawdown_curve(returns).min()))


def annualised_return(returns: ArrayLike, periods_per_year: float) -> float:
    """``prod(1 + r)^(P/n) - 1``: the constant yearly growth to the same equity; -1 after a ruin."""
    values = simple_returns(returns)
    require_in_range("periods_per_year", periods_per_year, 0.0, open_low=True)
    if values.min() <= -1.0:
        return -1.0
    with np.errstate(over="ignore"):  # a good minute, over and over for a year, is more than any float: infinity
        return float(np.expm1(np.log1p(values).mean() * periods_per_year))


def volatility(returns: ArrayLike, periods_per_year: float) -> float:
    """``std(r) * sqrt(P)`` with ``n - 1`` degrees of freedom; 0 if constant up to rounding, undefined for one bar."""
    values = simple_returns(returns)
    require_in_range("periods_per_year", periods_per_year, 0.0, open_low=True)
    if values.size == 1:
        return math.nan
    deviation = float(values.std(ddof=1))
    return deviation * math.sqrt(periods_per_year) if deviation > _ROUNDING * np.abs(values).max() else 0.0


def turnover(trades: ArrayLike, periods_per_year: float = 1.0) -> float:
    """``mean(|trade|) * P``: what is traded per year in units of equity, or per bar for ``P = 1``."""
    require_in_range("periods_per_year", periods_per_year, 0.0, open_low=True)
    return float(np.abs(one_per_bar("trades", trades)).mean()) * periods_per_year


def exposure(positions: ArrayLike) -> float:
    """``mean(|position|)``: 1 is fully invested, long or short, all the time."""
    return float(np.abs(one_per_bar("positions", positions)).mean())


def hit_rate(returns: ArrayLike, positions: ArrayLike) -> float:
    """The share with ``r > 0`` of the bars that have a position and ``r != 0``; undefined without such a bar."""
    values = simple_returns(returns)
    results = values[(one_per_bar("positions", positions) != 0.0) & (values != 0.0)]
    return float((results > 0.0).mean()) if results.size else math.nan


@final
@dataclass(frozen=True, eq=False)
class TrackRecord:
    """One entry per bar of one account; the arrays are copied and cannot be written to.

    Attributes:
        timestamps: The bars, strictly increasing: datetime64 (kept in microseconds) or integers.
        returns: Net simple return of the account in the bar, costs included; -1 is the loss of everything.
        positions: Position held in the bar, in units of equity: 1 is fully long, -1 fully short.
        trades: Absolute change of the position, executed at the beginning of the bar.
        costs: Share of the equity that was paid for it, already in ``returns``.

    Raises:
        ArgumentError: If an array is not one finite entry per bar, a return is below -1, a trade negative or a
            timestamp not after the one before it; the message names it.
    """

    timestamps: NDArray[Any]
    returns: Floats
    positions: Floats
    trades: Floats
    costs: Floats

    def __post_init__(self) -> None:
        _keep(self, "timestamps", _timestamps(self.timestamps))
        _keep(self, "returns", simple_returns(self.returns))
        for name in ("positions", "trades", "costs"):
            _keep(self, name, one_per_bar(name, getattr(self, name)))
        _require("trades", self.trades, self.trades >= 0.0, "is negative; give the absolute change of the position")

    def __len__(self) -> int:
        """The number of bars."""
        return len(self.timestamps)

    @property
    def equity(self) -> Floats:
        """What one unit of money becomes: 1 before the first bar, then the value after each, (bars + 1,)."""
        return equity_curve(self.returns)

    @property
    def drawdown(self) -> Floats:
        """Equity over its running maximum, minus 1: 0 before the first bar, then after each, (bars + 1,)."""
        return drawdown_curve(self.returns)

    @classmethod
    def join(cls, records: Sequence[TrackRecord]) -> TrackRecord:
        """The records end to end, as one account that goes on; the folds of a walk-forward test in their order.

        Nothing is added at a seam: a fold that begins flat has paid for entering, and for leaving only if it did.

        Raises:
            ArgumentError: If there is none, their timestamps are of different kinds, or one does not begin after
                the end of the one before it.
        """
        if not records:
            raise ArgumentError("There are no records to join. Give at least one.")
        if len({record.timestamps.dtype for record in records}) > 1:
            raise ArgumentError("Some records count bars and others have dates. Give one kind of timestamps.")
        for index, (earlier, later) in enumerate(pairwise(records), start=1):
            if later.timestamps[0] <= earlier.timestamps[-1]:
                raise ArgumentError(
                    f"Record {index} begins at {later.timestamps[0]}, not after {earlier.timestamps[-1]}, where record "
                    f"{index - 1} ends. Give consecutive records in order of time."
                )
        names = ("timestamps", "returns", "positions", "trades", "costs")
        return cls(*(np.concatenate([getattr(each, name) for each in records]) for name in names))


def _keep(record: TrackRecord, name: str, values: NDArray[Any]) -> None:
    if values.size != len(record):
        raise ArgumentError(f"{name} has {values.size} entries and timestamps {len(record)}. Give one for each bar.")
    values.flags.writeable = False
    object.__setattr__(record, name, values)


def _timestamps(values: ArrayLike) -> NDArray[Any]:
    given = np.array(values)
    _require_bars("timestamps", given)
    if given.dtype.kind not in "Miu":
        raise ArgumentError(
            f"timestamps are of the type {given.dtype}. Give datetime64 without time zone, or integers."
        )
    kept: NDArray[Any] = given.astype("datetime64[us]" if given.dtype.kind == "M" else np.int64)
    _require("timestamps", kept, np.isfinite(kept), "is no time; leave out bars without one")
    later = np.append(True, kept[1:] > kept[:-1])
    _require("timestamps", kept, later, "is not after the bar before it; sort the bars, each once")
    return kept


def _require_bars(name: str, values: NDArray[Any]) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ArgumentError(f"{name} has the shape {values.shape}. Give a series of one number or more.")


def _require(name: str, values: NDArray[Any], holds: NDArray[np.bool_], otherwise: str) -> None:
    wrong = np.flatnonzero(~holds)
    if wrong.size:
        raise ArgumentError(f"{name}[{wrong[0]}]={values[wrong[0]]} {otherwise}.")
