"""State that is complete by construction: named parts, each with a role, joined in one tree."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from everlearn.core.errors import StateError, suggestion


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can save; ``nn.Module`` and ``Optimizer`` already are."""

    def state_dict(self) -> dict[str, Any]:
        """The state; it may hold live tensors, as torch's own classes do: ``StateTree`` copies them."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> object:
        """Take over a snapshot; raise and stay unchanged where it does not fit."""
        ...


class Role(StrEnum):
    """Why a part is saved; files, transfers and checkpoints are subsets chosen by role."""

    LEARNED = "learned"  # weights, optimizer, statistics: what training has found out
    HYPER = "hyper"  # hyper-parameters now in force, schedules
    LOOP = "loop"  # counters, last observations
    SIMULATION = "simulation"  # environments
    RANDOM = "random"  # generators; restored last
    RECORD = "record"  # callbacks, loggers, pending records


def snapshot(state: Any) -> Any:
    """A copy of a state that shares nothing with it: tensors cloned, which is much quicker than ``copy.deepcopy``."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: snapshot(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(snapshot(value) for value in state)
    return copy.deepcopy(state)


class Attributes:
    """Some attributes of an object as one part of its state.

    Args:
        owner: The object.
        attributes: Their names; their values are plain data, tensors or arrays. As a mapping, name to whether a value
            will do.
    """

    def __init__(self, owner: object, attributes: Iterable[str] | Mapping[str, Callable[[Any], bool]]) -> None:
        self._owner = owner
        self.attributes = tuple(attributes)
        self._fits = dict(attributes) if isinstance(attributes, Mapping) else {}

    def state_dict(self) -> dict[str, Any]:
        """Name to value."""
        return {name: getattr(self._owner, name) for name in self.attributes}

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Assign the values of a snapshot.

        Raises:
            StateError: If one is missing or will not do; nothing has changed then.
        """
        missing = [name for name in self.attributes if name not in state_dict]
        if missing:
            raise StateError(f"The state lacks {missing}. Load what an object with the same attributes has saved.")
        for name, fits in self._fits.items():
            if not fits(state_dict[name]):
                raise StateError(f"{name} cannot be {state_dict[name]!r}. Load what such an object has saved.")
        for name in self.attributes:
            setattr(self._owner, name, state_dict[name])


@dataclass(frozen=True)
class Part:
    """One named part of a tree."""

    stateful: Stateful
    role: Role


class StateTree:
    """Named parts saved and restored as one; a missing or unknown name is an error before anything changes.

    Args:
        parts: Name to ``Part``. The order is the order of saving; random parts are restored last.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = dict(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __getitem__(self, name: str) -> Stateful:
        return self._parts[name].stateful

    def role(self, name: str) -> Role:
        """The role of the part called ``name``."""
        return self._parts[name].role

    def subset(self, roles: Iterable[Role]) -> StateTree:
        """The tree of the parts that have one of the given roles."""
        wanted = set(roles)
        return StateTree({name: part for name, part in self._parts.items() if part.role in wanted})

    def state_dict(self) -> dict[str, Any]:
        """A snapshot, name to the state of that part: changing a part later does not change it."""
        return {name: snapshot(part.stateful.state_dict()) for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore every part, or none: where one does not fit, all are what they were.

        Raises:
            StateError: If ``state`` lacks a part or has one that the tree does not know.
        """
        missing = [name for name in self._parts if name not in state]
        unknown = [name for name in state if name not in self._parts]
        if missing:
            held = ", ".join(state) or "none"
            raise StateError(f"The state lacks {missing}; its parts: {held}. Save it with every part on.")
        if unknown:
            hint = suggestion(unknown[0], self._parts)
            raise StateError(f"The state has a part '{unknown[0]}' that has no place here.{hint}")
        order = sorted(self._parts, key=lambda name: self.role(name) is Role.RANDOM)
        before, complete = self.state_dict(), False
        try:
            for name in order:
                self._parts[name].stateful.load_state_dict(state[name])
            complete = True
        finally:
            if not complete:
                for name in order:
                    self._parts[name].stateful.load_state_dict(before[name])


def callable_with(method: Any, arguments: int) -> bool:
    """Whether it can be called with so many positional arguments: others of the same name mean something else."""
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(*range(arguments))
    except (TypeError, ValueError):  # does not fit, or is made of C and says nothing of itself
        return False
    return True
