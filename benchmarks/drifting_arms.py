"""Training on the drifting target: populations that copy or do not, and one agent that is told when."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.drifting import ENV_ID, EPISODE
from benchmarks.scores import Floats
from everlearn.config import load
from everlearn.environments.build import training_environment
from everlearn.pbt import PopulationRun, train_population
from everlearn.runs.building import build_agent, resolved

LOWEST, HIGHEST = 1e-3, 0.2
"""Learning rates that may be chosen."""
RUNNING, CREEPING = 0.1, 0.006
"""The oracle's learning rates: the best of a sweep with seeds that the study does not have."""
_N_ENVS = 8
_ALGORITHM: dict[str, Any] = {
    "name": "PPO",
    "n_steps": EPISODE,
    "batch_size": _N_ENVS * EPISODE,
    "n_epochs": 4,
    "gamma": 0.0,  # what an action earns comes at once
    "gae_lambda": 0.0,
    "clip_range": 0.5,
    "normalize_advantage": False,
    "ent_coef": 0.18,  # with this one the best standard deviation of actions is 0.3
    "max_grad_norm": 10.0,
    "optimizer_class": "sgd",
    "policy_kwargs": {"net_arch": [], "log_std_init": -1.0},
    "stats_window_size": 1000,  # so that a score is the mean of all episodes of a generation
}


@dataclass(frozen=True)
class Settings:
    """How much is trained.

    Attributes:
        seeds: Of every arm.
        members: Of every population.
        phases: Of the task; it runs in the first one, creeps in the second, and so on.
        updates: Of a phase; training updates of 256 environment steps each.
        interval: Updates of a generation.
        executor: Who trains.
        workers: Processes.
        compile: Whether updates are compiled.
    """

    seeds: int = 5
    members: int = 8
    phases: int = 4
    updates: int = 60
    interval: int = 4
    executor: str = "processes"
    workers: int = 2
    compile: bool = True

    @property
    def generations(self) -> int:
        """Of a phase."""
        return self.updates // self.interval

    @property
    def steps(self) -> int:
        """Environment steps of a member."""
        return self.phases * self.updates * _N_ENVS * EPISODE

    def generation_ends(self) -> Floats:
        """Environment steps of a member at the ends of generations."""
        count = self.phases * self.generations
        return np.linspace(0, self.steps, count + 1)[1:]


SHORT = replace(
    Settings(), seeds=2, members=2, phases=2, updates=1, interval=1, executor="inline", workers=1, compile=False
)


@dataclass(frozen=True)
class Trained:
    """A population, generation by generation.

    Attributes:
        scores: Mean return of the training episodes of each member in each generation, (generations, members); NaN
            where a member failed.
        learning_rates: In force meanwhile, (generations, members).
    """

    scores: Floats
    learning_rates: Floats


def pbt(seed: int, settings: Settings, directory: Path) -> Trained:
    """The two worst of eight copy one of the two best, and change its learning rate: the library's defaults."""
    return _trained({"exploit_method": "truncation", "truncation_ratio": 0.25}, seed, settings, directory)


def random_search(seed: int, settings: Settings, directory: Path) -> Trained:
    """The same members at the beginning, who keep their learning rates and copy nobody."""
    return _trained({"exploit_method": "none"}, seed, settings, directory)


def fixed(seed: int, settings: Settings, directory: Path) -> Trained:
    """Members that have the learning rates of a grid, and copy nobody."""
    initial = [{"learning_rate": value} for value in grid(settings)]
    return _trained({"exploit_method": "none", "initial": initial}, seed, settings, directory)


def grid(settings: Settings) -> list[float]:
    """As many learning rates as there are members, from the lowest to the highest."""
    return np.geomspace(LOWEST, HIGHEST, settings.members).clip(LOWEST, HIGHEST).tolist()


def oracle_schedule(settings: Settings) -> list[float]:
    """The oracle's learning rate in each phase."""
    return [(RUNNING, CREEPING)[phase % 2] for phase in range(settings.phases)]


def scheduled(seed: int, settings: Settings, schedule: Sequence[float]) -> Floats:
    """Mean returns of the training episodes of one agent, which has another learning rate in each phase.

    Returns:
        (generations,).
    """
    torch.set_num_threads(1)
    wanted = load(_configuration(seed, settings, {"population_size": 1}))
    returns = _Returns()
    with closing(training_environment(wanted.env, wanted.algorithm.gamma)) as venv:
        agent = build_agent(resolved(wanted, venv)[0], venv)
        for learning_rate in schedule:
            agent.set_hyperparameter("learning_rate", learning_rate)
            agent.learn_updates(settings.updates, settings.steps, returns)
    return np.array(returns.found).reshape(settings.phases * settings.generations, -1).mean(axis=1)


def _trained(population: dict[str, Any], seed: int, settings: Settings, directory: Path) -> Trained:
    configuration = _configuration(seed, settings, population)
    return _read(train_population(configuration, directory, plugins=["benchmarks.drifting"]))


def _configuration(seed: int, settings: Settings, population: dict[str, Any]) -> dict[str, Any]:
    return {
        "env": {
            "id": ENV_ID,
            "n_envs": _N_ENVS,
            "normalize": False,
            "kwargs": {"phase": settings.updates * EPISODE},
        },
        "algorithm": {**_ALGORITHM, "compile": settings.compile},
        "population": {
            "population_size": settings.members,
            "perturbation_interval": settings.interval,
            "hyperparams": {"learning_rate": {"min_value": LOWEST, "max_value": HIGHEST, "is_log_scale": True}},
            "executor": settings.executor,
            "workers": settings.workers,
            **population,
        },
        "total_timesteps": settings.steps,
        "seed": seed,
        "logging": {"tensorboard": False},
    }


def _read(run: PopulationRun) -> Trained:
    """What the journal tells of each generation."""
    population, results = run.population(), run.journal().results
    order = [member.member_id for member in population.members]
    scores = np.full((len(results), len(order)), np.nan)
    for generation, reported in results.items():
        for result in reported:
            if result.performance is not None:
                scores[generation, order.index(result.member_id)] = result.performance
    learning_rates = np.empty_like(scores)
    for event in population.ledger.events:
        learning_rates[event.generation :, order.index(event.member_id)] = event.hyperparams["learning_rate"]
    return Trained(scores, learning_rates)


class _Returns(BaseCallback):
    """Collects the returns of all training episodes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def _on_step(self) -> bool:
        self.found += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True
