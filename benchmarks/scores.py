"""Statistics over the scores of several seeds and tasks.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the scores without the lowest and the highest ``floor(n / 4)`` of them."""
    return float(interquartile_means(np.ravel(scores)[None])[0])


def interquartile_means(samples: ArrayLike) -> Floats:
    """The interquartile mean of every row: (rows, n) to (rows,)."""
    ordered = np.sort(np.asarray(samples, dtype=np.float64), axis=1)
    size = ordered.shape[1]
    return np.asarray(ordered[:, size // 4 : size - size // 4].mean(axis=1))


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
    means = interquartile_means(resampled.reshape(resamples, -1))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def binned_curve(steps: ArrayLike, returns: ArrayLike, edges: ArrayLike) -> Floats:
    """Mean return of the episodes that ended in each bin ``(edges[i], edges[i + 1]]``; the last has no upper edge.

    A bin without an episode has the value of the one before it, and at the start that of the first one with episodes.

    Args:
        steps: Environment step at which each episode ended.
        returns: Of the episodes.
        edges: (bins + 1,), rising.

    Returns:
        (bins,).
    """
    size = np.size(edges) - 1
    bins = np.minimum(np.searchsorted(edges, steps, side="left") - 1, size - 1)
    counts, sums = np.bincount(bins, minlength=size), np.bincount(bins, weights=np.asarray(returns), minlength=size)
    filled = np.flatnonzero(counts)
    latest = filled[np.maximum(np.searchsorted(filled, np.arange(size), side="right") - 1, 0)]
    return np.asarray(sums[latest] / counts[latest])
