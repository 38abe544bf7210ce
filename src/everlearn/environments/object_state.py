"""The state of python objects that hold plain data: every attribute out, and back into an equal object.

Nothing in a state names a class: what an attribute becomes is decided by what the present object holds there.
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec

from everlearn.core.errors import StateError

_PLAIN = (bool, int, float, str, type(None))
_DESCRIPTIONS = (ModuleType, type, EnvSpec)
"""Kinds of values that an equal object has already."""
_CODE = (FunctionType, BuiltinFunctionType, MethodType)
_TRANSPARENT = ("gymnasium.", "stable_baselines3.", "everlearn.")
"""Where the classes are defined whose objects are taken apart when they are an attribute."""
_MANY = 16
"""From this length on a list of numbers is kept as an array."""


class NotPlain(StateError):  # noqa: N818 - the family has such names
    """An object holds something that no state can hold."""


def attributes_of(owner: object, left_out: Collection[str] = (), path: str = "") -> dict[str, Any]:
    """The state of an object: its attributes by name, as plain data and arrays.

    Args:
        owner: The object.
        left_out: Attributes that are no state.
        path: Of the object, for messages.

    Raises:
        NotPlain: Naming the attribute that is something else.
    """
    values = {name: value for name, value in vars(owner).items() if name not in left_out}
    where = f"{path}." if path else ""
    try:
        return {name: frozen(value, where + name) for name, value in values.items() if not _is_constant(owner, value)}
    except RecursionError:
        raise NotPlain(f"{path or type(owner).__qualname__} holds something that holds itself.") from None


def set_attributes(owner: object, state: Mapping[str, Any], left_out: Collection[str] = ()) -> None:
    """Put the attributes of an object back.

    Raises:
        StateError: If the object has no such attribute, or one of another kind than the state.
    """
    present = vars(owner)
    for name, value in state.items():
        if name not in present:
            _require_settable(owner, name)
        if name not in left_out:
            setattr(owner, name, thawed(value, present.get(name), name))


def _require_settable(owner: object, name: str) -> None:
    """Refuse a name under which an object of its class keeps no data."""
    of_class = getattr(type(owner), name, None)
    if not isinstance(name, str) or name.startswith("__") or callable(of_class) or isinstance(of_class, property):
        raise StateError(f"{type(owner).__qualname__} has no attribute {name!r}. Restore it into an equal environment.")


def _is_constant(owner: object, value: Any) -> bool:
    """Whether an equal object has the value already; code of a user's class is, unless it remembers something."""
    if isinstance(value, _DESCRIPTIONS):
        return True
    known = type(owner).__module__.startswith(_TRANSPARENT)
    return isinstance(value, _CODE) and (known or (isinstance(value, FunctionType) and value.__closure__ is None))


def frozen(value: Any, path: str) -> Any:
    """A copy of a value as plain data and arrays.

    Raises:
        NotPlain: If it, or something in it, is an object of another kind.
    """
    if type(value) in _PLAIN or isinstance(value, np.generic):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return value.copy()
    kind = next((kind for kind in _KINDS if kind.fits(value)), None)
    if kind is not None:
        return {kind.name: kind.freeze(value, path)}
    if type(value) is list:
        return _frozen_items(value, path)
    raise NotPlain(f"{path} is a {type(value).__module__}.{type(value).__qualname__}.")


def thawed(state: Any, present: Any, path: str) -> Any:
    """What ``frozen`` was given, of the kinds that are present; generators and objects are changed in place.

    Raises:
        StateError: If something of another kind is present, or the state is none.
    """
    if isinstance(state, np.ndarray):
        return state.copy()
    if isinstance(state, list):
        return _thawed_items(state, present, path)
    if not isinstance(state, Mapping):
        return state
    name = next(iter(state), None)
    kind = next((kind for kind in _KINDS if kind.name == name), None)
    if kind is None or len(state) != 1 or (kind.changes_present and not kind.fits(present)):
        raise StateError(f"{path} was a {name}, and is {present!r:.100} here. Restore it into an equal environment.")
    try:
        return kind.thaw(state[kind.name], present, path)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: its state is damaged ({error!r}). Restore the file from a copy.") from error


@dataclass(frozen=True)
class _Kind:
    """Values of one kind in a state: how they are put there, and taken out.

    Args:
        name: In the state.
        fits: Whether a value is one.
        freeze: Of a value and its path.
        thaw: Of what was frozen, the value that is present, and its path.
        changes_present: Whether what is present is changed, so that it has to be one, too.
    """

    name: str
    fits: Callable[[Any], bool]
    freeze: Callable[[Any, str], Any]
    thaw: Callable[[Any, Any, str], Any]
    changes_present: bool = False


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


