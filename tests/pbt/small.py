"""A population that trains in seconds."""

import json
from pathlib import Path
from typing import Any

from everlearn.pbt import PopulationRun, train_population

SETTINGS: dict[str, Any] = {
    "env.id": "CartPole-v1",
    "env.n_envs": 2,
    "algorithm.name": "PPO",
    "n_steps": 32,
    "batch_size": 32,
    "n_epochs": 2,
    "compile": False,
    "policy_kwargs": {"net_arch": [8]},
    "population_size": 4,
    "perturbation_interval": 2,
    "truncation_ratio": 0.25,
    "population.executor": "inline",
    "total_timesteps": 6 * 64,
    "logging.tensorboard": False,
    "seed": 3,
}


def small_population(out: Path, **settings: Any) -> PopulationRun:
    """One of four agents, three generations; keys with ``__`` for the dot."""
    return train_population(None, out, settings=SETTINGS | {key.replace("__", "."): v for key, v in settings.items()})


def history_of(run: PopulationRun) -> list[tuple[Any, ...]]:
    """What has to be the same, whoever trained it and however often it was killed."""
    population = run.population()
    events = [
        (event.member_id, event.generation, event.step, event.performance, event.source_id, dict(event.hyperparams))
        for event in population.ledger.events
    ]
    digests = [
        (member_id, place.checkpoint and place.checkpoint.policy_digest)
        for member_id, place in population.places.items()
    ]
    return [*events, *digests, *((member.member_id, member.step, member.performance) for member in population.members)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects."""
    return [json.loads(line) for line in path.read_text().splitlines()]
