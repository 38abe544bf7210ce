"""How hyper-parameters change. To add a rule, write an ``ExploreStrategy`` and ``@explores.register("name")`` it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from numpy.random import Generator

from everlearn.core.errors import ConfigError, require_in_range
from everlearn.core.registry import Registry
from everlearn.population.members import Hyperparams, Record
from everlearn.population.space import HyperparamConfig, SearchSpace


class ExploreStrategy(ABC):
    """A rule by which a copy gets hyper-parameters of its own, inside of their ranges and in their types.

    Attributes:
        learns: Whether it learns from the records' ``observations``. For a rule that says False they are empty: to look
            through all that was decided takes time.
    """

    learns: ClassVar[bool] = True

    @abstractmethod
    def explored(
        self, hyperparams: Hyperparams, space: SearchSpace, population: Sequence[Record], generator: Generator
    ) -> dict[str, Any]:
        """The new values.

        Args:
            hyperparams: What is to be changed: the source's, value by name.
            space: What they may be.
            population: What is known of them all, for rules that learn from it.
            generator: Of whoever decides.
        """

    def require(self, space: SearchSpace) -> None:  # noqa: B027 - most rules ask for nothing
        """Refuse a space that the rule cannot explore.

        Raises:
            ConfigError: Naming the hyper-parameter and what it lacks.
        """


explores: Registry[ExploreStrategy] = Registry("explore method")


def each_changed(
    hyperparams: Hyperparams, space: SearchSpace, change: Callable[[HyperparamConfig, Any], Any]
) -> dict[str, Any]:
    """Each hyper-parameter of the space after a change of its own; one that is not in the space stays."""
    return {**hyperparams, **{each.name: change(each, hyperparams.get(each.name)) for each in space}}


def perturbed(config: HyperparamConfig, value: Any, generator: Generator) -> Any:
    """A step up or down by the configured factors; the neighbour where there are choices. Never the same value."""
    return config.allowed.perturbed(value, config.factors, generator)


@explores.register("perturb")
@final
@dataclass(frozen=True)
class Perturb(ExploreStrategy):
    """Each takes a step up or down, each as likely (Jaderberg et al. 2017)."""

    learns: ClassVar[bool] = False

    def explored(
        self, hyperparams: Hyperparams, space: SearchSpace, population: Sequence[Record], generator: Generator
    ) -> dict[str, Any]:
        """Next to the source's."""
        return each_changed(hyperparams, space, lambda config, value: perturbed(config, value, generator))


@explores.register("resample")
@final
@dataclass(frozen=True)
class Resample(ExploreStrategy):
    """Each is drawn anew from its whole range (Jaderberg et al. 2017)."""

    learns: ClassVar[bool] = False

    def explored(
        self, hyperparams: Hyperparams, space: SearchSpace, population: Sequence[Record], generator: Generator
    ) -> dict[str, Any]:
        """Whatever the source's are."""
        return each_changed(hyperparams, space, lambda config, value: config.allowed.sample(generator))


@explores.register("both")
@final
@dataclass(frozen=True)
class PerturbOrResample(ExploreStrategy):
    """Each is drawn anew with its own ``resample_probability``, and otherwise takes a step."""

    learns: ClassVar[bool] = False

    def explored(
        self, hyperparams: Hyperparams, space: SearchSpace, population: Sequence[Record], generator: Generator
    ) -> dict[str, Any]:
        """Mostly next to the source's."""

        def change(config: HyperparamConfig, value: Any) -> Any:
            if generator.random() < config.resample_probability:
                return config.allowed.sample(generator)
            return perturbed(config, value, generator)

        return each_changed(hyperparams, space, change)


@explores.register("reset")
@final
@dataclass(frozen=True)
class Reset(ExploreStrategy):
    """Each goes back to its ``default`` with a small probability, and otherwise takes a step (Petrenko et al. 2020).

    Args:
        probability: Of going back, in [0, 1].
    """

    learns: ClassVar[bool] = False

    probability: float = 0.01

    def __post_init__(self) -> None:
        require_in_range("probability", self.probability, 0, 1)

    def require(self, space: SearchSpace) -> None:
        """Every hyper-parameter needs a default."""
        for each in space:
            if each.default is None:
                raise ConfigError(f"{each.name}: the explore method 'reset' needs a default. Give default=...")

    def explored(
        self, hyperparams: Hyperparams, space: SearchSpace, population: Sequence[Record], generator: Generator
    ) -> dict[str, Any]:
        """Next to the source's, or where it all began."""

        def change(config: HyperparamConfig, value: Any) -> Any:
            if generator.random() < self.probability:
                return config.allowed.nearest(config.default)
            return perturbed(config, value, generator)

        return each_changed(hyperparams, space, change)
