"""What holding a position comes to, and what the policy may see of it: for environments and backtests alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LOOK_AHEAD = 2
"""A decision on bar t is executed at the price of bar t + 1 and has earned by that of bar t + 2."""


@dataclass(frozen=True)
class Costs:
    """What trading costs, as shares of the value traded.

    Attributes:
        fee: To the exchange.
        slippage: By which a price is missed.
    """

    fee: float = 0.0005
    slippage: float = 0.0

    def of(self, trades: Any) -> Any:
        """Share of the account's value paid for trades, the absolute changes of its position."""
        return (self.fee + self.slippage) * trades


def net_returns(positions: Any, growth: Any, trades: Any, costs: Costs) -> Any:
    """``p * (P[t+2] / P[t+1] - 1) - costs``: what positions have earned of the price's growth, after their trades.

    Args:
        positions: Held from one execution to the next, as shares of the account's value, negative when short.
        growth: ``P[t+2] / P[t+1] - 1`` of the prices at these executions.
        trades: Absolute changes of the position at the first of them.
        costs: Of trading.
    """
    return positions * growth - costs.of(trades)


@dataclass
class Account:
    """The position that is held at a bar, as the policy may see it.

    Attributes:
        position: Share of its value that is invested, negative when short.
        bars_held: Bars since it took its sign; 0 while it is flat.
        entry_price: At which it took its sign.
    """

    position: float = 0.0
    bars_held: int = 0
    entry_price: float = 1.0

    def execute(self, target: float, price: float) -> None:
        """Change the position at a price, the next bar's of the decision."""
        if target and np.sign(target) == np.sign(self.position):
            self.bars_held += 1
        else:
            self.bars_held, self.entry_price = 0, price
        self.position = target

    def features(self, names: tuple[str, ...], price: float) -> list[float]:
        """Some of ``ACCOUNT_FEATURES``, at the price of the bar that was seen last."""
        return [ACCOUNT_FEATURES[name](self, price) for name in names]


def _open_return(account: Account, price: float) -> float:
    """Logarithm of the price's growth since the position took its sign, in its favour, in percent."""
    return float(100 * np.sign(account.position) * np.log(price / account.entry_price)) if account.position else 0.0


ACCOUNT_FEATURES: Mapping[str, Callable[[Account, float], float]] = {
    "position": lambda account, _: account.position,
    "bars_held": lambda account, _: min(account.bars_held, 100) / 100,
    "open_return": _open_return,
}
"""The position; bars since it took its sign, in hundreds, at most 1; what it has gained since then, in percent."""
