"""What happens when updates meet a loss or gradient that is not finite, again and again."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from everlearn.core.errors import NonFiniteError, require_in_range
from everlearn.core.registry import Registry
from everlearn.core.stateful import snapshot


@dataclass(frozen=True)
class DivergenceControl(ABC):
    """Such updates change nothing and are counted; ``patience`` of them in a row are a divergence.

    Args:
        patience: Updates in a row, >= 1.
    """

    patience: int = 10

    def __post_init__(self) -> None:
        require_in_range("patience", self.patience, 1)

    @abstractmethod
    def may_restore(self, restores: int) -> bool:
        """Whether the last good state is restored once more, after ``restores`` times; if not, training stops."""

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rate at every restoration."""
        return 1.0


divergence_controls: Registry[DivergenceControl] = Registry("divergence control")


@final
@divergence_controls.register("stop")
@dataclass(frozen=True)
class Stop(DivergenceControl):
    """Training stops with ``NonFiniteError``.

    Args:
        patience: Updates in a row, >= 1.
    """

    def may_restore(self, restores: int) -> bool:
        """Never."""
        return False


@final
@divergence_controls.register("restore")
@dataclass(frozen=True)
class Restore(DivergenceControl):
    """The state before the last good rollout comes back, with a smaller learning rate; at last training stops.

    Args:
        patience: Updates in a row, >= 1.
        factor: On the learning rate at every restoration, in (0, 1].
        max_restores: Restorations before training stops.
    """

    factor: float = 0.5
    max_restores: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in_range("factor", self.factor, 0, 1, open_low=True)
        require_in_range("max_restores", self.max_restores, 0)

    def may_restore(self, restores: int) -> bool:
        """While there are fewer than ``max_restores``."""
        return restores < self.max_restores

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rate at every restoration."""
        return self.factor


DivergenceSpec = str | Mapping[str, Any] | DivergenceControl


@final
class DivergenceGuard:
    """Counts the updates that met a loss or gradient that was not finite, and keeps what may have to be restored.

    ``skipped`` counts all of them, ``in_a_row`` the last ones; ``restores`` how often a state was restored, and
    ``lr_factor`` is the factor on the learning rate that this has left.

    Args:
        control: What a divergence is, and what follows.
    """

    def __init__(self, control: DivergenceControl) -> None:
        self.control = control
        self.skipped = 0
        self.in_a_row = 0
        self.restores = 0
        self.lr_factor = 1.0
        self._updates = 0
        self._good_state: dict[str, Any] | None = None
        self._newest: tuple[dict[str, Any], int, int] | None = None  # a state, and the counts of updates at its time

    def count(self, *, skipped: bool) -> None:
        """Take note of one update."""
        self._updates += 1
        self.skipped += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0

    @property
    def has_diverged(self) -> bool:
        """Whether so many updates in a row were skipped."""
        return self.in_a_row >= self.control.patience

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Copy the state between two rollouts, if it may ever be asked for.

        It is a good one once a rollout after it had no skipped update; until the first such one, the first state is.
        """
        if not self.control.may_restore(self.restores):
            return
        if self._newest is not None:
            kept, updates, skipped = self._newest
            if self._updates == updates:
                return
            if self.skipped == skipped or self._good_state is None:
                self._good_state = kept
        self._newest = (snapshot(state()), self._updates, self.skipped)

    def good_state(self, env_step: int) -> dict[str, Any]:
        """The last good state, to go on from with a smaller learning rate.

        Args:
            env_step: Where training is, for messages.

        Raises:
            NonFiniteError: If there is none, or it may not be restored once more.
        """
        problem = (
            f"{self.in_a_row} updates in a row, the last at env-step {env_step}, met a loss or gradient that is not "
            "finite"
        )
        good = self._good_state or (self._newest and self._newest[0])
        if good is None or not self.control.may_restore(self.restores):
            tried = f" The last good state was restored {self.restores} times." if self.restores else ""
            raise NonFiniteError(
                f"{problem}; the parameters are as they were before them.{tried} Lower learning_rate, or rescale the "
                "rewards."
            )
        self.restores += 1
        self.in_a_row = 0
        self.lr_factor *= self.control.lr_factor
        warnings.warn(
            f"{problem}. The last good state is restored, and the learning rate is {self.lr_factor:g} of its "
            "schedule's from now on.",
            stacklevel=4,
        )
        return snapshot(good)  # type: ignore[no-any-return]

    def state_dict(self) -> dict[str, float]:
        """The counts and the factor; the state that was kept last is not part of it."""
        return {
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "restores": self.restores,
            "lr_factor": self.lr_factor,
        }

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Take over the counts and the factor."""
        for name in self.state_dict():
            setattr(self, name, state_dict[name])
