"""What Ray Tune says of a trial: the run that it is, and what is its own: a seed, and hyper-parameters."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.config import PopulationConfig, RunConfig, import_plugins, load_document
from everlearn.config.document import Document
from everlearn.core.errors import ConfigError, suggestion
from everlearn.core.hyperparameter_names import argument_name, is_structural
from everlearn.core.rng import kept_generators
from everlearn.environments.build import training_environment
from everlearn.pbt.rules import check_used, compile_choice
from everlearn.ppo.algorithm import PPO
from everlearn.runs.building import build_agent, resolved
from everlearn.runs.checking import check_names
from everlearn.runs.running import source_of

RUN, SEED = "run", "seed"
"""The keys of a trial's configuration that are no hyper-parameters."""
_STARTED_IN = "TUNE_ORIG_WORKING_DIR"
"""Where Tune keeps the directory that its process was started in; it works in that of the trial."""
_USED = {"perturbation_interval", "score", "copied", "optimizer_exploit_strategy"}
"""Keys of the section population; what the others say is decided by Tune."""
_FREE = {"compile", "divergence", "stats_window_size"}
"""Arguments of the algorithm that no file of a member depends on."""
_SHOWN = 100


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
class Asked:
    """What a run's configuration says; what it leaves open is open.

    Args:
        config: The configuration; the seed is there, for all trials are to be the same again.
        document: Where it stands.
    """

    config: RunConfig
    document: Document


