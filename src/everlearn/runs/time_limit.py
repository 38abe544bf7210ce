"""How long a run may take."""

from __future__ import annotations

import math
import re
import time

from everlearn.core.errors import ConfigError

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?")


def seconds_of(span: str | float) -> float:
    """Seconds of a number, or of a text like ``90``, ``1h30m``, ``2d 12h``.

    Raises:
        ConfigError: If it is neither, or not above 0.
    """
    seconds = span if isinstance(span, int | float) else _parsed(span.replace(" ", "").lower())
    if isinstance(span, bool) or not 0 < seconds < math.inf:
        raise ConfigError(f"time limit {span!r}: give seconds above 0, or a span as 90m, 1h30m, 2d12h.")
    return float(seconds)


def _parsed(text: str) -> float:
    """Seconds, NaN for what is no span."""
    match = _SPAN.fullmatch(text)
    if match and any(match.groups()):
        return sum(float(count) * unit for count, unit in zip(match.groups(), _UNITS.values(), strict=True) if count)
    return float(text) if re.fullmatch(r"\d+(\.\d+)?(e\d+)?", text) else math.nan


class TimeLimit:
    """Begins to count when it is made.

    Args:
        seconds: Time until it is over; infinity for never.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until it is over; negative afterwards."""
        return self._end - time.monotonic()

    def over(self) -> bool:
        """Whether the time is over."""
        return self.left() <= 0
