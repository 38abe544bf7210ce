"""Populations whose members' weights say whose they are."""

from pathlib import Path

import torch

from everlearn import HyperparamConfig, PBTConfig, PBTScheduler
from everlearn.population.scheduler import ExploitResult

DATA = Path(__file__).parents[1] / "data"
SPACE = [
    HyperparamConfig("learning_rate", 1e-5, 1e-2, is_log_scale=True),
    HyperparamConfig("n_epochs", 1, 20),
    HyperparamConfig("batch_size", 32, 512, divides=2048),
]
VALUES = {"learning_rate": 1e-3, "n_epochs": 10, "batch_size": 64}


def parameters(value: float) -> dict:
    return {
        "policy": {"weight": torch.full((2,), float(value))},
        "vgs_state": {"step_count": torch.tensor(float(value))},
    }


def new_scheduler(directory: Path, size: int = 4, seed: int = 0, *, start: bool = True, **changes) -> PBTScheduler:
    """A scheduler that keeps its files in a directory, with its population unless that is not wanted."""
    rules = {"population_size": size, "hyperparams": SPACE, "checkpoint_dir": directory, **changes}
    scheduler = PBTScheduler(PBTConfig(**rules), seed)
    if start:
        scheduler.initialize_population()
    return scheduler


def report(scheduler: PBTScheduler, scores, step: int = 5) -> None:
    """Every member reports; its weights are its number, so that it can be recognised."""
    for member, score in zip(scheduler.members, scores, strict=True):
        scheduler.update_performance(member, score, step, model_parameters=parameters(member.member_id))


def decide(scheduler: PBTScheduler) -> list[ExploitResult]:
    return [scheduler.exploit_and_explore(member) for member in scheduler.members]


def origin(result: ExploitResult) -> float | None:
    """By whom the weights were given."""
    return None if result.parameters is None else float(result.parameters["policy"]["weight"][0])
