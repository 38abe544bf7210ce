"""The hyper-parameters that a population learns, each with its range, and the space that they make up together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from numpy.random import Generator

from everlearn.core.errors import ArgumentError, ConfigError, require_in_range, suggestion
from everlearn.core.hyperparameter_names import argument_name, is_structural, without_alias
from everlearn.population.domains import Choices, Domain, Factors, Interval, divisors, is_number
from everlearn.population.members import Hyperparams
from everlearn.population.scales import scales

Constraint = Callable[[Hyperparams], bool]
"""Tells whether the values of several hyper-parameters fit together."""
TRIES = 1000
"""Draws after which a constraint counts as one that nothing satisfies."""


@dataclass(frozen=True)
class HyperparamConfig:
    """One hyper-parameter: its name, what it may be, and how it changes.

    Either both bounds are given, or ``values``, or a ``domain`` of one's own. Two bounds that are whole numbers make it
    a whole number, unless ``scale`` says otherwise: write 0.0 and 1.0 for the numbers between.

    Args:
        name: The constructor's (``ent_coef``, also as ``entropy_coef``), or an option's with a dot
            (``optimizer.sigma``, ``vgs.alpha``, ``kl.target``).
        min_value: Lowest.
        max_value: Highest.
        values: All that it may be, in an order in which neighbours are alike.
        perturbation_factor: A step up multiplies by it, a step down divides; or both factors, as (1.2, 0.8).
        resample_probability: How often it is drawn anew where a method does both.
        is_log_scale: The same as ``scale="log"``.
        scale: ``linear``, ``log``, ``one_minus``, ``logit``, or of your own; ``integer`` for whole numbers, ``choice``
            for values. None follows from the others.
        default: Where it goes back to where a method resets.
        divides: It is a divisor of this number, as a batch size has to be of a rollout's size.
        domain: What it may be, as an object.

    Raises:
        ConfigError: If these contradict each other, or the name is one of an agent's structure.
        ArgumentError: If a number is outside its range.
    """

    name: str
    min_value: float | None = None
    max_value: float | None = None
    values: Sequence[Any] | None = None
    perturbation_factor: float | Factors = 1.2
    resample_probability: float = 0.25
    is_log_scale: bool = False
    scale: str | None = None
    default: Any = None
    divides: int | None = None
    domain: Domain | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _checked_name(self.name))
        require_in_range(f"{self.name}: resample_probability", self.resample_probability, 0, 1)
        up, down = self.factors
        require_in_range(f"{self.name}: perturbation_factor", up, 1, open_low=True)
        require_in_range(f"{self.name}: perturbation_factor", down, 0, 1, open_low=True, open_high=True)
        allowed = self.allowed
        if self.default is not None and not allowed.contains(self.default):
            raise ConfigError(f"{self.name}: the default {self.default!r} is not among its values. Give one that is.")

    @property
    def factors(self) -> Factors:
        """What a step up and a step down multiply with."""
        factor = self.perturbation_factor
        if is_number(factor):
            return (float(factor), 1 / factor if factor else 0.0)  # type: ignore[arg-type, operator]
        if isinstance(factor, tuple | list) and len(factor) == 2 and all(map(is_number, factor)):
            return (float(max(factor)), float(min(factor)))
        raise ConfigError(f"{self.name}: perturbation_factor={factor!r} is neither a number nor two, as (1.2, 0.8).")

    @cached_property
    def allowed(self) -> Domain:
        """What it may be."""
        ways = {
            "min_value and max_value": self.min_value is not None or self.max_value is not None,
            "values": self.values is not None,
            "domain": self.domain is not None,
        }
        if sum(ways.values()) != 1:
            given = " and ".join(way for way, is_given in ways.items() if is_given) or "none of them"
            raise ConfigError(f"{self.name}: give min_value and max_value, or values, or a domain; {given} was given.")
        if self.domain is None:
            return self._choices(self.values) if self.values is not None else self._interval()
        if self.scale is not None or self.is_log_scale or self.divides is not None:
            raise ConfigError(f"{self.name}: a domain has a scale of its own. Leave scale, is_log_scale, divides out.")
        return self.domain

    def _choices(self, values: Sequence[Any]) -> Domain:
        if isinstance(values, str) or self.is_log_scale or self.scale not in (None, "choice"):
            raise ConfigError(f"{self.name}: values are a list without a scale. Give a list, or the two bounds.")
        if self.divides is not None:
            values = [each for each in values if is_number(each) and self.divides % each == 0]
        return Choices(values, self.name)

    def _interval(self) -> Domain:
        low, high, scale = self.min_value, self.max_value, self._scale_name()
        if low is None or high is None or not (is_number(low) and is_number(high)):
            raise ConfigError(f"{self.name}: min_value={low!r} and max_value={high!r} both have to be finite numbers.")
        if self.divides is not None:
            return Choices(divisors(self.divides, int(low), int(high)), self.name)
        are_whole = isinstance(low, int) and isinstance(high, int) and self.scale is None
        if are_whole and high - low == 1:
            raise ConfigError(
                f"{self.name}: whole bounds make it a whole number, of which there are only {low} and {high}. Write "
                f"{low}.0 and {high}.0 for the numbers between, or values=({low}, {high})."
            )
        whole = are_whole or scale == "integer"
        kind = scales.build("linear" if scale in (None, "integer") else str(scale))
        return Interval(kind, low, high, whole, self.name)

    def _scale_name(self) -> str | None:
        """The one scale, by its registered name."""
        if self.scale in (None, "integer"):
            return "log" if self.is_log_scale else self.scale
        if self.scale == "choice":
            raise ConfigError(f"{self.name}: the scale 'choice' is for values=(...), and there are bounds.")
        name = scales.canonical(str(self.scale), f"{self.name}: scale")
        if self.is_log_scale and name != "log":
            raise ConfigError(f"{self.name}: is_log_scale contradicts scale={self.scale!r}. Give one of them.")
        return name


@final
class SearchSpace:
    """All hyper-parameters of a population.

    Args:
        hyperparams: Each of them.
        constraint: Tells whether values fit together; None where all do.

    Raises:
        ConfigError: If two have the same name, in any spelling.
    """

    def __init__(self, hyperparams: Sequence[HyperparamConfig], constraint: Constraint | None = None) -> None:
        owners: dict[str, str] = {}
        for each in hyperparams:
            argument = argument_name(each.name)
            if argument in owners:
                raise ConfigError(f"'{each.name}' is the hyper-parameter '{owners[argument]}' again. Give each once.")
            owners[argument] = each.name
        self._by_name = {each.name: each for each in hyperparams}
        self._constraint = constraint

    def __iter__(self) -> Iterator[HyperparamConfig]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def fits(self, hyperparams: Hyperparams) -> bool:
        """Whether values fit together."""
        return self._constraint is None or bool(self._constraint(hyperparams))

    def sample(self, generator: Generator) -> dict[str, Any]:
        """Values drawn from all that there are and that fit together.

        Raises:
            ConfigError: If nothing that is drawn satisfies the constraint.
        """
        for _ in range(TRIES):
            drawn = {each.name: each.allowed.sample(generator) for each in self}
            if self.fits(drawn):
                return drawn
        raise ConfigError(f"The constraint refused {TRIES} draws. Loosen it, or narrow the ranges to what it allows.")

    def checked(self, hyperparams: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Given values in their types and under their names.

        Args:
            hyperparams: Value by name.
            where: Whose they are, for messages.

        Raises:
            ConfigError: If one is missing, unknown or not among its values, or if they do not fit together.
        """
        given = {without_alias(name): value for name, value in hyperparams.items()}
        for name in given:
            if name not in self._by_name:
                raise ConfigError(f"{where}: '{name}' is no hyper-parameter here.{suggestion(name, self._by_name)}")
        for each in self:
            if each.name not in given:
                raise ConfigError(f"{where}: '{each.name}' is missing. Give a value for every hyper-parameter.")
            if not each.allowed.contains(given[each.name]):
                raise ConfigError(
                    f"{where}: {each.name}={given[each.name]!r} is outside of its range. Widen it, or move it."
                )
        values = {each.name: each.allowed.nearest(given[each.name]) for each in self}
        if not self.fits(values):
            raise ConfigError(f"{where}: the constraint refuses {values}. Give values that fit together.")
        return values


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not all(name.split(".")):
        raise ArgumentError(f"name={name!r} is none. Give the constructor's, as 'ent_coef', or 'optimizer.sigma'.")
    name = without_alias(name)
    if is_structural(name):
        raise ConfigError(
            f"'{name}' belongs to an agent's structure: a running agent cannot change it, and agents that differ in it "
            "cannot take over each other's state. Fix it for all members, and search it with separate populations."
        )
    return name
