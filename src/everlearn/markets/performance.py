"""How good a track record is, and how sure one can be of it.

Everywhere ``r`` are net simple returns per bar, ``n`` their number and ``P`` the bars per year; the riskless rate is 0.
What is undefined is NaN. A statistic of no bars is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from statistics import NormalDist
from typing import NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.markets.track_record import (
    Floats,
    TrackRecord,
    annualised_return,
    equity_curve,
    exposure,
    hit_rate,
    maximum_drawdown,
    one_per_bar,
    simple_returns,
    turnover,
    volatility,
)

_NORMAL = NormalDist()


class Estimate(NamedTuple):
    """A statistic with its confidence interval; NaN where undefined."""

    value: float
    low: float
    high: float


def sharpe_ratio(returns: Floats, periods_per_year: float) -> float:
    """``mean(r) / std(r) * sqrt(P)`` (Sharpe 1994); undefined if constant or for one bar.

    The root of P annualises returns that do not depend on each other (Lo 2002).
    """
    mean = float(simple_returns(returns).mean())
    return _ratio(mean * periods_per_year, volatility(returns, periods_per_year))


def sortino_ratio(returns: Floats, periods_per_year: float) -> float:
    """``mean(r) / sqrt(mean(min(r, 0)^2)) * sqrt(P)`` (Sortino and Price 1994, target 0); undefined without a loss."""
    values = simple_returns(returns)
    require_in_range("periods_per_year", periods_per_year, 0.0, open_low=True)
    downside = math.sqrt(np.square(np.minimum(values, 0.0)).mean())
    return _ratio(float(values.mean()), downside) * math.sqrt(periods_per_year)


def calmar_ratio(returns: Floats, periods_per_year: float) -> float:
    """Annualised return over maximum drawdown (Young 1991, of the whole record); undefined without a loss."""
    return _ratio(annualised_return(returns, periods_per_year), maximum_drawdown(returns))


@final
@dataclass(frozen=True)
class Trials:
    """How many strategies were tried before one was chosen.

    Attributes:
        number: Of all that were tried, the discarded too; counting dependent ones as independent errs to caution.
        variance: Of their Sharpe ratios per bar (not annualised).
    """

    number: int
    variance: float

    def __post_init__(self) -> None:
        require_in_range("number", self.number, 1)
        require_in_range("variance", self.variance, 0.0)

    @classmethod
    def of(cls, sharpe_ratios: Sequence[float], periods_per_year: float) -> Trials:
        """The trials with these annualised Sharpe ratios; an undefined one is counted, and left out of the variance."""
        require_in_range("periods_per_year", periods_per_year, 0.0, open_low=True)
        defined = [each for each in sharpe_ratios if math.isfinite(each)]
        variance = float(np.var(defined, ddof=1)) if len(defined) > 1 else 0.0
        return cls(len(sharpe_ratios), variance / periods_per_year)

    @property
    def expected_maximum(self) -> float:
        """``sqrt(V) * ((1 - g) * Z(1 - 1/N) + g * Z(1 - 1/(N e)))``: the best Sharpe ratio of N trials without skill.

        ``Z`` is the quantile of the normal distribution, ``g`` Euler's constant (Bailey and Lopez de Prado 2014,
        equation 1); 0 for a single trial.
        """
        if self.number == 1:
            return 0.0
        last = _NORMAL.inv_cdf(1.0 - 1.0 / self.number)
        beyond = _NORMAL.inv_cdf(1.0 - 1.0 / (self.number * math.e))
        return math.sqrt(self.variance) * ((1.0 - np.euler_gamma) * last + np.euler_gamma * beyond)


def probabilistic_sharpe_ratio(returns: Floats, benchmark: float = 0.0) -> float:
    """``Phi((SR - SR*) * sqrt(n - 1) / sqrt(1 - g3 * SR + (g4 - 1)/4 * SR^2))``: that the true ratio exceeds SR*.

    ``g3`` is the skewness, ``g4`` the kurtosis, normally 3 (Bailey and Lopez de Prado 2012); undefined if ``SR`` is.

    Args:
        returns: (bars,).
        benchmark: ``SR*``, a Sharpe ratio per bar (not annualised).
    """
    values = simple_returns(returns)
    sharpe = sharpe_ratio(values, 1.0)
    if math.isnan(sharpe):
        return math.nan
    standard = (values - values.mean()) / values.std()
    spread = 1.0 - (standard**3).mean() * sharpe + ((standard**4).mean() - 1.0) / 4.0 * sharpe**2
    error = math.sqrt(max(spread, 0.0))  # by rounding it may fall below 0
    return _NORMAL.cdf(_ratio((sharpe - benchmark) * math.sqrt(values.size - 1), error))


def deflated_sharpe_ratio(returns: Floats, trials: Trials) -> float:
    """The probability that the true Sharpe ratio exceeds ``trials.expected_maximum`` (2014, equation 2)."""
    return probabilistic_sharpe_ratio(returns, trials.expected_maximum)


def stationary_bootstrap(
    values: ArrayLike,
    statistic: Callable[[Floats], float],
    generator: np.random.Generator,
    *,
    block_length: float | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic with the percentile interval of resamples that keep the dependence between neighbours.

    A resample joins blocks that begin anywhere and have geometric lengths, wrapping around at the end (Politis and
    Romano 1994). Resamples on which the statistic is undefined are left out; the interval is undefined if these are
    more than ``1 - confidence`` of all, or if there is only one value.

    Args:
        values: (n, ...), resampled along the first axis.
        statistic: Of an array like ``values``.
        generator: Is advanced.
        block_length: Mean length of a block; by default the cube root of n, rounded up. 1 is the ordinary bootstrap.
        resamples: How many.
        confidence: Of the interval, in (0, 1).
    """
    given = np.atleast_1d(np.asarray(values, dtype=np.float64))
    size = len(given)
    require_in_range("len(values)", size, 1)
    length = math.ceil(math.cbrt(size)) if block_length is None else block_length
    require_in_range("block_length", length, 1.0)
    require_in_range("resamples", resamples, 1)
    require_in_range("confidence", confidence, 0.0, 1.0, open_low=True, open_high=True)
    draws = np.array([statistic(given[_rows(size, length, generator)]) for _ in range(resamples)])
    defined = draws[np.isfinite(draws)]
    if size == 1 or defined.size < confidence * resamples:
        return Estimate(statistic(given), math.nan, math.nan)
    low, high = np.quantile(defined, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Estimate(statistic(given), float(low), float(high))


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of what is left without the ``floor(n/4)`` smallest and as many largest (Agarwal et al. 2021)."""
    ordered = np.sort(one_per_bar("values", values))
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def interquartile_difference(
    strategy: ArrayLike,
    baseline: ArrayLike,
    generator: np.random.Generator,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """The interquartile mean over seeds of strategy minus baseline, with a bootstrap over seeds; undefined if one is.

    Args:
        strategy: One figure for each seed.
        baseline: One figure for all, or one for each seed, which is its partner.
        generator: Is advanced.
        resamples: How many.
        confidence: Of the interval, which is undefined for a single seed.
    """
    ours, theirs = (np.atleast_1d(np.asarray(each, dtype=np.float64)) for each in (strategy, baseline))
    if theirs.size not in (1, ours.size):
        raise ArgumentError(f"baseline has {theirs.size} entries for {ours.size} seeds. Give one, or one for each.")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Estimate(math.nan, math.nan, math.nan)
    return stationary_bootstrap(
        ours - theirs, interquartile_mean, generator, block_length=1.0, resamples=resamples, confidence=confidence
    )


@final
@dataclass(frozen=True)
class Performance:
    """The figures of one record; the functions of these names say what they mean.

    Attributes:
        sharpe: With its stationary-bootstrap interval; annualised, as are volatility, Sortino and Calmar.
        costs_per_year: Share of the equity paid for trading.
        probabilistic_sharpe: Probability that the true Sharpe ratio exceeds 0.
        deflated_sharpe: That it exceeds what the best of ``trials`` would show by luck.
    """

    bars: int
    periods_per_year: float
    total_return: float
    annualised_return: float
    volatility: float
    sharpe: Estimate
    sortino: float
    maximum_drawdown: float
    calmar: float
    turnover: float
    turnover_per_year: float
    costs_per_year: float
    exposure: float
    hit_rate: float
    probabilistic_sharpe: float
    deflated_sharpe: float
    trials: int
    confidence: float

    def as_dict(self) -> dict[str, float | None]:
        """The figures for a machine, flat, None where undefined or infinite; ``sharpe_low`` and ``sharpe_high`` too."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"sharpe": self.sharpe.value, "sharpe_low": self.sharpe.low, "sharpe_high": self.sharpe.high}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


_ONE_TRIAL = Trials(1, 0.0)


def performance(
    record: TrackRecord,
    periods_per_year: float,
    generator: np.random.Generator,
    *,
    trials: Trials = _ONE_TRIAL,
    block_length: float | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Performance:
    """All figures of a record.

    Args:
        record: Of one account.
        periods_per_year: Bars per year, such as 252 for trading days.
        generator: Of the bootstrap; is advanced.
        trials: What was tried before this was chosen, every member of a population included.
        block_length: Of the bootstrap that gives the Sharpe ratio its interval.
        resamples: How many.
        confidence: Of the interval.
    """
    returns = record.returns
    sharpe = partial(sharpe_ratio, periods_per_year=periods_per_year)
    return Performance(
        bars=len(record),
        periods_per_year=periods_per_year,
        total_return=float(equity_curve(returns)[-1] - 1.0),
        annualised_return=annualised_return(returns, periods_per_year),
        volatility=volatility(returns, periods_per_year),
        sharpe=stationary_bootstrap(
            returns, sharpe, generator, block_length=block_length, resamples=resamples, confidence=confidence
        ),
        sortino=sortino_ratio(returns, periods_per_year),
        maximum_drawdown=maximum_drawdown(returns),
        calmar=calmar_ratio(returns, periods_per_year),
        turnover=turnover(record.trades),
        turnover_per_year=turnover(record.trades, periods_per_year),
        costs_per_year=float(record.costs.mean()) * periods_per_year,
        exposure=exposure(record.positions),
        hit_rate=hit_rate(returns, record.positions),
        probabilistic_sharpe=probabilistic_sharpe_ratio(returns),
        deflated_sharpe=deflated_sharpe_ratio(returns, trials),
        trials=trials.number,
        confidence=confidence,
    )


def _rows(size: int, block_length: float, generator: np.random.Generator) -> NDArray[np.intp]:
    """Indices of one resample: blocks that begin anywhere and end after each row with probability 1/block_length."""
    begins = np.flatnonzero(np.append(True, generator.random(size - 1) < 1.0 / block_length))
    starts = generator.integers(size, size=begins.size)
    rows: NDArray[np.intp] = (np.arange(size) + np.repeat(starts - begins, np.diff(begins, append=size))) % size
    return rows


def _ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN unless the denominator is positive."""
    return numerator / denominator if denominator > 0.0 else math.nan
