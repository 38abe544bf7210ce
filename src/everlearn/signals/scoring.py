"""From decisions to the columns of a table of signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from everlearn.markets.feature_spec import Thresholds
from everlearn.markets.windows import Reason
from everlearn.signals.decision import POSITION, QUANTILES, SCORE

SIGNALS = ("SELL", "HOLD", "BUY")
SIGNAL = pl.Enum(SIGNALS)
REASON = pl.Enum([reason.name for reason in Reason])
_SIGNALS, _REASONS = pl.Series(SIGNALS, dtype=SIGNAL), pl.Series(REASON.categories, dtype=REASON)


def quantile_names(levels: Sequence[float]) -> list[str]:
    """Columns of value quantiles: ``value_q05`` for 0.05, ``value_q2.5`` for 0.025."""
    percents = [round(100 * level, 9) for level in levels]
    return [f"value_q{percent:02.0f}" if percent.is_integer() else f"value_q{percent:g}" for percent in percents]


def decision_columns(
    decisions: np.ndarray, reasons: np.ndarray, thresholds: Thresholds, levels: Sequence[float]
) -> dict[str, pl.Series]:
    """``signal``, ``score``, ``position``, value quantiles, ``valid`` and ``reason`` of each row.

    A row that is not valid has no score, no position and no quantiles, and the signal HOLD.

    Args:
        decisions: (rows, 2 + levels), as a ``Decision`` gives them.
        reasons: One ``Reason`` a row, (rows,).
        thresholds: When a score is a signal.
        levels: Of the quantiles.
    """
    valid = reasons == Reason.ok
    score = decisions[:, SCORE].copy()
    score[np.abs(score) < thresholds.dead_zone] = 0.0
    codes = np.ones(len(score), np.uint32)
    codes[score >= thresholds.buy] = SIGNALS.index("BUY")
    codes[score <= thresholds.sell] = SIGNALS.index("SELL")
    codes[~valid] = SIGNALS.index("HOLD")
    numbers = {"score": score, "position": decisions[:, POSITION]}
    numbers |= {name: decisions[:, QUANTILES + column] for column, name in enumerate(quantile_names(levels))}
    return {
        "signal": _SIGNALS.gather(codes),
        **{name: _where(valid, np.ascontiguousarray(values)) for name, values in numbers.items()},
        "valid": pl.Series(valid),
        "reason": _REASONS.gather(reasons.astype(np.uint32)),
    }


def _where(valid: np.ndarray, values: np.ndarray) -> pl.Series:
    """The values of valid rows; null elsewhere."""
    series = pl.Series(values)
    return series if valid.all() else pl.select(pl.when(pl.Series(valid)).then(series)).to_series()