@dataclass(frozen=True)
class Decided:
    """A run with all that it left open decided.

    Args:
        asked: What was asked for.
        config: Every setting.
        agent: One of this run, on trial: it never trains.
        own: What is in force in an agent of this run that nobody has told anything, and may change while it learns.
    """

    asked: RunConfig
    config: RunConfig
    agent: PPO
    own: Mapping[str, Any]

    @property
    def population(self) -> PopulationConfig:
        """The section."""
        assert self.config.population is not None
        return self.config.population

    def in_force(self, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
        """What is in force in a trial that was told these: they, and the run's own; an agent has tried them.

        Raises:
            ConfigError: Naming the first that could not be put in force while an agent learns, and what to do.
        """
        with kept_generators():
            self.agent.set_hyperparameters(self.own)
            for given, value in hyperparams.items():
                self._require_known(given)
                try:
                    self.agent.set_hyperparameter(given, value)
                except (AssertionError, TypeError, ValueError) as error:  # by SB3's rules, constructors of parts, ours
                    raise ConfigError(
                        f"{given}: {error} If Tune's PBT has drawn it: that multiplies whatever the bounds are; keep "
                        "values inside by custom_explore_fn."
                    ) from error
        return {**self.own, **{argument_name(name): value for name, value in hyperparams.items()}}

    def _require_known(self, given: str) -> None:
        if is_structural(given):
            raise ConfigError(
                f"{given}: it belongs to what an agent is built of and cannot change while it learns. Give it under "
                f"'{RUN}', as a configuration has it, where trials may differ in it from their beginning."
            )
        if argument_name(given) not in self.own:
            raise ConfigError(
                f"{given}: there is no such hyper-parameter of this run: it is unknown, or its part is off."
                f"{suggestion(argument_name(given), self.own)} What belongs to the run stands under '{RUN}'."
            )

    def structure(self) -> dict[str, str]:
        """What trials must have alike that take each other's state over: by key, as text.

        That is the environment, and what the agent is built of.
        """
        sections = self.config.model_dump(include={"env", "algorithm"}, exclude={"algorithm": _FREE})
        algorithm = {
            name: {"kind": value} if name in _WITH_KIND and isinstance(value, str) else value
            for name, value in sections["algorithm"].items()
            if name not in self.own
        }
        flat = dict(_flat({"env": sections["env"], **algorithm}, "", whole_schedules=False))
        on = {name: value for name, value in flat.items() if not (value is None or value is False)}
        return {name: _text_of(value) for name, value in on.items() if argument_name(name) not in self.own}


_WITH_KIND = {"value_head", "critic_reduction", "kl_penalty"}
"""Arguments where a name is a mapping with nothing but a kind."""


def told(config: Mapping[str, Any]) -> Told:
    """A trial's configuration in its parts.

    Raises:
        ConfigError: Naming the key that is missing, or given twice.
    """
    if RUN not in config:
        raise ConfigError(
            f"{RUN}: it is missing. Give the configuration of the run under this key of param_space: a YAML file as "
            "for `everlearn train`, or a mapping with the same keys."
        )
    seed = plain(config.get(SEED))
    if not (seed is None or (type(seed) is int and 0 <= seed < 2**32)):
        raise ConfigError(
            f"{SEED}={seed!r} is no seed. Give a whole number from 0 to 2**32 - 1, such as tune.randint(0, 2**31)."
        )
    hyperparams: dict[str, Any] = {}
    for name, value in _flat({key: value for key, value in config.items() if key not in (RUN, SEED)}, ""):
        same = [other for other in hyperparams if argument_name(other) == argument_name(name)]
        if same:
            raise ConfigError(f"{name}: it is the same hyper-parameter as {same[0]}. Give one of them.")
        hyperparams[name] = value
    return Told(config[RUN], seed, hyperparams)


def asked(run: Any) -> Asked:
    """What a run's configuration says, with the seed 0 where it names none.

    Raises:
        ConfigError: If it is none, or not valid.
    """
    if isinstance(run, str | os.PathLike):
        source: Any = Path(os.environ.get(_STARTED_IN, ""), run)
    elif isinstance(run, Mapping | RunConfig):
        source = plain(source_of(run))
    else:
        raise ConfigError(f"{RUN}={run!r:.100} is no configuration. Give a YAML file, or a mapping with its keys.")
    config, document = load_document(source)
    left_open = {"population": config.population or PopulationConfig(), "seed": config.seed or 0}
    return Asked(config.model_copy(update=left_open), document)


def decided(wanted: Asked) -> Decided:
    """The run, checked with an agent on trial.

    Raises:
        ConfigError: If it does not fit the environment, or says something that would do nothing.
    """
    with wanted.document.blamed(), kept_generators():
        import_plugins(wanted.config.plugins)
        check_names(wanted.config)
        check_used(wanted.config)
        _require_no_decisions(wanted.config)
        with closing(training_environment(wanted.config.env, wanted.config.algorithm.gamma)) as venv:
            config, _ = resolved(wanted.config, venv)
            agent = build_agent(config, venv)
    own = {name: value for name, value in agent.get_hyperparameters().items() if not is_structural(name)}
    algorithm = config.algorithm.model_copy(update={"compile": compile_choice(config, workers=_trials(config))})
    return Decided(wanted.config, config.model_copy(update={"algorithm": algorithm}), agent, own)


def _trials(config: RunConfig) -> int:
    """Of as many as the section population says each has a process of its own."""
    assert config.population is not None
    return config.population.population_size


def _require_no_decisions(config: RunConfig) -> None:
    """Refuse what the section population says of decisions, which are Tune's.

    Raises:
        ConfigError: Naming all keys.
    """
    section, default = config.population, PopulationConfig()
    complaints = [
        f"population.{key}: Tune trains and decides, so that it does nothing here. Leave it out."
        for key in PopulationConfig.model_fields
        if key not in _USED and getattr(section, key) != getattr(default, key)
    ]
    if complaints:
        raise ConfigError("\n".join(complaints))


def plain(value: Any) -> Any:
    """A value as python has it, which numpy may have drawn."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [*map(plain, value)] if isinstance(value, list) else tuple(map(plain, value))
    return {key: plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _flat(values: Mapping[str, Any], prefix: str, whole_schedules: bool = True) -> Iterator[tuple[str, Any]]:
    """Each value by its dotted name; a mapping with a kind is a schedule, and a value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not (whole_schedules and "kind" in value):
            yield from _flat(value, f"{name}.", whole_schedules)
        else:
            yield name, plain(value)


def _text_of(value: Any) -> str:
    """A value as text that is the same in every process, and short."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({hashlib.sha256(text.encode()).hexdigest()})"
