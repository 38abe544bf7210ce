"""What a configuration says of a population, as the rules that its members are decided by."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from everlearn.config import (
    CheckpointConfig,
    EvaluationConfig,
    HyperparamSection,
    LoggingConfig,
    PopulationConfig,
    RayConfig,
    RunConfig,
)
from everlearn.config.population_section import DEFAULT_SPACE
from everlearn.core.errors import ConfigError
from everlearn.core.hyperparameter_names import argument_name
from everlearn.population.beginning import given_members
from everlearn.population.config import PBTConfig, warn_of_warmup
from everlearn.population.executors.ray_cluster import require_cluster
from everlearn.population.space import HyperparamConfig
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.compilation import CompileChoice, pays
from everlearn.ppo.mutability import require_mutable

VECTORISED, PROCESSES, INLINE, RAY = "vectorised", "processes", "inline", "ray"
_OF_A_MINIBATCH = ("batch_size", "n_epochs")
"""What has to be alike in members that are updated in one step."""


def rules_of(population: PopulationConfig) -> PBTConfig:
    """The rules, checked.

    Raises:
        ConfigError: Naming the key.
    """
    space = population.hyperparams
    if space is None and population.hyperparam_mutations is None:
        space = dict(DEFAULT_SPACE)
    try:
        return PBTConfig(
            population_size=population.population_size,
            perturbation_interval=population.perturbation_interval,
            hyperparams=[_hyperparam(name, section) for name, section in (space or {}).items()],
            hyperparam_mutations=population.hyperparam_mutations,
            checkpoint_dir=None,
            **population.model_dump(include=_ALIKE),
        )
    except ValueError as error:
        raise ConfigError(f"population: {error}") from error


_ALIKE = {
    *("exploit_method", "explore_method", "truncation_ratio", "metric_mode", "optimizer_exploit_strategy", "copied"),
    *("burn_in", "mutate_all", "relative_gap", "absolute_gap"),
}
"""Keys with the names and meanings of ``PBTConfig``."""


def _hyperparam(name: str, section: HyperparamSection) -> HyperparamConfig:
    values = section.model_dump(exclude_none=True)
    return HyperparamConfig(name, **values)


def check_initial(population: PopulationConfig, rules: PBTConfig) -> None:
    """Refuse hyper-parameters of the first members that do not fit the rules.

    Raises:
        ConfigError: Naming what is wrong.
    """
    if population.initial is not None:
        try:
            given_members(rules, population.initial)
        except ValueError as error:
            raise ConfigError(f"population.initial: {error}") from error


def check_used(config: RunConfig) -> None:
    """Refuse keys that would do nothing in a population.

    Raises:
        ConfigError: Naming them all.
    """
    population = config.population
    scored = population is not None and population.score == "evaluation"
    plain = {
        "checkpoint": (CheckpointConfig(), "a member's state is kept at every decision"),
        "evaluation": (EvaluationConfig(), "score: evaluation evaluates members at every decision"),
        "logging": (LoggingConfig(), "members are compared with each other"),
    }
    of_evaluation = {"episodes", "deterministic", "seed"} if scored else {"seed"}
    used = {"logging": {"interval", "tensorboard"}, "evaluation": of_evaluation}
    complaints = [
        f"{section}.{key}: it does nothing in a population: {why}. Leave it out."
        for section, (default, why) in plain.items()
        for key in type(default).model_fields
        if key not in used.get(section, ()) and getattr(getattr(config, section), key) != getattr(default, key)
    ]
    if config.hyperparameter_schedule is not None:
        complaints.append("hyperparameter_schedule: a population finds its own. Leave it out.")
    if complaints:
        raise ConfigError("\n".join(complaints))


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What the training of a member follows from, by dotted key; who trains it is not among that."""
    sections = config.model_dump(include={"env", "algorithm", "evaluation"})
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


def total_updates(config: RunConfig) -> int:
    """Training updates of a member: rollouts until ``total_timesteps`` are reached."""
    assert config.algorithm.n_steps is not None
    return math.ceil(config.total_timesteps / (config.algorithm.n_steps * config.env.n_envs))


def check_rules(rules: PBTConfig, agent: PPO, config: RunConfig) -> None:
    """Compare the rules with an agent of the population: what is to change can, and warm-up is over in time.

    Raises:
        ConfigError: For a hyper-parameter that cannot change in it; row 28 of the failure modes.
    """
    try:
        require_mutable(rules.space, agent)
    except ConfigError as error:
        raise ConfigError(f"population.hyperparams: {error}") from error
    scaler = agent.variance_gradient_scaler
    if scaler is not None and len(rules.space) and rules.population_size > 1:
        steps = agent.n_epochs * math.ceil(agent.n_steps * agent.n_envs / agent.batch_size)
        warn_of_warmup(rules.perturbation_interval, steps, scaler.warmup_steps)


def chosen_executor(config: RunConfig, rules: PBTConfig, known: Mapping[str, object]) -> str:
    """Who trains: what the configuration names, or what suits the space.

    Raises:
        ConfigError: If there is no such executor, or it cannot train this population.
    """
    assert config.population is not None
    named = config.population.executor
    uneven = [each.name for each in rules.space if argument_name(each.name) in _OF_A_MINIBATCH]
    if config.population.ray is not None and named != RAY:
        raise ConfigError(f"population.ray: it does nothing with the executor {named}. Leave it out, or choose ray.")
    if named == "auto":
        return PROCESSES if uneven or rules.population_size == 1 else VECTORISED
    if named not in known:
        raise ConfigError(f"population.executor: '{named}' is unknown. There are auto, {', '.join(known)}.")
    if named == VECTORISED and uneven:
        raise ConfigError(
            f"population.executor: vectorised members have minibatches alike, and {', '.join(uneven)} is to be "
            "learned. Choose processes, or leave it out."
        )
    return named


def on_trial(config: RunConfig, executor: str) -> RunConfig:
    """The configuration as an agent is tried with it here; the devices of a cluster are on other machines.

    Raises:
        ConfigError: If Ray cannot train it.
    """
    if executor != RAY:
        return config
    assert config.population is not None
    device, ray = config.runtime.device, config.population.ray or RayConfig()
    require_cluster(ray.address)
    if device.startswith("cuda") and not ray.num_gpus:
        raise ConfigError(
            f"runtime.device: Ray hides all GPUs from workers that have asked for none, and {device} is one. Set "
            "population.ray.num_gpus, such as 1, or 0.25 for four workers on a GPU."
        )
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": "cpu"})})


def compile_choice(config: RunConfig, workers: int) -> CompileChoice:
    """Whether members' updates are compiled: with "auto", where the updates that a process does pay for it.

    Args:
        config: Every setting.
        workers: Processes that share the members.
    """
    algorithm, population = config.algorithm, config.population
    assert algorithm.n_steps is not None and population is not None
    minibatches = math.ceil(algorithm.n_steps * config.env.n_envs / algorithm.batch_size)
    updates = total_updates(config) * algorithm.n_epochs * minibatches
    return pays(algorithm.compile, updates * population.population_size / workers)


def worker_count(population: PopulationConfig) -> int:
    """Processes: what the configuration says, or one per core; never more than members.

    On a cluster as many as members: those work for which there is room.
    """
    if population.executor == INLINE:
        return 1
    own = population.population_size if population.executor == RAY else cores()
    wanted = own if population.workers == "auto" else population.workers
    return min(wanted, population.population_size)


def cores() -> int:
    """Of this machine, as far as this process may use them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
