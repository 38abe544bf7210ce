"""The one place where observations are made of bars: environments and inference both look through it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from everlearn.core.errors import OrderError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import SECOND


class Reason(IntEnum):
    """Whether a bar can be decided on; if several hold, the highest."""

    ok = 0
    stale = 1
    """Between two bars of its observation, or since the bar before, more time has passed than is allowed."""
    out_of_range = 2
    """A feature of its observation is as far from its mean as the specification clips, or infinite."""
    nan_feature = 3
    """A feature of its observation is missing or NaN, or the price at which the account is valued."""
    warmup = 4
    """There are not as many bars before it as an observation has."""


@dataclass(frozen=True)
class History:
    """What is remembered of a symbol's bars, so that the next can be observed.

    Attributes:
        values: Standardised features of the last bars, (window - 1, features).
        faults: What was wrong with each of these by itself: stale, out of range, missing, (window - 1, 3).
        bars: How many there have been in all.
        last: Timestamp of the last one, in microseconds; None before the first.
        raw: The features of the last bars as they were, (window - 1, features); None where nobody asks for these.
    """

    values: np.ndarray
    faults: np.ndarray
    bars: int = 0
    last: int | None = None
    raw: np.ndarray | None = None


def no_history(spec: FeatureSpec) -> History:
    """Before the first bar."""
    kept = spec.window - 1
    return History(np.zeros((kept, len(spec.features)), np.float32), np.zeros((kept, 3), bool))


class FeatureWindows:
    """Bars of one symbol, in order, as the policy observes them; what an observation holds lies at or before its bar.

    Args:
        spec: What an observation is.
        values: The features, (bars, features), in float64; NaN where they are missing.
        times: Of the bars, (bars,), in microseconds, rising.
        before: What is known of earlier bars.
        raw: Whether the features are kept as they are, too, for observations that something else standardises.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        values: np.ndarray,
        times: np.ndarray,
        before: History | None = None,
        *,
        raw: bool = False,
    ) -> None:
        before = before or no_history(spec)
        self.spec, self._before, self._last = spec, before, before.last
        with np.errstate(invalid="ignore", over="ignore"):  # what overflows is clipped, and out of range
            standardised = spec.standardised(values).astype(np.float32)
        missing = np.isnan(standardised)
        faults = np.empty((len(values), 3), bool)
        faults[:, 0] = _gaps(spec, times, before.last)
        faults[:, 1] = (np.abs(standardised) >= np.float32(spec.clip)).any(axis=1)
        faults[:, 2] = missing.any(axis=1)
        standardised[missing] = 0.0
        self._values = np.concatenate([before.values, standardised])
        self._faults = np.concatenate([before.faults, faults])
        self._seen = _windows(self._values, spec)
        self._raw = _raw_values(spec, values, before) if raw else None
        self._last = int(times[-1]) if len(times) else before.last
        self.reasons = self._reasons()

    def __len__(self) -> int:
        return len(self._values) - (self.spec.window - 1)

    def observations(self, bars: slice, account: np.ndarray | None = None, *, raw: bool = False) -> np.ndarray:
        """What the policy observes at some bars, (bars, spec.size), in float32.

        Args:
            bars: Which, by their position.
            account: Features of the account at each, (bars, account features); None where the specification has none.
            raw: Give the features as they are, in float64, with the mean for what is missing, so that standardising
                them gives what the policy observes.

        Raises:
            OrderError: If raw features are asked for that were not kept.
        """
        seen = np.array((self._raw_windows() if raw else self._seen)[bars], order="C")  # a copy in any case
        rows = seen.reshape(len(seen), self.spec.window * len(self.spec.features))
        return rows if account is None else np.concatenate([rows, account.astype(rows.dtype)], axis=1)

    def history(self) -> History:
        """What the bars after these need to know."""
        kept = self.spec.window - 1
        cut = len(self._values) - kept
        raw = None if self._raw is None else self._raw[cut:].copy()
        values, faults = self._values[cut:].copy(), self._faults[cut:].copy()  # views would keep all bars in memory
        return History(values, faults, self._before.bars + len(self), self._last, raw)

    def _raw_windows(self) -> np.ndarray:
        if self._raw is None:
            raise OrderError("FeatureWindows kept no raw features. Make them with raw=True.")
        return _windows(self._raw, self.spec)

    def _reasons(self) -> np.ndarray:
        """The highest reason of each bar, (bars,)."""
        window, bars = self.spec.window, len(self)
        reasons = np.zeros(bars, np.uint8)
        spans = {Reason.stale: max(window - 1, 1), Reason.out_of_range: window, Reason.nan_feature: window}
        for column, (reason, span) in enumerate(spans.items()):
            reasons[_any_of_last(self._faults[:, column], span, bars)] = reason
        reasons[: max(window - 1 - self._before.bars, 0)] = Reason.warmup
        return reasons


def _windows(values: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """The last bars up to each, as views, (bars, window, features)."""
    if len(values) < spec.window:  # which numpy refuses
        return np.empty((0, spec.window, values.shape[1]), values.dtype)
    return sliding_window_view(values, spec.window, axis=0).transpose(0, 2, 1)


def _raw_values(spec: FeatureSpec, values: np.ndarray, before: History) -> np.ndarray:
    """The features of the bars before and of these, (window - 1 + bars, features); the mean for what is missing."""
    mean = np.array(spec.mean)
    earlier = np.tile(mean, (spec.window - 1, 1)) if before.raw is None else before.raw
    return np.concatenate([earlier, np.where(np.isnan(values), mean, values)])


def _any_of_last(flags: np.ndarray, span: int, bars: int) -> np.ndarray:
    """For each of the last ``bars`` entries, whether it or one of the ``span - 1`` before it is set."""
    if not flags.any():
        return np.zeros(bars, bool)
    total = np.concatenate([np.zeros(span, np.int64), np.cumsum(flags)])
    return np.asarray((total[span:] - total[:-span] > 0)[len(flags) - bars :])


def _gaps(spec: FeatureSpec, times: np.ndarray, before: int | None) -> np.ndarray:
    """Whether too much time has passed since the bar before each."""
    if spec.max_gap_seconds is None or not len(times):
        return np.zeros(len(times), bool)
    first = times[:1] if before is None else np.array([before])
    return np.asarray(np.diff(times, prepend=first) > spec.max_gap_seconds * SECOND)
