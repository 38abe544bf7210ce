"""What target positions would have earned: the accounts of an agent, and of those that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from everlearn.core.errors import DataError
from everlearn.markets.account import LOOK_AHEAD, Costs, net_returns
from everlearn.markets.track_record import TrackRecord


@dataclass(frozen=True)
class Bars:
    """The bars of one symbol that are tested on.

    Attributes:
        times: Microseconds, (bars,).
        prices: At which positions change, (bars,).
    """

    times: np.ndarray
    prices: np.ndarray

    def __len__(self) -> int:
        """Decisions that can be reckoned: each needs the prices of the two bars after it."""
        return max(len(self.times) - LOOK_AHEAD, 0)


Targets = Mapping[str, np.ndarray]
"""Target position decided on at each bar, by symbol, (bars - 2,)."""


def track_record(bars: Mapping[str, Bars], targets: Targets, costs: Costs) -> TrackRecord:
    """The account of target positions: each executed at the next bar's price, all symbols with equal weights.

    An entry of the record is a decision's: dated by the bar at which it has earned what it earns.

    Raises:
        DataError: If there are too few bars.
    """
    accounts = [_account(own, targets[symbol], costs) for symbol, own in bars.items() if len(own) > 0]
    if not accounts:
        raise DataError(f"There are too few bars to test on: a decision needs the prices of {LOOK_AHEAD} more.")
    columns = ("return", "position", "trade", "cost")
    joined = pl.concat(accounts).group_by("time").agg(pl.col(columns).mean()).sort("time")
    times = joined["time"].to_numpy().astype("datetime64[us]")
    return TrackRecord(times, *(joined[name].to_numpy() for name in columns))


def _account(bars: Bars, targets: np.ndarray, costs: Costs) -> pl.DataFrame:
    trades = np.abs(np.diff(targets, prepend=0.0))
    growth = bars.prices[LOOK_AHEAD:] / bars.prices[1:-1] - 1.0
    earned = np.maximum(net_returns(targets, growth, trades, costs), -1.0)
    columns = {"return": earned, "position": targets, "trade": trades, "cost": costs.of(trades)}
    return pl.DataFrame({"time": bars.times[LOOK_AHEAD:], **columns})


def buy_and_hold(bars: Mapping[str, Bars]) -> Targets:
    """All long, all the time."""
    return {symbol: np.ones(len(own)) for symbol, own in bars.items()}


def random_positions(bars: Mapping[str, Bars], agent: Targets, generator: np.random.Generator) -> Targets:
    """Positions drawn anew at each bar from those that the agent has taken: its exposure without its sense."""
    return {symbol: generator.permutation(agent[symbol]) for symbol in bars}


def random_timing(bars: Mapping[str, Bars], agent: Targets, generator: np.random.Generator) -> Targets:
    """The agent's own positions begun at another bar: its exposure and its turnover, without its timing."""
    return {
        symbol: np.roll(agent[symbol], int(generator.integers(len(own) // 4, 3 * len(own) // 4 + 1)))
        for symbol, own in bars.items()
    }


Baseline = Callable[[Mapping[str, Bars], Targets, np.random.Generator], Targets]
HOLDING = "buy and hold"
BASELINES: Mapping[str, Baseline] = {
    "random": random_positions,
    "random timing": random_timing,
}
"""What an agent has to beat beside holding, by name: drawn from its own positions, at its own costs."""
