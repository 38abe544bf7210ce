"""What Ray Tune says of a trial: the run that it is, and what is its own: a seed, and hyper-parameters."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.config import PopulationConfig, RunConfig, import_plugins, load_document
from everlearn.core.errors import ArgumentError, ConfigError, suggestion
from everlearn.core.hyperparameter_names import argument_name, is_structural
from everlearn.core.rng import kept_generators
from everlearn.environments.build import training_environment
from everlearn.pbt.rules import check_used, compile_choice
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.runs.building import build_agent, resolved
from everlearn.runs.checking import check_names
from everlearn.runs.running import source_of

RUN, SEED = "run", "seed"
"""The keys of a trial's configuration that are no hyper-parameters."""
_STARTED_IN = "TUNE_ORIG_WORKING_DIR"
"""Where Tune keeps the directory that its process was started in; it works in that of the trial."""


@dataclass(frozen=True)
class Told:
    """A trial's configuration.

    Args:
        run: The run's configuration as it was given: a file or a mapping.
        seed: Of a trial that begins; None leaves it open.
        hyperparams: Value by name, nested ones with dots.
    """

    run: Any
    seed: int | None
    hyperparams: Mapping[str, Any]


@dataclass(frozen=True)
class Decided:
    """A run with all that it left open decided.

    Args:
        config: Every setting.
        known: Names of what an agent of it can change while it learns.
    """

    config: RunConfig
    known: Collection[str]

    @property
    def population(self) -> PopulationConfig:
        """The section."""
        assert self.config.population is not None
        return self.config.population


def told(config: Mapping[str, Any]) -> Told:
    """A trial's configuration in its parts.

    Raises:
        ConfigError: Naming the key that is missing, given twice, or no hyper-parameter that may change.
    """
    if RUN not in config:
        raise ConfigError(
            f"{RUN}: it is missing. Give the configuration of the run under this key of param_space: a YAML file as "
            "for `everlearn train`, or a mapping with the same keys."
        )
    seed = plain(config.get(SEED))
    if not (seed is None or (type(seed) is int and seed >= 0)):
        raise ConfigError(f"{SEED}={seed!r} is no seed. Give a whole number from 0 on, such as tune.randint(0, 2**31).")
    hyperparams: dict[str, Any] = {}
    for name, value in _flat({key: value for key, value in config.items() if key not in (RUN, SEED)}, ""):
        same = [other for other in hyperparams if argument_name(other) == argument_name(name)]
        if same:
            raise ConfigError(f"{name}: it is the same hyper-parameter as {same[0]}. Give one of them.")
        hyperparams[name] = value
    return Told(config[RUN], seed, hyperparams)


def decided(run: Any) -> Decided:
    """The run, checked with an agent on trial.

    Raises:
        ConfigError: If it is not valid, or does not fit the environment.
    """
    if isinstance(run, str | os.PathLike):
        run = Path(os.environ.get(_STARTED_IN, ""), run)
    wanted, document = load_document(source_of(run))
    with document.blamed(), kept_generators():
        import_plugins(wanted.plugins)
        check_names(wanted)
        section = wanted.population or PopulationConfig()
        wanted = wanted.model_copy(update={"population": section})
        check_used(wanted)
        with closing(training_environment(wanted.env, wanted.algorithm.gamma)) as venv:
            config, _ = resolved(wanted, venv)
            known = tuple(build_agent(config, venv).get_hyperparameters())
    algorithm = config.algorithm.model_copy(update={"compile": compile_choice(config, section.population_size)})
    return Decided(config.model_copy(update={"algorithm": algorithm}), known)


def require_changeable(hyperparams: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse what could not be put in force in an agent while it learns.

    Args:
        hyperparams: Value by name.
        known: What such an agent can change.

    Raises:
        ConfigError: Naming the first, and what to do.
    """
    for given, value in hyperparams.items():
        name = argument_name(given)
        if is_structural(name):
            raise ConfigError(
                f"{given}: it belongs to what an agent is built of and cannot change while it learns. Give it under "
                f"'{RUN}', as a configuration has it, where trials may differ in it from their beginning."
            )
        if name not in known:
            raise ConfigError(
                f"{given}: there is no such hyper-parameter of this run: it is unknown, or its part is off."
                f"{suggestion(name, known)} What belongs to the run stands under '{RUN}'."
            )
        rule = HYPERPARAMETERS.get(name)
        try:
            _ = rule and rule.checked(given, value)
        except (ArgumentError, AssertionError) as error:
            raise ConfigError(
                f"{given}: {error} Tune's PBT multiplies whatever the bounds are: keep values inside by "
                "custom_explore_fn."
            ) from error


def plain(value: Any) -> Any:
    """A value as python has it, which numpy may have drawn."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return {key: plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Each value by its dotted name; a mapping with a kind is a schedule, and a value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "kind" not in value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, plain(value)