def _is_exactly(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _is_many(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and len(value) >= _MANY and all(type(item) is kind for item in value)


def _is_many_arrays(value: Any) -> bool:
    """Whether a list holds arrays, or numbers of numpy's, of one shape and kind."""
    if type(value) is not list or len(value) < _MANY or not isinstance(value[0], np.ndarray | np.generic):
        return False
    form = (type(value[0]), value[0].dtype, value[0].shape)
    plain = value[0].dtype.kind in "biuf"
    return plain and all(type(item) is form[0] and (item.dtype, item.shape) == form[1:] for item in value)


def _is_transparent(value: Any) -> bool:
    return type(value).__module__.startswith(_TRANSPARENT) and hasattr(value, "__dict__")


def _frozen_items(value: Any, path: str) -> list[Any]:
    return [frozen(item, f"{path}.{index}") for index, item in enumerate(value)]


def _thawed_items(items: list[Any], present: Any, path: str) -> list[Any]:
    """Items; generators and objects among them are those that are present."""
    there = list(present) if isinstance(present, list | tuple | deque) else []
    there = there if len(there) == len(items) else [None] * len(items)
    return [thawed(item, own, f"{path}.{index}") for index, (item, own) in enumerate(zip(items, there, strict=True))]


def _frozen_mapping(value: Mapping[Any, Any], path: str) -> list[Any]:
    return [[frozen(key, f"{path} (a key)"), frozen(item, f"{path}.{key}")] for key, item in value.items()]


def _thawed_mapping(pairs: list[Any], present: Any, path: str) -> Any:
    there = present if isinstance(present, Mapping) else {}
    keys = [thawed(key, None, path) for key, _ in pairs]
    items = [thawed(item, there.get(key), f"{path}.{key}") for key, (_, item) in zip(keys, pairs, strict=True)]
    kind = OrderedDict if type(present) is OrderedDict else dict
    return kind(zip(keys, items, strict=True))


def _thawed_object(content: Mapping[str, Any], present: Any, path: str) -> Any:
    set_attributes(present, content)
    return present


def _copied(state: Any) -> Any:
    """A generator's state; arrays are copied, mappings become ordinary ones."""
    if isinstance(state, Mapping):
        return {key: _copied(value) for key, value in state.items()}
    return state.copy() if isinstance(state, np.ndarray) else state


def _frozen_generator(value: np.random.Generator, path: str) -> Any:
    """The state of the stream, and of the seeds of streams that may branch off."""
    sequence = value.bit_generator.seed_seq
    seeds = None
    if isinstance(sequence, np.random.SeedSequence):
        seeds = frozen({name: getattr(sequence, name) for name in _SEEDS}, path)
    return {"stream": _copied(value.bit_generator.state), "seeds": seeds}


_SEEDS = ("entropy", "spawn_key", "pool_size", "n_children_spawned")


def _thawed_generator(state: Mapping[str, Any], present: Any, path: str) -> np.random.Generator:
    """The generator that is present, or a new one where another stream's branches could be asked for."""
    stream, seeds = state["stream"], thawed(state["seeds"], None, path)
    own = present.bit_generator.seed_seq if isinstance(present, np.random.Generator) else None
    same = own is not None and seeds is not None and all(getattr(own, name, None) == seeds[name] for name in _SEEDS)
    if not same and (seeds is not None or not isinstance(present, np.random.Generator)):
        kind = getattr(np.random, str(stream["bit_generator"]), None)
        if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):
            raise StateError(f"{path} was a generator that numpy does not have: {stream['bit_generator']!r:.100}.")
        sequence = None if seeds is None else np.random.SeedSequence(**seeds)
        present = np.random.Generator(kind(sequence))
    generator: np.random.Generator = present
    generator.bit_generator.state = _copied(stream)
    return generator


def _frozen_random_state(value: np.random.RandomState, path: str) -> Any:
    return _copied(value.get_state(legacy=False))


def _thawed_random_state(state: Mapping[str, Any], present: np.random.RandomState, path: str) -> Any:
    present.set_state(_copied(state))
    return present


def _frozen_random(value: random.Random, path: str) -> list[Any]:
    version, internal, gauss = value.getstate()
    return [version, list(internal), gauss]


def _thawed_random(state: list[Any], present: random.Random, path: str) -> Any:
    present.setstate((state[0], tuple(state[1]), state[2]))
    return present


def _frozen_space(space: Space[Any], path: str) -> list[Any]:
    """The states of the generators of a space and its parts, None for one that nobody has asked for numbers."""
    generator = space._np_random
    own = None if generator is None else _frozen_generator(generator, path)
    return [own, *(_frozen_space(part, path) for part in _parts(space))]


def _thawed_space(states: list[Any], space: Space[Any], path: str) -> Any:
    own, parts = states[0], _parts(space)
    if len(parts) != len(states) - 1:
        raise StateError(f"The space {path} has other parts. Restore it into an equal environment.")
    changed: Any = space
    changed._np_random = None if own is None else _thawed_generator(own, space._np_random, path)
    for part, state in zip(parts, states[1:], strict=True):
        _thawed_space(state, part, path)
    return space


def _parts(space: Space[Any]) -> list[Space[Any]]:
    inner = getattr(space, "spaces", ())
    return [*(inner.values() if isinstance(inner, Mapping) else inner)]


_KINDS = (
    _Kind("generator", _is(np.random.Generator), _frozen_generator, _thawed_generator),
    _Kind("random state", _is(np.random.RandomState), _frozen_random_state, _thawed_random_state, True),
    _Kind("random", _is(random.Random), _frozen_random, _thawed_random, True),
    _Kind("space", _is(Space), _frozen_space, _thawed_space, True),
    _Kind("floats", _is_many(float), lambda value, _: np.array(value), lambda content, *_: content.tolist()),
    _Kind("arrays", _is_many_arrays, lambda value, _: np.stack(value), lambda content, *_: [*content]),
    _Kind("tuple", _is_exactly(tuple), _frozen_items, lambda *state: tuple(_thawed_items(*state))),
    _Kind(
        "deque",
        _is_exactly(deque),
        lambda value, path: [value.maxlen, _frozen_items(value, path)],
        lambda content, present, path: deque(_thawed_items(content[1], present, path), maxlen=content[0]),
    ),
    _Kind(
        "set",
        _is_exactly(set),
        lambda value, path: _frozen_items(sorted(value, key=repr), path),
        lambda items, _, path: set(_thawed_items(items, None, path)),
    ),
    _Kind("mapping", _is_exactly(dict, OrderedDict), _frozen_mapping, _thawed_mapping),
    _Kind("object", _is_transparent, lambda value, path: attributes_of(value, (), path), _thawed_object, True),
)
"""In the order in which they are asked."""
