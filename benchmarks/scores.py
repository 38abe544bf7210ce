"""Statistics over the scores of several seeds and tasks.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def interquartile_mean(scores: ArrayLike) -> Floats:
    """Mean over the last axis without its lowest and highest quarter, ``floor(n / 4)`` scores at each end."""
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1))


def bootstrap_interval(
    scores: ArrayLike, generator: np.random.Generator, level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean over tasks and seeds, from stratified resampling.

    Every resample draws each task's seeds anew, with replacement, and never mixes tasks.

    Args:
        scores: (tasks, seeds).
        generator: Draws the seeds.
        level: Of confidence.
        resamples: How many.

    Returns:
        Low and high end.
    """
    values = np.asarray(scores, dtype=np.float64)
    drawn = generator.integers(values.shape[1], size=(resamples, *values.shape))
    resampled = np.take_along_axis(values[None], drawn, axis=2)
    means = interquartile_mean(resampled.reshape(resamples, -1))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def binned_curve(steps: Sequence[float], returns: Sequence[float], edges: Floats) -> Floats:
    """Mean return of the episodes that ended in each bin ``(edges[i], edges[i + 1]]``.

    A bin without an episode has the value of the one before it, and at the start that of the first one with episodes.

    Args:
        steps: Environment step at which each episode ended.
        returns: Of the episodes.
        edges: (bins + 1,), rising.

    Returns:
        (bins,).
    """
    bins = np.searchsorted(edges, steps, side="left") - 1
    counts = np.bincount(bins, minlength=len(edges) - 1)
    sums = np.bincount(bins, weights=returns, minlength=len(edges) - 1)
    filled = np.flatnonzero(counts)
    latest = filled[np.maximum(np.searchsorted(filled, np.arange(len(counts)), side="right") - 1, 0)]
    return np.asarray(sums[latest] / counts[latest])
