"""Markets: tables of bars, what a policy sees of them, an environment to trade in, and what trading has come to."""

from __future__ import annotations

from everlearn.core.errors import MissingExtraError

try:
    import polars as _polars  # noqa: F401 - asked for here, so that every module of this package may take it for granted
except ImportError as error:
    raise MissingExtraError("A table of bars", "polars", "signals") from error

from everlearn.markets.feature_spec import FeatureSpec, Thresholds
from everlearn.markets.market_env import MarketEnv
from everlearn.markets.prices import RandomWalkPrices, RegimePrices

__all__ = ["FeatureSpec", "MarketEnv", "RandomWalkPrices", "RegimePrices", "Thresholds"]
