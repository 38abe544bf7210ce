"""Penalties on the policy's divergence, with a coefficient that follows it."""

from __future__ import annotations

import math
from typing import final

from everlearn.core.errors import require_in_range
from everlearn.ppo.kl.control import KLControl, kl_controls


def ratio_error(kl: float, target: float, limit: float) -> float:
    """``ln(kl / target)``, at most ``limit`` on either side: 0 on target, alike for half and double."""
    if kl <= 0:
        return -limit
    return max(-limit, min(math.log(kl) - math.log(target), limit))


class Penalty(KLControl):
    """A penalty ``coefficient * KL(old || new)`` in the loss (Schulman et al. 2017, equation 8).

    Args:
        target: The divergence per rollout to aim at, in nats, > 0.
        initial: The coefficient before the first rollout.
        minimum: Lowest coefficient, > 0: from 0 no factor leads back.
        maximum: Highest coefficient.
    """

    def __init__(self, target: float, initial: float, minimum: float, maximum: float) -> None:
        super().__init__(target)
        require_in_range("minimum", minimum, 0, open_low=True, open_high=True)
        require_in_range("maximum", maximum, minimum, open_high=True)
        require_in_range("initial", initial, minimum, maximum)
        self.initial = initial
        self.minimum = minimum
        self.maximum = maximum

    def bounded(self, coefficient: float) -> float:
        """The nearest coefficient within the bounds."""
        return max(self.minimum, min(coefficient, self.maximum))

    def diagnostics(self) -> dict[str, float]:
        """The coefficient in force."""
        assert self.coefficient is not None
        return {"coefficient": self.coefficient}


@final
@kl_controls.register("pid")
class PIDPenalty(Penalty):
    """``coefficient = initial * exp(kp*e + ki*sum(e) + kd*(e - e_before))``, ``e = ln(kl / target)``, within bounds.

    In logarithms a coefficient recovers from either bound as fast as it went there. The sum stops where it alone would
    leave the bounds, so that it does not wind up while the coefficient cannot follow.

    Args:
        target: The divergence per rollout to aim at, in nats, > 0.
        initial: The coefficient before the first rollout.
        kp: Gain of the error.
        ki: Gain of the sum of errors.
        kd: Gain of the error's change.
        minimum: Lowest coefficient, > 0.
        maximum: Highest coefficient.
        error_limit: Largest error, in logarithms, that a single rollout counts for.

    Source: the penalty of Schulman et al. 2017, section 4; the controller of Stooke et al. 2020, in logarithms.
    """

    memory = ("error_sum", "error", "change")

    def __init__(
        self,
        target: float = 0.01,
        initial: float = 0.2,
        kp: float = 0.3,
        ki: float = 0.3,
        kd: float = 0.0,
        minimum: float = 1e-4,
        maximum: float = 100.0,
        error_limit: float = 2.0,
    ) -> None:
        super().__init__(target, initial, minimum, maximum)
        for name, gain in (("kp", kp), ("ki", ki), ("kd", kd)):
            require_in_range(name, gain, 0, open_high=True)
        require_in_range("error_limit", error_limit, 0, open_low=True, open_high=True)
        self.kp = kp
        self.ki = ki
        self.kd = kd
        self.error_limit = error_limit
        self.error_sum = self.error = self.change = 0.0

    @property
    def coefficient(self) -> float:
        """Weight of the divergence in the loss."""
        moved = self.kp * self.error + self.ki * self.error_sum + self.kd * self.change
        span = math.log(self.maximum / self.minimum)  # beyond it the bounds hold anyway, and exp() could overflow
        return self.bounded(self.initial * math.exp(max(-span, min(moved, span))))

    def _move(self, kl: float) -> None:
        error = ratio_error(kl, self.target, self.error_limit)
        self.change, self.error = error - self.error, error
        if self.ki > 0:
            lowest = math.log(self.minimum / self.initial) / self.ki
            highest = math.log(self.maximum / self.initial) / self.ki
            self.error_sum = max(lowest, min(self.error_sum + error, highest))

    def diagnostics(self) -> dict[str, float]:
        """The coefficient in force and the error it answers to."""
        return {**super().diagnostics(), "error": self.error}


@final
@kl_controls.register("doubling")
class DoublingPenalty(Penalty):
    """The coefficient doubles above 1.5 times the target and halves below the target over 1.5.

    Args:
        target: The divergence per rollout to aim at, in nats, > 0.
        initial: The coefficient before the first rollout.
        minimum: Lowest coefficient, > 0.
        maximum: Highest coefficient.

    Source: Schulman et al. 2017, section 4.
    """

    memory = ("current",)

    def __init__(
        self, target: float = 0.01, initial: float = 0.2, minimum: float = 1e-4, maximum: float = 100.0
    ) -> None:
        super().__init__(target, initial, minimum, maximum)
        self.current = initial

    @property
    def coefficient(self) -> float:
        """Weight of the divergence in the loss."""
        return self.bounded(self.current)

    def _move(self, kl: float) -> None:
        if kl > 1.5 * self.target:
            self.current = self.bounded(2 * self.coefficient)
        elif kl < self.target / 1.5:
            self.current = self.bounded(self.coefficient / 2)
