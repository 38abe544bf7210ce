"""Rolling means of episode returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rolling_mean(values: Sequence[float], window: int) -> NDArray[np.float64]:
    """Mean of each value and the ``window - 1`` before it; the first means are over fewer values."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def smoothing_window(episodes: int) -> int:
    """How many episodes a rolling mean takes: a twentieth of them, from 10 to 100."""
    return int(np.clip(episodes // 20, 10, 100))
