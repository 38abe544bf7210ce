"""An optimizer's state by the names of the parameters, so that it does not depend on their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from everlearn.core.errors import StateError


def state_by_name(optimizer: torch.optim.Optimizer, policy: nn.Module) -> dict[str, Any]:
    """``optimizer.state_dict()`` with the names that the policy has for its parameters instead of numbers."""
    names = _names(optimizer, policy)
    state = optimizer.state_dict()
    groups = [{**group, "params": [names[index] for index in group["params"]]} for group in state["param_groups"]]
    values = {names[index]: value for index, value in state["state"].items()}
    return {**state, "state": values, "param_groups": groups}


def state_by_number(named: Mapping[str, Any], optimizer: torch.optim.Optimizer, policy: nn.Module) -> dict[str, Any]:
    """The same with the numbers that ``load_state_dict`` of this optimizer expects.

    Raises:
        StateError: If it is for other parameters, naming them.
    """
    numbers = {name: index for index, name in enumerate(_names(optimizer, policy))}
    found = [name for group in named["param_groups"] for name in group["params"]]
    different = sorted(set(found) ^ set(numbers))
    if different or len(found) != len(numbers):
        raise StateError(
            f"The optimizer's state is for other parameters; {different or 'some twice'} differ. "
            "Build the policy as it was when the state was saved."
        )
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in named["param_groups"]]
    values = {numbers[name]: value for name, value in named["state"].items()}
    return {**named, "state": values, "param_groups": groups}


def _names(optimizer: torch.optim.Optimizer, policy: nn.Module) -> list[str]:
    """The names of an optimizer's parameters in its own order; one that is not the policy's has its number."""
    names = {parameter: name for name, parameter in policy.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [names.get(parameter, f"parameter {index}") for index, parameter in enumerate(parameters)]
