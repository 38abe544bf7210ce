"""Gates for values that come from environments and for states: no NaN and no infinity passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from everlearn.core.errors import NonFiniteError


def require_finite(quantity: str, values: Any, *, step: int, environment: int | None = None) -> None:
    """Raise unless all floating-point values are finite.

    Args:
        quantity: What they are: "reward", "observation".
        values: An array, (n_envs, ...), or a dictionary of such; of one environment if ``environment`` is given.
        step: At which step of each environment they came.
        environment: From which environment they came; None for one row per environment.

    Raises:
        NonFiniteError: Naming the quantity, the environment and its step.
    """
    parts = values if isinstance(values, Mapping) else {"": values}
    for key, part in parts.items():
        array = np.asarray(part)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        rows = array[np.newaxis] if environment is not None else array
        row = int(np.argwhere(~np.isfinite(rows))[0][0])
        culprit = row if environment is None else environment
        name = f"{quantity} '{key}'" if key else quantity
        raise NonFiniteError(
            f"Environment {culprit} returned a non-finite {name} at its step {step}: "
            f"{rows[row]}. Nothing was learned from it; parameters are unchanged. Correct the environment, "
            "or wrap it so that it ends the episode with a finite reward and observation instead."
        )


def require_finite_state(state: Any, path: str = "") -> None:
    """Refuse a state with a floating-point tensor that is not finite.

    Raises:
        NonFiniteError: Naming the tensor by its dotted path.
    """
    if isinstance(state, Mapping):
        for key, part in state.items():
            require_finite_state(part, f"{path}.{key}" if path else str(key))
    elif isinstance(state, torch.Tensor) and state.is_floating_point() and not _is_finite(state):
        raise NonFiniteError(f"'{path}' is not finite. Go on from an earlier state; this one cannot be used or saved.")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are; a sum that is says so twenty times as fast, one that is not may have overflown."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
