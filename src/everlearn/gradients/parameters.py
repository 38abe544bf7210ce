"""Reading parameters in the forms in which programs have them at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from everlearn.core.errors import ArgumentError

Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]


class ParameterList(NamedTuple):
    """Parameters in order, with the names and the group indices that came with them."""

    tensors: list[Tensor]
    names: list[str] | None
    groups: list[int] | None


def read_parameters(parameters: Parameters) -> ParameterList:
    """Tensors, ``(name, tensor)`` pairs, or groups ``{"params": either of these, ...}``, as one list.

    Args:
        parameters: ``module.parameters()``, ``module.named_parameters()`` or ``optimizer.param_groups``.

    Raises:
        ArgumentError: For an empty list, anything that is not a tensor, and repeated tensors or names.
    """
    items: list[Any] = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grouped = bool(items) and all(isinstance(item, Mapping) for item in items)
    members = [_members(item) for item in items] if grouped else [items]
    entries = [entry for group in members for entry in group]
    named = all(isinstance(entry, tuple) for entry in entries)
    tensors = [entry[1] for entry in entries] if named else entries
    names = [entry[0] for entry in entries] if named else None
    _require_distinct(tensors, names)
    groups = [index for index, group in enumerate(members) for _ in group] if grouped else None
    return ParameterList(tensors, names, groups)


def _members(group: Mapping[str, Any]) -> list[Any]:
    """The entries of one group; torch's optimizers keep names apart from tensors."""
    params = group["params"]
    params = [params] if isinstance(params, Tensor) else list(params)
    return list(zip(group["param_names"], params, strict=True)) if "param_names" in group else params


def _require_distinct(tensors: list[Any], names: list[str] | None) -> None:
    if not tensors:
        raise ArgumentError("There are no parameters: the list is empty, or its generator was used up before.")
    strangers = [type(entry).__name__ for entry in tensors if not isinstance(entry, Tensor)]
    if strangers:
        raise ArgumentError(
            f"parameters holds a {strangers[0]} where a tensor is expected. Pass tensors, (name, tensor) "
            "pairs or optimizer groups, and no mixture of them."
        )
    if len({id(tensor) for tensor in tensors}) < len(tensors):
        raise ArgumentError("parameters holds one tensor twice. Pass every tensor once.")
    if names is not None and len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ArgumentError(f"parameters holds the name '{repeated}' twice. Give every tensor its own name.")
