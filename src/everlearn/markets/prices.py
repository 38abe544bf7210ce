"""Prices that are drawn, not downloaded: with regimes that can be learned, or without anything to learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import polars as pl

from everlearn.core.errors import require_in_range
from everlearn.core.registry import Registry

FEATURES = ("return_1", "momentum_8", "momentum_32", "momentum_128", "volatility_32")
"""Columns of generated tables that are made of earlier and present prices."""
_START = "1970-01-01"
_WARMUP = 128


class PriceGenerator(ABC):
    """Makes a table of bars: timestamp, symbol, open, high, low, close, volume, and features of these."""

    bars: int
    seed: int
    symbols: int
    volatility: float

    @abstractmethod
    def drift(self, generator: np.random.Generator, bars: int) -> np.ndarray:
        """The expected log return of each bar, (bars,)."""

    def prices(self) -> pl.DataFrame:
        """The table, ``bars`` daily bars for each symbol, one symbol after the other; equal for equal arguments."""
        seeds = np.random.SeedSequence(self.seed).spawn(self.symbols)
        tables = [self._symbol(f"S{number}", np.random.default_rng(seed)) for number, seed in enumerate(seeds)]
        return pl.concat(tables)

    def _symbol(self, name: str, generator: np.random.Generator) -> pl.DataFrame:
        bars = self.bars + _WARMUP  # those before the first that is handed out, which its features look back on
        returns = self.drift(generator, bars) + self.volatility * generator.standard_normal(bars)
        close = 100 * np.exp(np.cumsum(returns))
        before = np.concatenate([[100.0], close[:-1]])
        reach = self.volatility * np.abs(generator.standard_normal((2, bars)))
        table = {
            "open": before,
            "high": np.maximum(before, close) * np.exp(reach[0]),
            "low": np.minimum(before, close) * np.exp(-reach[1]),
            "close": close,
            "volume": np.round(1000 * generator.lognormal(sigma=0.5, size=bars)),
            **_features(returns),
        }
        times = np.datetime64(_START, "us") + np.arange(self.bars) * np.timedelta64(1, "D")
        rows = {name: column[_WARMUP:] for name, column in table.items()}
        return pl.DataFrame({"timestamp": times, "symbol": [name] * self.bars, **rows}).with_columns(
            pl.col("timestamp").dt.replace_time_zone("UTC")
        )


def _features(returns: np.ndarray) -> dict[str, np.ndarray]:
    """Of log returns: the last, sums over 8, 32 and 128 bars, and their mean square's root over 32."""
    sums = {f"momentum_{span}": _last(returns, span) for span in (8, 32, 128)}
    return {"return_1": returns, **sums, "volatility_32": np.sqrt(_last(returns**2, 32) / 32)}


def _last(values: np.ndarray, span: int) -> np.ndarray:
    """Sum of the last ``span`` values, the present one among them."""
    total = np.concatenate([np.zeros(span), np.cumsum(values)])
    return np.asarray(total[span:] - total[:-span])


generators: Registry[PriceGenerator] = Registry("price generator")


@generators.register("regimes")
@final
@dataclass(frozen=True)
class RegimePrices(PriceGenerator):
    """A market that rises for a while, and falls for a while: which of the two can be told from its momentum.

    Attributes:
        bars: For each symbol.
        seed: Of the draw.
        symbols: How many.
        trend: Expected log return of a bar, up in one regime and down in the other.
        volatility: Standard deviation of a bar's log return.
        switch: Probability that the regime ends with a bar.
    """

    bars: int = 20_000
    seed: int = 0
    symbols: int = 1
    trend: float = 0.0015
    volatility: float = 0.01
    switch: float = 0.01

    def __post_init__(self) -> None:
        _require_sizes(self)
        require_in_range("trend", self.trend, 0.0)
        require_in_range("switch", self.switch, 0.0, 1.0)

    def drift(self, generator: np.random.Generator, bars: int) -> np.ndarray:
        """``+-trend``, by a chain with two states."""
        ends = generator.random(bars) < self.switch
        first = generator.integers(2)
        return np.where((first + np.cumsum(ends)) % 2, self.trend, -self.trend)


@generators.register("random_walk")
@final
@dataclass(frozen=True)
class RandomWalkPrices(PriceGenerator):
    """A market in which nothing can be learned: an agent that seems to gain here has been measured wrongly.

    Attributes:
        bars: For each symbol.
        seed: Of the draw.
        symbols: How many.
        volatility: Standard deviation of a bar's log return.
    """

    bars: int = 20_000
    seed: int = 0
    symbols: int = 1
    volatility: float = 0.01

    def __post_init__(self) -> None:
        _require_sizes(self)

    def drift(self, generator: np.random.Generator, bars: int) -> np.ndarray:
        """That of a price whose expected growth is none."""
        return np.full(bars, -0.5 * self.volatility**2)


def _require_sizes(prices: PriceGenerator) -> None:
    require_in_range("bars", prices.bars, 1)
    require_in_range("symbols", prices.symbols, 1)
    require_in_range("seed", prices.seed, 0)
    require_in_range("volatility", prices.volatility, 0.0, open_low=True)
