"""What values a hyper-parameter may take: drawn, changed a little, and put back where it has to be."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np
from numpy.random import Generator

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.scales import Scale

Factors = tuple[float, float]
"""What a step up multiplies with, above 1, and a step down, below 1."""


class Domain(ABC):
    """The values that one hyper-parameter may take; whatever comes out of it is one of them, in its type."""

    @abstractmethod
    def sample(self, generator: Generator) -> Any:
        """A value drawn from all of them."""

    @abstractmethod
    def perturbed(self, value: Any, factors: Factors, generator: Generator) -> Any:
        """A value next to another one, and never that itself where there is a second."""

    @abstractmethod
    def nearest(self, value: Any) -> Any:
        """The value that is nearest to one of any kind."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether it is one of them."""

    def coordinate(self, value: Any) -> float | None:
        """Where it lies in [0, 1]; None if the values are not in one line."""
        return None

    def at(self, coordinate: float) -> Any:
        """The value at a coordinate in [0, 1].

        Raises:
            ArgumentError: If the values are not in one line.
        """
        raise ArgumentError(f"{type(self).__name__} has no coordinates. Perturb or sample its values.")


@final
class Interval(Domain):
    """The numbers from ``low`` to ``high``.

    Args:
        scale: What is uniform and what a factor multiplies.
        low: Lowest.
        high: Highest.
        whole: Whether only whole numbers will do, which then are of type int.
        name: Of the hyper-parameter, for messages.
        draw: How a value is drawn from a generator; None for uniform on the scale.

    Raises:
        ArgumentError: If the bounds are no finite numbers, do not rise, or lie outside of the scale's domain.
    """

    def __init__(
        self,
        scale: Scale,
        low: float,
        high: float,
        whole: bool = False,
        name: str = "range",
        draw: Callable[[Generator], Any] | None = None,
    ) -> None:
        for bound in (low, high):
            if not is_number(bound) or (whole and bound != math.floor(bound)):
                raise ArgumentError(f"{name}: the bound {bound!r} is no {'whole' if whole else 'finite'} number.")
        if not (low < high and math.isfinite(high - low)):
            raise ArgumentError(f"{name}: min_value={low!r} has to be below max_value={high!r}.")
        scale.require(low, high, name)
        self.scale, self.whole, self._draw = scale, whole, draw
        self.low: float = int(low) if whole else float(low)
        self.high: float = int(high) if whole else float(high)

    def sample(self, generator: Generator) -> float:
        """Drawn within the bounds; whole numbers share the scale from half below the lowest on."""
        if self._draw is not None:
            return self.nearest(self._draw(generator))
        margin = 0.5 if self.whole else 0.0
        low, high = (self.scale.position(bound) for bound in (self.low - margin, self.high + margin))
        return self.nearest(self.scale.value(generator.uniform(low, high)))

    def perturbed(self, value: Any, factors: Factors, generator: Generator) -> float:
        """A step up or down, each as likely; in the other direction where the bound is in the way."""
        start = self.nearest(value)
        order = factors if generator.random() < 0.5 else factors[::-1]
        steps = (self._moved(start, factor) for factor in order)
        return next((moved for moved in steps if moved != start), start)

    def _moved(self, value: float, factor: float) -> float:
        moved = self.nearest(self.scale.times(value, factor, self.high - self.low))
        if self.whole and moved == value:
            return self.nearest(value + math.copysign(1, factor - 1))
        return moved

    def nearest(self, value: Any) -> float:
        """The value within the bounds, rounded where that is needed; the lowest for what is no number."""
        if isinstance(value, float) and math.isinf(value):
            return self.high if value > 0 else self.low
        if not is_number(value):
            return self.low
        inside = min(max(value, self.low), self.high)
        return round(float(inside)) if self.whole else float(inside)

    def contains(self, value: Any) -> bool:
        """Whether it is a number within the bounds, and whole where that is needed."""
        return is_number(value) and self.low <= value <= self.high and not (self.whole and value != math.floor(value))

    def coordinate(self, value: Any) -> float:
        """0 at the lowest, 1 at the highest, even on the scale."""
        low, high, here = (self.scale.position(each) for each in (self.low, self.high, self.nearest(value)))
        return (here - low) / (high - low)

    def at(self, coordinate: float) -> float:
        """The value at a coordinate in [0, 1]."""
        low, high = self.scale.position(self.low), self.scale.position(self.high)
        return self.nearest(self.scale.value(low + coordinate * (high - low)))


@final
class Choices(Domain):
    """Some values, in an order in which neighbours are alike.

    Args:
        values: The values; lists become tuples.
        name: Of the hyper-parameter, for messages.

    Raises:
        ConfigError: If there is none, or one twice.
    """

    def __init__(self, values: Iterable[Any], name: str = "values") -> None:
        self.values = tuple(map(_plain, values))
        if not self.values:
            raise ConfigError(f"{name}: there is no value to choose. Give at least one.")
        for index, value in enumerate(self.values):
            if self._index(value) < index:
                raise ConfigError(f"{name}: {value!r} is there twice. Give each value once.")

    def sample(self, generator: Generator) -> Any:
        """Each is as likely."""
        return self.values[int(generator.integers(len(self.values)))]

    def perturbed(self, value: Any, factors: Factors, generator: Generator) -> Any:
        """The one before or after it, each as likely; at either end the only neighbour."""
        start = self.nearest(value)
        index, step = self._index(start), 1 if generator.random() < 0.5 else -1
        places = range(len(self.values))
        return next((self.values[i] for i in (index + step, index - step) if i in places), start)

    def nearest(self, value: Any) -> Any:
        """The value itself, or of numbers the closest; the first for what is none of them."""
        index = self._index(_plain(value))
        if index >= 0:
            return self.values[index]
        if is_number(value) and all(map(is_number, self.values)):
            return min(self.values, key=lambda each: abs(each - value))
        return self.values[0]

    def contains(self, value: Any) -> bool:
        """Whether it is one of them, of the same type."""
        return self._index(_plain(value)) >= 0

    def _index(self, value: Any) -> int:
        """Where a value is, -1 if nowhere; True is not 1, and 1 is not 1.0."""
        return next((i for i, each in enumerate(self.values) if type(each) is type(value) and each == value), -1)


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value)


def divisors(number: int, low: int, high: int) -> tuple[int, ...]:
    """The whole numbers from ``low`` to ``high`` that divide ``number``, rising."""
    return tuple(each for each in range(max(low, 1), min(high, number) + 1) if number % each == 0)


def _plain(value: Any) -> Any:
    """Plain python: numbers of numpy's as python's, lists as tuples."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value
