"""Welch's t-test: whether the mean of one sample is higher than that of another of perhaps another variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

_MOST_TERMS = 500
_PRECISION = 1e-15
_TINY = 1e-300


def p_value(higher: Sequence[float], lower: Sequence[float]) -> float:
    """The probability of so large a difference of the means if the true ones were equal, one-sided.

    ``t = (mean_1 - mean_2) / sqrt(v_1 / n_1 + v_2 / n_2)``, with the degrees of freedom of Welch and Satterthwaite.

    Args:
        higher: The sample whose mean should be the higher one, at least two numbers.
        lower: The other, at least two numbers.

    Returns:
        Small where ``higher`` is higher; 0, 0.5 or 1 where neither sample varies.

    Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are
    involved".
    """
    difference = fmean(higher) - fmean(lower)
    first, second = variance(higher) / len(higher), variance(lower) / len(lower)
    if first + second == 0:
        return 0.5 - math.copysign(0.5, difference) if difference else 0.5
    ratio = first / (first + second)  # of the squares, so that small variances do not vanish
    freedom = 1 / (ratio**2 / (len(higher) - 1) + (1 - ratio) ** 2 / (len(lower) - 1))
    return upper_tail(difference / math.sqrt(first + second), freedom)


def upper_tail(t: float, freedom: float) -> float:
    """The probability that Student's t with so many degrees of freedom is above ``t``."""
    beyond = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return beyond if t > 0 else 1 - beyond


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function ``I_x(a, b)`` for positive ``a`` and ``b``, by its continued fraction.

    Source: Abramowitz & Stegun 1964, equations 26.5.8 and 6.6.3, evaluated as Lentz 1976 does.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction of the complement converges faster
        return 1 - incomplete_beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """``1 + d_1/(1 + d_2/(1 + ...))``."""
    value = ratio = 1.0
    inverse = 0.0
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        inverse = 1 / (1 + d * inverse or _TINY)
        ratio = 1 + d / ratio or _TINY
        value *= ratio * inverse
        if abs(ratio * inverse - 1) < _PRECISION:
            break
    return value
