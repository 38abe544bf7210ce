"""How far a population is, how fast it trains, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from everlearn.population.members import MemberId
from everlearn.population.population import Population
from everlearn.report.wording import duration, number


@dataclass(frozen=True)
class PopulationProgress:
    """How far a population is.

    Attributes:
        generation: The one that is being trained, from 1 on.
        generations: How many there are.
        fraction: The share of all training updates that is done.
        env_steps: Environment steps of all members together.
        speed: These per second, in this session; None where that is not known yet.
        remaining: Seconds still to go at the speed of this session; None where that is not known yet.
        best: The best score and whose it is; None before the first.
    """

    generation: int
    generations: int
    fraction: float
    env_steps: int
    speed: float | None
    remaining: float | None
    best: tuple[float, MemberId] | None

    @property
    def title(self) -> str:
        """``generation 3/10``."""
        return f"generation {self.generation:>{len(str(self.generations))}}/{self.generations}"

    def pace_words(self) -> str:
        """Environment steps, speed and remaining time, as far as they are known."""
        words = [f"{self.env_steps:,} env steps"] if self.env_steps else []
        words += [f"{number(self.speed)} env steps/s"] if self.speed else []
        words += [f"{duration(self.remaining)} left"] if self.remaining else []
        return "  ".join(words)

    def best_words(self) -> str:
        """The best score; nothing before the first."""
        return "" if self.best is None else f"best {number(self.best[0])} (member {self.best[1]})"


@dataclass(frozen=True)
class Tally:
    """What a population has behind it at a moment; a copy, for another thread.

    Attributes:
        generation: The one that is being trained, from 0 on.
        generations: How many there are.
        size: Members.
        segment: Training updates of a member in this generation.
        behind: Training updates of all members together in segments that are over.
        total: Training updates of all members altogether.
        env_steps: Environment steps in segments that are over.
        best: The best score and whose it is.
    """

    generation: int
    generations: int
    size: int
    segment: int
    behind: int
    total: int
    env_steps: int
    best: tuple[float, MemberId] | None

    @classmethod
    def of(cls, population: Population) -> Tally:
        """Of a population as it stands."""
        size, interval = len(population.members), population.config.perturbation_interval
        over = population.generation * interval
        segment = min(interval, population.total_updates - over)
        best = population.best()
        return cls(
            population.generation,
            population.generations,
            size,
            segment,
            over * size + segment * len(population.results),
            population.total_updates * size,
            population.env_steps,
            None if best is None or best.performance is None else (best.performance, best.member_id),
        )


@final
class Pace:
    """Knows the speed of this session: what was trained in earlier ones took its time then.

    Args:
        population: At the beginning of the session.
    """

    def __init__(self, population: Population) -> None:
        tally = Tally.of(population)
        self._start, self._behind, self._env_steps = time.monotonic(), tally.behind, tally.env_steps

    def progress(self, tally: Tally, updates: Mapping[MemberId, int]) -> PopulationProgress:
        """How far the population is now.

        Args:
            tally: What it has behind it.
            updates: Training updates of the segments that are not over.
        """
        elapsed = max(time.monotonic() - self._start, 1e-9)
        behind = tally.behind + sum(min(each, tally.segment) for each in updates.values())
        # While a segment is trained nobody says how many environment steps that is: as many as in those before.
        env_steps = tally.env_steps * behind // tally.behind if tally.behind else 0
        trained, stepped = behind - self._behind, env_steps - self._env_steps
        return PopulationProgress(
            generation=tally.generation + 1,
            generations=tally.generations,
            fraction=behind / tally.total,
            env_steps=env_steps,
            speed=stepped / elapsed if stepped > 0 else None,
            remaining=(tally.total - behind) * elapsed / trained if trained > 0 else None,
            best=tally.best,
        )
