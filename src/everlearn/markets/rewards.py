"""What an agent in a market is rewarded for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

from everlearn.core.errors import require_in_range
from everlearn.core.registry import Registry


class Reward(ABC):
    """From the net return of each step of an episode to its reward."""

    @abstractmethod
    def __call__(self, earned: float) -> float:
        """The reward of a step that has earned a share of the account's value, above -1."""

    def reset(self) -> None:  # noqa: B027 - most remember nothing
        """Begin an episode."""

    def get_state(self) -> dict[str, Any]:
        """What it remembers of the episode."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - most remember nothing
        """Remember that."""


rewards: Registry[Reward] = Registry("reward")


@rewards.register("log_return")
@final
class LogReturn(Reward):
    """``log(1 + r)``: summed over an episode, the logarithm of the account's growth."""

    def __call__(self, earned: float) -> float:
        """The logarithm of the account's growth in a step."""
        return math.log1p(earned)


@rewards.register("differential_sharpe")
@final
class DifferentialSharpe(Reward):
    """How much a step moves the Sharpe ratio of an exponential average (Moody and Saffell 2001, equation 17).

    ``(B * dA - A * dB / 2) / (B - A^2)^(3/2)`` with ``dA = r - A``, ``dB = r^2 - B`` and the averages ``A`` and ``B``
    of ``r`` and ``r^2``; 0 until these have a variance.

    Args:
        eta: Rate of the averages.
    """

    def __init__(self, eta: float = 0.01) -> None:
        require_in_range("eta", eta, 0.0, 1.0, open_low=True)
        self.eta = eta
        self.reset()

    def __call__(self, earned: float) -> float:
        """The step's part in the ratio, at most 10 in size: a variance near 0 would make it huge."""
        to_mean, to_square = earned - self._mean, earned**2 - self._square
        variance = self._square - self._mean**2
        value = (self._square * to_mean - 0.5 * self._mean * to_square) / variance**1.5 if variance > 1e-12 else 0.0
        self._mean += self.eta * to_mean
        self._square += self.eta * to_square
        return max(min(value, 10.0), -10.0)

    def reset(self) -> None:
        """Forget the averages."""
        self._mean = self._square = 0.0

    def get_state(self) -> dict[str, Any]:
        """The averages."""
        return {"mean": self._mean, "square": self._square}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self._mean, self._square = state["mean"], state["square"]
