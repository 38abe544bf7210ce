"""Markets of a few bars, whose every price is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from everlearn.markets import FeatureSpec, MarketEnv, RegimePrices

CLOSES = [100.0, 110.0, 99.0, 108.9, 108.9]
ACCOUNT = ("position", "bars_held", "open_return")
PRICES = RegimePrices(bars=60, symbols=2).prices()


def plain(**options: Any) -> FeatureSpec:
    """One feature ``x``, as it is."""
    return FeatureSpec(("x",), (0.0,), (1.0,), ("Float64",), clip=1000.0, **options)


def table(closes: list[float], **columns: Any) -> pl.DataFrame:
    """Hourly bars that are numbered by ``x``."""
    size = len(closes)
    return pl.DataFrame({"timestamp": np.arange(size) * 3600, "close": closes, "x": np.arange(float(size)), **columns})


def market(closes: list[float] = CLOSES, spec: FeatureSpec | None = None, **options: Any) -> MarketEnv:
    return MarketEnv(table(closes), spec or plain(), **options)


def act(env: MarketEnv, *targets: float) -> list[Any]:
    """What steps with these targets answer."""
    return [env.step(np.array([target], np.float32)) for target in targets]
