"""Numbers and durations as a person writes them."""

from __future__ import annotations

from everlearn.environments.evaluation import Evaluation


def number(value: float, *, beside: float = 0.0) -> str:
    """Three or four telling digits: ``0.53``, ``187.3``, ``1,890``; as many decimals as ``beside`` has."""
    size = max(abs(value), abs(beside))
    return f"{value:,.{0 if size >= 1000 else 1 if size >= 10 else 2}f}"


def spread(evaluation: Evaluation) -> str:
    """Mean and standard deviation of the returns: ``1,890 ± 120``."""
    return spread_of(evaluation.mean, evaluation.std)


def spread_of(mean: float, std: float) -> str:
    """A mean and a standard deviation with as many decimals: ``1,890 ± 120``."""
    return f"{number(mean, beside=std)} ± {number(std, beside=mean)}"


def duration(seconds: float) -> str:
    """The two largest units: ``34 s``, ``1 min 58 s``, ``2 h 05 min``, ``3 d 04 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"
