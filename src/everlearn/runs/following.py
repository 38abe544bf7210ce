"""Hyper-parameters that change while an agent trains, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, final

from stable_baselines3.common.callbacks import BaseCallback

from everlearn.config import StretchConfig
from everlearn.ppo.algorithm import PPO


@final
class ScheduleFollower(BaseCallback):
    """Puts the hyper-parameters of each stretch in force when it begins; those of the last one stay.

    Args:
        stretches: In their order.
    """

    def __init__(self, stretches: Sequence[StretchConfig]) -> None:
        super().__init__()
        ends = [*accumulate(stretch.updates for stretch in stretches)]
        self._begins = dict(zip([0, *ends], stretches, strict=False))
        self._updates = 0

    def _on_rollout_start(self) -> None:
        stretch = self._begins.get(self._updates)
        self._updates += 1
        if stretch is not None:
            assert isinstance(self.model, PPO)
            self.model.set_hyperparameters(stretch.hyperparams)

    def _on_step(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        """How many updates have begun."""
        return {"updates": self._updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._updates = state_dict["updates"]
