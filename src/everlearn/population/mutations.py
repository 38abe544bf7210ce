"""The search spaces of Ray Tune's population based training, taken over: what was pasted works, within bounds."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.random import Generator

from everlearn.core.errors import ConfigError
from everlearn.population.domains import Choices, Domain, Interval, is_number
from everlearn.population.scales import LinearScale, LogScale
from everlearn.population.space import HyperparamConfig

_BOUNDS = {"min", "max"}
_RANGE_KEYS = _BOUNDS | {"log", "scale"}
_PROBES = 1000
_MOST_CHOICES = 50
_PROBE_SEED = 20_171_127
_ROUNDING = 1e-9


def from_mutations(
    mutations: Mapping[str, Any],
    perturbation_factor: float | tuple[float, float] = 1.2,
    resample_probability: float = 0.25,
) -> tuple[HyperparamConfig, ...]:
    """The hyper-parameters of a ``hyperparam_mutations`` dictionary, nested ones with dots in their names.

    A list or tuple are choices. ``{"min": ..., "max": ..., "log": ...}`` is a range, and so is a domain of
    Ray's (``tune.uniform``, ``loguniform``, ``randint``, ``choice`` and others with bounds). A function, or a domain
    without bounds, is drawn from; as Ray does not say where it ends, its bounds are those of 1,000 draws, and where
    these are few different values it is a choice of them. Unlike Ray's, values never leave these ranges.

    Args:
        mutations: By name what it may be.
        perturbation_factor: Of each.
        resample_probability: Of each.

    Raises:
        ConfigError: If something is none of these, by its dotted name.
    """
    domains = dict(_domains(mutations, ""))
    return tuple(
        HyperparamConfig(
            name, perturbation_factor=perturbation_factor, resample_probability=resample_probability, domain=domain
        )
        for name, domain in domains.items()
    )


def _domains(mutations: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Domain]]:
    for key, spec in mutations.items():
        if not isinstance(key, str):
            raise ConfigError(f"hyperparam_mutations: the key {key!r} is no name. Give the names of hyper-parameters.")
        name = f"{prefix}{key}"
        if isinstance(spec, Mapping) and not _is_range(spec):
            yield from _domains(spec, f"{name}.")
        else:
            yield name, _domain(name, spec)


def _is_range(spec: Mapping[str, Any]) -> bool:
    return spec.keys() >= _BOUNDS and not any(isinstance(value, Mapping) for value in spec.values())


def _domain(name: str, spec: Any) -> Domain:
    if isinstance(spec, list | tuple | np.ndarray):
        return Choices(list(spec), name)
    if isinstance(spec, Mapping):
        return _range(name, spec)
    if hasattr(spec, "categories"):
        return Choices(list(spec.categories), name)
    low, high = (_attribute(spec, *names) for names in (("lower", "low"), ("upper", "high")))
    if is_number(low) and is_number(high):
        return _bounded(name, spec, low, high)
    if callable(spec):
        return _seen(name, _reproducible(spec))
    if callable(getattr(spec, "sample", None)):
        return _seen(name, _reproducible(spec.sample))
    raise ConfigError(
        f"hyperparam_mutations: {name}={spec!r} is no space. Give a list of values, {{'min': ..., 'max': ...}}, a "
        "function that draws a value, or a domain such as tune.uniform(...)."
    )


def _range(name: str, spec: Mapping[str, Any]) -> Domain:
    unknown = sorted(spec.keys() - _RANGE_KEYS)
    if unknown:
        raise ConfigError(
            f"hyperparam_mutations: {name}.{unknown[0]} is unknown. Known: {', '.join(sorted(_RANGE_KEYS))}."
        )
    config = HyperparamConfig(
        name, spec["min"], spec["max"], is_log_scale=bool(spec.get("log", False)), scale=spec.get("scale")
    )
    return config.allowed


def _bounded(name: str, spec: Any, low: float, high: float) -> Domain:
    """A domain with bounds: of Ray's, or of another library's with the same attributes."""
    sampler = _attribute(spec, "sampler")
    step = _attribute(sampler, "q")
    if step is not None:
        return Choices(_multiples(step, low, high), name)
    is_log = bool(_attribute(spec, "log")) or "log" in type(sampler).__name__.lower()
    is_whole = type(spec).__name__.startswith("Int")
    if is_whole and hasattr(spec, "upper"):  # which Ray excludes, unless it rounds to multiples
        high -= 1
    if is_whole and low == high:
        return Choices([int(low)], name)
    return Interval(LogScale() if is_log else LinearScale(), low, high, is_whole, name)


def _multiples(step: float, low: float, high: float) -> list[float]:
    """The multiples of a number from ``low`` to ``high``, of its type."""
    counts = range(math.ceil(low / step - _ROUNDING), math.floor(high / step + _ROUNDING) + 1)
    return [count * step if isinstance(step, int) else float(f"{count * step:.12g}") for count in counts]


def _seen(name: str, draw: Callable[[Generator], Any]) -> Domain:
    """What a function gives, by drawing from it."""
    generator = np.random.default_rng(_PROBE_SEED)
    seen = [draw(generator) for _ in range(_PROBES)]
    different: list[Any] = []
    for value in seen:
        if value not in different and len(different) <= _MOST_CHOICES:
            different.append(value)
    if len(different) <= _MOST_CHOICES:
        return Choices(sorted(different) if all(map(is_number, different)) else different, name)
    if not all(map(is_number, seen)):
        raise ConfigError(f"hyperparam_mutations: {name} gives more than numbers. Give the list of its values.")
    low, high = min(seen), max(seen)
    is_whole = all(isinstance(value, int | np.integer) for value in seen)
    return Interval(LogScale() if low > 0 else LinearScale(), low, high, is_whole, name, draw)


def _reproducible(function: Callable[..., Any]) -> Callable[[Generator], Any]:
    """A function that draws by the generator that it is given.

    One that takes an argument gets it. One that takes none, as Ray wants it, asks the global generators of python or
    numpy: while it runs, these are seeded from the given one, and afterwards are as they were.
    """
    takes_generator = _takes_an_argument(function)

    def draw(generator: Generator) -> Any:
        with _seeded_globals(int(generator.integers(2**32))):
            return function(generator) if takes_generator else function()

    return draw


def _takes_an_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # is made of C and says nothing of itself
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in positional and each.default is each.empty for each in parameters)


@contextmanager
def _seeded_globals(seed: int) -> Iterator[None]:
    before = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _attribute(thing: Any, *names: str) -> Any:
    """The first attribute that is there; Ray hides some behind a method ``get_...``."""
    for name in names:
        if hasattr(thing, name):
            return getattr(thing, name)
        if callable(getattr(thing, f"get_{name}", None)):
            return getattr(thing, f"get_{name}")()
    return None
