"""Scales of numbers: what is uniform when one is drawn, and what a factor multiplies when it is changed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

from everlearn.core.errors import ArgumentError
from everlearn.core.registry import Registry


class Scale(ABC):
    """An increasing map from values to positions, which are uniform, and a step by a factor."""

    @abstractmethod
    def position(self, value: float) -> float:
        """Where a value lies."""

    @abstractmethod
    def value(self, position: float) -> float:
        """What lies at a position."""

    @abstractmethod
    def times(self, value: float, factor: float, width: float) -> float:
        """The value a factor away, higher for one above 1.

        Args:
            value: From where.
            factor: How far.
            width: Of the range, which stands in where the factor has nothing to act on.
        """

    @abstractmethod
    def require(self, low: float, high: float, name: str) -> None:
        """Refuse a range outside of the scale's domain.

        Raises:
            ArgumentError: Naming the hyper-parameter, the range and the domain.
        """


scales: Registry[Scale] = Registry("scale")


@scales.register("linear")
@final
class LinearScale(Scale):
    """Uniform in ``x``; a factor multiplies ``x``, and moves 0 by ``factor - 1`` of the range's width."""

    def position(self, value: float) -> float:
        """``x``."""
        return value

    def value(self, position: float) -> float:
        """``x``."""
        return position

    def times(self, value: float, factor: float, width: float) -> float:
        """``x * factor``, for negative numbers ``x / factor``, so that it is higher for a factor above 1."""
        if value == 0:
            return (factor - 1) * width
        return value * factor if value > 0 else value / factor

    def require(self, low: float, high: float, name: str) -> None:
        """Any range will do."""


@scales.register("log")
@final
class LogScale(Scale):
    """Uniform in ``log x``; a factor multiplies ``x``: for what is right in its order of magnitude."""

    def position(self, value: float) -> float:
        """``log x``."""
        return math.log(value)

    def value(self, position: float) -> float:
        """``exp``."""
        return math.exp(position)

    def times(self, value: float, factor: float, width: float) -> float:
        """``x * factor``."""
        return value * factor

    def require(self, low: float, high: float, name: str) -> None:
        """Above 0."""
        _require(low > 0, name, low, high, "log", "above 0")


@scales.register("one_minus")
@final
class OneMinusScale(Scale):
    """Uniform in ``log(1 - x)``; a factor divides ``1 - x``: for a discount, whose horizon is ``1 / (1 - x)``."""

    def position(self, value: float) -> float:
        """``-log(1 - x)``."""
        return -math.log1p(-value)

    def value(self, position: float) -> float:
        """``1 - exp(-position)``."""
        return -math.expm1(-position)

    def times(self, value: float, factor: float, width: float) -> float:
        """``1 - (1 - x) / factor``."""
        return 1 - (1 - value) / factor

    def require(self, low: float, high: float, name: str) -> None:
        """Below 1."""
        _require(high < 1, name, low, high, "one_minus", "below 1")


@scales.register("logit")
@final
class LogitScale(Scale):
    """Uniform in ``log(x / (1 - x))``; a factor multiplies the odds ``x / (1 - x)``: for probabilities."""

    def position(self, value: float) -> float:
        """``log(x / (1 - x))``."""
        return math.log(value) - math.log1p(-value)

    def value(self, position: float) -> float:
        """``1 / (1 + exp(-position))``."""
        return 1 / (1 + math.exp(-position))

    def times(self, value: float, factor: float, width: float) -> float:
        """``x * factor / (1 - x + x * factor)``."""
        return value * factor / (1 - value + value * factor)

    def require(self, low: float, high: float, name: str) -> None:
        """Between 0 and 1."""
        _require(low > 0 and high < 1, name, low, high, "logit", "between 0 and 1, both excluded")


def _require(holds: bool, name: str, low: float, high: float, scale: str, domain: str) -> None:
    if not holds:
        raise ArgumentError(f"{name}: the range [{low:g}, {high:g}] has to lie {domain} on the scale '{scale}'.")
