"""A Gaussian process whose function drifts with time, and what it expects where nobody has been."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_JITTER = 1e-10


@dataclass(frozen=True)
class Kernel:
    """``exp(-|x - x'|^2 / (2 length^2)) * (1 - forgetting)^(|t - t'| / 2)``: alike where near in space and in time.

    Args:
        length: Distance over which the function changes, in units of the coordinates.
        forgetting: How much less two functions have in common per two units of time, in [0, 1).
        noise: Variance of an observation around the function, whose own is 1.

    Source: Bogunovic, Scarlett & Cevher 2016, "Time-varying Gaussian process bandit optimization", section 2;
    Parker-Holder et al. 2020, "Provably efficient online hyperparameter optimization with population-based bandits",
    section 4.
    """

    length: float = 0.5
    forgetting: float = 0.1
    noise: float = 0.1

    def __call__(self, points: Array, times: Array, other_points: Array, other_times: Array) -> Array:
        """The covariance of each point with each other one, (n, m).

        Args:
            points: (n, d).
            times: (n,).
            other_points: (m, d).
            other_times: (m,).
        """
        squares = ((points[:, None, :] - other_points[None, :, :]) ** 2).sum(-1)
        ages = np.abs(times[:, None] - other_times[None, :])
        covariance: Array = np.exp(-squares / (2 * self.length**2)) * (1 - self.forgetting) ** (ages / 2)
        return covariance


@final
class Posterior:
    """What is known of the function once some of its values have been seen.

    ``mean = k^T (K + noise I)^-1 y`` and ``variance = 1 - k^T (K + noise I)^-1 k``.

    Args:
        kernel: What is alike.
        points: Where it was seen, (n, d); n may be 0.
        times: When, (n,).
        values: What was seen, (n,), around 0 with a variance of about 1.

    Source: Rasmussen & Williams 2006, "Gaussian processes for machine learning", algorithm 2.1.
    """

    def __init__(self, kernel: Kernel, points: Array, times: Array, values: Array) -> None:
        self._kernel, self._points, self._times, self._values = kernel, points, times, values
        noise = (kernel.noise + _JITTER) * np.eye(len(values))
        self._factor = np.linalg.cholesky(kernel(points, times, points, times) + noise)
        self._weights = np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, values))

    def mean(self, points: Array, time: float) -> Array:
        """What is expected at some points, (m,)."""
        expected: Array = self._across(points, time).T @ self._weights
        return expected

    def deviation(self, points: Array, time: float) -> Array:
        """The standard deviation there, (m,)."""
        explained = np.linalg.solve(self._factor, self._across(points, time))
        deviation: Array = np.sqrt(np.maximum(1 - (explained**2).sum(0), 0))
        return deviation

    def log_likelihood(self) -> float:
        """How well the kernel explains what was seen."""
        data = -0.5 * self._values @ self._weights - np.log(np.diag(self._factor)).sum()
        return float(data - 0.5 * len(self._values) * math.log(2 * math.pi))

    def _across(self, points: Array, time: float) -> Array:
        return self._kernel(self._points, self._times, points, np.full(len(points), time))


def likeliest(kernels: Iterable[Kernel], points: Array, times: Array, values: Array) -> Kernel:
    """The kernel under which what was seen is the least surprising; of equals the first."""
    return max(kernels, key=lambda kernel: Posterior(kernel, points, times, values).log_likelihood())


def standardised(values: Array) -> Array:
    """Mean 0 and standard deviation 1; all 0 where they are equal."""
    centred: Array = values - values.mean() if len(values) else values
    spread = float(centred.std()) if len(values) else 0.0
    return centred / spread if spread > 0 else np.zeros_like(centred)
