"""Controls that leave the loss alone: early stopping, and a learning rate that follows the divergence."""

from __future__ import annotations

from typing import final

from everlearn.core.errors import require_in_range
from everlearn.ppo.kl.control import KLControl, kl_controls


@final
@kl_controls.register("early_stop")
class KLEarlyStop(KLControl):
    """Updates of a rollout stop once the approximate divergence exceeds 1.5 times the target: ``target_kl`` by name.

    Args:
        target: The divergence per rollout to aim at, in nats, > 0.
    """

    def __init__(self, target: float = 0.02) -> None:
        super().__init__(target)

    @property
    def target_kl(self) -> float:
        """Updates of a rollout stop above 1.5 times this approximate divergence."""
        return self.target

    def _move(self, kl: float) -> None:
        """It remembers nothing."""


@final
@kl_controls.register("adaptive_lr")
class KLAdaptiveLR(KLControl):
    """The learning rate falls by ``step`` above twice the target and rises by it below half of the target.

    Args:
        target: The divergence per rollout to aim at, in nats, > 0.
        step: Factor of one change, > 1.
        minimum: Lowest factor on the schedule's learning rate, in (0, 1].
        maximum: Highest factor, >= 1.

    Source: the adaptive schedule of Heess et al. 2017, appendix, as Rudin et al. 2022 use it.
    """

    memory = ("factor",)

    def __init__(self, target: float = 0.01, step: float = 1.5, minimum: float = 0.01, maximum: float = 10.0) -> None:
        super().__init__(target)
        require_in_range("step", step, 1, open_low=True, open_high=True)
        require_in_range("minimum", minimum, 0, 1, open_low=True)
        require_in_range("maximum", maximum, 1, open_high=True)
        self.step = step
        self.minimum = minimum
        self.maximum = maximum
        self.factor = 1.0

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rate."""
        return max(self.minimum, min(self.factor, self.maximum))

    def _move(self, kl: float) -> None:
        if kl > 2 * self.target:
            self.factor = max(self.lr_factor / self.step, self.minimum)
        elif kl < self.target / 2:
            self.factor = min(self.lr_factor * self.step, self.maximum)

    def diagnostics(self) -> dict[str, float]:
        """The factor in force."""
        return {"lr_factor": self.lr_factor}
