"""An optimizer's state by the names of the parameters, so that it does not depend on their order."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn

from everlearn.core.errors import StateError


def state_by_name(optimizer: torch.optim.Optimizer, policy: nn.Module) -> dict[str, Any]:
    """``optimizer.state_dict()`` with the names that the policy has for its parameters instead of numbers."""
    own = _names_by_group(optimizer, policy)
    names = list(chain(*own))
    state = optimizer.state_dict()
    groups = [{**group, "params": params} for group, params in zip(state["param_groups"], own, strict=True)]
    values = {names[index]: value for index, value in state["state"].items()}
    return {**state, "state": values, "param_groups": groups}


def state_by_number(named: Mapping[str, Any], optimizer: torch.optim.Optimizer, policy: nn.Module) -> dict[str, Any]:
    """The same with the numbers that ``load_state_dict`` of this optimizer expects.

    Raises:
        StateError: If its groups are of other parameters, naming the first.
    """
    own, saved = _names_by_group(optimizer, policy), named["param_groups"]
    for names, group in zip(own, saved, strict=False):
        if sorted(names) != sorted(group["params"]):
            raise _other_groups(f"{sorted(set(names) ^ set(group['params'])) or 'some twice'} differ")
    if len(own) != len(saved):
        raise _other_groups(f"there are {len(saved)}, here {len(own)}")
    numbers = {name: index for index, name in enumerate(chain(*own))}
    groups = [{**group, "params": [numbers[name] for name in names]} for names, group in zip(own, saved, strict=True)]
    values = {numbers[name]: value for name, value in named["state"].items()}
    return {**named, "state": values, "param_groups": groups}


def fresh_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """``optimizer.state_dict()`` as if no step had been taken; its options and its stream of noise are those of now."""
    arguments = inspect.signature(type(optimizer)).parameters
    options = {name: value for name, value in optimizer.defaults.items() if name in arguments}
    twin = type(optimizer)([{**group} for group in optimizer.param_groups], **options)
    return {**optimizer.state_dict(), "state": twin.state_dict()["state"]}


def _names_by_group(optimizer: torch.optim.Optimizer, policy: nn.Module) -> list[list[str]]:
    """The names of the parameters of each group; one that is not the policy's has its number."""
    names = {parameter: name for name, parameter in policy.named_parameters()}
    numbers = iter(range(sum(len(group["params"]) for group in optimizer.param_groups)))
    return [
        [names.get(parameter, f"parameter {index}") for parameter, index in zip(group["params"], numbers, strict=False)]
        for group in optimizer.param_groups
    ]


def _other_groups(problem: str) -> StateError:
    return StateError(
        f"The optimizer's state has other groups of parameters: {problem}. "
        "Build the policy as it was when the state was saved."
    )
