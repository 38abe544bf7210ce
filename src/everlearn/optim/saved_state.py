"""Whether a saved state is one of an optimizer's own, before anything of it is taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from everlearn.core.errors import StateError


def require_saved(state_dict: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse a state that an optimizer of this class over such parameters has not saved.

    Raises:
        StateError: If groups, or a parameter's state, are missing, incomplete or do not fit.
    """
    _require_groups(state_dict["param_groups"], optimizer)
    saved_ids = [index for group in state_dict["param_groups"] for index in group["params"]]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for index, param in zip(saved_ids, params, strict=True):
        _require_state(state_dict["state"].get(index, {}), index, optimizer.state[param], type(optimizer).__name__)


def _require_groups(groups: Sequence[Mapping[str, Any]], optimizer: Optimizer) -> None:
    found, expected = ([len(group["params"]) for group in each] for each in (groups, optimizer.param_groups))
    if found != expected:
        raise StateError(
            f"The saved groups hold {found} parameters, those of this optimizer {expected}. "
            "Make the optimizer with the groups that it had when it was saved."
        )
    own = optimizer.param_groups[0].keys() & optimizer.defaults.keys()  # torch adds a default of its own on loading
    lacking = sorted({name for group in groups for name in own - group.keys()})
    if lacking:
        raise StateError(
            f"The saved groups lack {lacking}: {type(optimizer).__name__} did not write them. "
            "Load the state into the optimizer class that saved it."
        )


def _require_state(values: Mapping[str, Any], index: int, own: Mapping[str, Tensor], kind: str) -> None:
    for name, tensor in own.items():
        if name not in values:
            raise StateError(
                f"The saved state of parameter {index} lacks '{name}': {kind} did not write it. "
                "Load the state into the optimizer class that saved it."
            )
        if values[name].shape != tensor.shape:
            raise StateError(f"'{name}' of parameter {index}: expected {tensor.shape}, found {values[name].shape}.")
