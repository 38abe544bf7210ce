"""Whether a population may change a hyper-parameter of a model: decided by the rules that the model itself follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from everlearn.core.errors import ArgumentError, ConfigError, suggestion
from everlearn.core.hyperparameter_names import argument_name, is_structural
from everlearn.population.domains import Choices, Interval
from everlearn.population.space import HyperparamConfig
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.ppo.tuning import TunableLearner


def require_mutable(hyperparams: Iterable[HyperparamConfig], model: TunableLearner) -> None:
    """Refuse a space with something in it that could not be put in force in a model while it learns.

    That is every name that ``model.get_hyperparameters()`` does not list, what belongs to the structure, and a value
    that ``set_hyperparameter`` would refuse: bounds are tried against the rules, of ranges both. Nothing is changed.

    Args:
        hyperparams: Of the population.
        model: One of its agents, which stands for all.

    Raises:
        ConfigError: Naming the first, and why it will not do.
    """
    known = model.get_hyperparameters()
    for each in hyperparams:
        name = argument_name(each.name)
        if name not in known or is_structural(name):
            raise ConfigError(
                f"The hyper-parameter '{each.name}' cannot change while this model learns: it is unknown, belongs to "
                f"the architecture, or its part is off.{suggestion(name, known)}"
            )
        for value in _extremes(each):
            _require_fit(each.name, name, value, model)


def _extremes(config: HyperparamConfig) -> tuple[Any, ...]:
    """Values between which all others lie, or all of them."""
    domain = config.allowed
    if isinstance(domain, Choices):
        return domain.values
    return (domain.low, domain.high) if isinstance(domain, Interval) else ()


def _require_fit(given: str, name: str, value: Any, model: TunableLearner) -> None:
    rule = HYPERPARAMETERS.get(name)
    if rule is None:  # an option of a part, whose constructor knows what it may be
        return
    try:
        rule.fits(model, rule.checked(name, value))
    except (ArgumentError, AssertionError) as error:
        raise ConfigError(f"The hyper-parameter '{given}' may become {value!r}: {error}") from error
