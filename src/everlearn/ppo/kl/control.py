"""What a control of the policy's divergence is: it sees each rollout's KL(old || new) and answers for the next one."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, NonFiniteError, StateError, require_in_range
from everlearn.core.registry import Registry


class KLControl(ABC):
    """Decides, once per rollout, how the next one is held near the policy that collected it.

    Subclasses name what they remember in ``memory``; it is their state, saved and restored with the model.

    Args:
        target: The divergence per rollout to aim at, in nats, > 0.
    """

    memory: ClassVar[tuple[str, ...]] = ()
    """Attributes, all floats, that change with the rollouts."""

    def __init__(self, target: float) -> None:
        require_in_range("target", target, 0, open_low=True)
        self.target = target

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the constructor's arguments; each is an attribute that may be assigned between rollouts."""
        return tuple(inspect.signature(type(self)).parameters)

    @property
    def coefficient(self) -> float | None:
        """Weight of the divergence in the loss; None for no such term."""
        return None

    @property
    def target_kl(self) -> float | None:
        """Updates of a rollout stop above 1.5 times this approximate divergence, as by SB3's argument; None: never."""
        return None

    def require_no_other(self, target_kl: float | None) -> None:
        """Refuse a ``target_kl`` of the algorithm beside one of the control.

        Raises:
            ArgumentError: If both are there.
        """
        if target_kl is not None and self.target_kl is not None:
            raise ArgumentError(
                f"target_kl={target_kl} and the kl_penalty {type(self).__name__} both stop updates early. Keep one."
            )

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rate."""
        return 1.0

    def observe(self, kl: float) -> None:
        """Take in the divergence that a rollout has ended with, averaged over its states.

        Raises:
            NonFiniteError: If it is NaN; infinity is a very large divergence.
        """
        if math.isnan(kl):
            raise NonFiniteError(
                "The divergence between the policies before and after a rollout is NaN: the policy's outputs are not "
                "finite. Lower learning_rate, or load an earlier state."
            )
        self._move(kl)

    @abstractmethod
    def _move(self, kl: float) -> None:
        """Adapt to the divergence of a rollout."""

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers, 0-d tensors by name."""
        return {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in self.memory}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> None:
        """Take over what another one of this class remembers.

        Args:
            state_dict: As from ``state_dict()``.
            strict: Whether names must agree; if not, what is missing stays and what is unknown is ignored.

        Raises:
            StateError: If names disagree or a number is not finite; nothing has changed then.
        """
        if strict and state_dict.keys() != set(self.memory):
            raise StateError(
                f"The state of the KL control holds {sorted(state_dict)}; {type(self).__name__} remembers "
                f"{sorted(self.memory)}. Use the kl_penalty that the state was saved with."
            )
        numbers = {name: float(state_dict[name]) for name in self.memory if name in state_dict}
        strange = {name: number for name, number in numbers.items() if not math.isfinite(number)}
        if strange:
            raise StateError(f"The state of the KL control is not finite: {strange}. Load an intact one.")
        for name, number in numbers.items():
            setattr(self, name, number)

    def diagnostics(self) -> dict[str, float]:
        """What is logged of it."""
        return {}


kl_controls: Registry[KLControl] = Registry("KL control")
