"""What a population is in the benchmark, for everlearn's runs and for the peer's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

GENERATIONS = "generations.jsonl"
"""File in a run's directory: a JSON object per finished generation with the keys ``generation``, ``seconds`` since
training began, ``env_steps`` of all members together so far, and ``exploits`` of the generation."""


class Range(NamedTuple):
    """Between which values a hyper-parameter lies, and whether it is drawn uniformly in the logarithm."""

    low: float
    high: float
    log: bool = False


SPACE = {
    "learning_rate": Range(1e-5, 1e-3, log=True),
    "ent_coef": Range(1e-8, 1e-2, log=True),
    "clip_range": Range(0.1, 0.4),
}


@dataclass(frozen=True)
class Population:
    """How large a population is, and what its members do.

    Attributes:
        env_id: Of the environments.
        members: Agents.
        n_envs: Environments of a member.
        n_steps: Steps of each environment per rollout.
        batch_size: Samples per minibatch.
        n_epochs: Passes over a rollout.
        interval: Training updates, a rollout and its epochs each, of a member in a generation.
        truncation: Share of the members at the top, and at the bottom.
        generations: That count, after one that does not.
        cores: For the whole population.
        seed: Of everything.
        compiled: Whether everlearn's updates are compiled; "auto" would compile for long trainings only.
    """

    env_id: str = "HalfCheetah-v5"
    members: int = 8
    n_envs: int = 8
    n_steps: int = 256
    batch_size: int = 64
    n_epochs: int = 10
    interval: int = 10
    truncation: float = 0.25
    generations: int = 3
    cores: int = 2
    seed: int = 0
    compiled: bool = True

    @property
    def segment(self) -> int:
        """Environment steps of a member in a generation."""
        return self.interval * self.n_envs * self.n_steps

    @property
    def member_steps(self) -> int:
        """Environment steps of a member in all."""
        return (1 + self.generations) * self.segment
