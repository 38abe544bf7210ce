"""Scoring where the policy sees its own position: bar by bar, all symbols abreast."""

from __future__ import annotations

from typing import Any

import numpy as np

from everlearn.markets.account import Account
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.windows import Reason
from everlearn.signals.decision import POSITION, Decide, in_blocks
from everlearn.signals.looking import Windows


class AccountKeeper:
    """The positions that scoring would have led to, which the next decisions depend on.

    A position decided on at one bar is executed at the next one's price, as in a ``MarketEnv``. What cannot be decided
    on is flat; at a bar without a price nothing is executed.

    Args:
        spec: Whose account features are kept.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec, self._unknown = spec, np.zeros((1, len(spec.account)), np.float32)
        self._accounts: dict[Any, list[Any]] = {}  # account, and the position decided on

    def decide(self, prices: np.ndarray, reasons: np.ndarray, windows: Windows, decide: Decide) -> np.ndarray:
        """The decisions, (rows, columns), on a piece of a table, and the accounts moved to its end.

        Args:
            prices: At which positions change, (rows,).
            reasons: Whether each row can be decided on, (rows,); one without a price is given its reason here.
            windows: By symbol, which rows are its, and what is observed there.
            decide: What decides on observations.
        """
        priced = np.isfinite(prices) & (prices > 0)
        reasons[~priced] = np.maximum(reasons[~priced], Reason.nan_feature)
        decisions = np.zeros((len(prices), 2 + len(decide.levels)), np.float32)
        rows = {symbol: np.arange(len(prices))[at] for symbol, (at, _) in windows.items()}
        for bar in range(max((len(each) for each in rows.values()), default=0)):
            present = [symbol for symbol in rows if bar < len(rows[symbol])]
            seen = []
            for symbol in present:
                row = rows[symbol][bar]
                account = self._executed(symbol, prices[row]) if priced[row] else self._unknown
                seen.append(decide.look(windows[symbol][1], slice(bar, bar + 1), account))
            for symbol, decision in zip(present, in_blocks(decide, np.concatenate(seen)), strict=True):
                row = rows[symbol][bar]
                decisions[row] = decision
                self._of(symbol)[1] = float(decision[POSITION]) if reasons[row] == Reason.ok else 0.0
        return decisions

    def _executed(self, symbol: Any, price: float) -> np.ndarray:
        """Execute what was decided at the bar before; the features of the account then, (1, account features)."""
        account, target = self._of(symbol)
        account.execute(target, price)
        return np.array([account.features(self._spec.account, price)], np.float32)

    def _of(self, symbol: Any) -> list[Any]:
        return self._accounts.setdefault(symbol, [Account(), 0.0])
