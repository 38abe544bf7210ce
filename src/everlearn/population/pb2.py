"""Hyper-parameters from a model of what they have brought so far: population based bandits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

import numpy as np
from numpy.random import Generator

from everlearn.core.errors import require_in_range
from everlearn.population.explore import ExploreStrategy, each_changed, explores, perturbed
from everlearn.population.gaussian_process import Array, Kernel, Posterior, likeliest, standardised
from everlearn.population.members import Hyperparams, Record
from everlearn.population.records import Records
from everlearn.population.space import HyperparamConfig, SearchSpace

KERNELS = tuple(
    Kernel(length, forgetting, noise)
    for length, forgetting, noise in product((0.2, 0.5, 1.0, 2.0), (0.0, 0.1, 0.3), (0.01, 0.1, 0.5))
)
_ENOUGH_TO_CHOOSE = 5
_OFFSET, _GROWTH = 0.2, 0.4


@explores.register("pb2")
@final
@dataclass(frozen=True)
class PB2(ExploreStrategy):
    """Numbers go where a Gaussian process sees the highest upper bound ``mean + kappa * std`` of the gain in score.

    What others are trying at the moment narrows the deviation, so that copies of one generation spread out; before
    anything is known that is all that counts. Choices take a step to a neighbour.

    Args:
        candidates: Points that are compared, drawn from the whole space.
        memory: So many of the latest observations are used.

    Source: Parker-Holder, Nguyen & Roberts 2020, "Provably efficient online hyperparameter optimization with
    population-based bandits", algorithm 1 and equation 6; the growth of ``kappa`` is that of their implementation.
    """

    candidates: int = 1000
    memory: int = 200

    def __post_init__(self) -> None:
        require_in_range("candidates", self.candidates, 1)
        require_in_range("memory", self.memory, 1)

    def explored(
        self, hyperparams: Hyperparams, space: SearchSpace, population: Sequence[Record], generator: Generator
    ) -> dict[str, Any]:
        """The best of the candidates, and neighbours of the source's choices."""
        numbers = [each for each in space if each.allowed.coordinate(hyperparams.get(each.name)) is not None]
        best = self._best_point(numbers, space, population, generator) if numbers else np.empty(0)
        chosen = {each.name: each.allowed.at(float(x)) for each, x in zip(numbers, best, strict=True)}

        def change(config: HyperparamConfig, value: Any) -> Any:
            return chosen[config.name] if config.name in chosen else perturbed(config, value, generator)

        return each_changed(hyperparams, space, change)

    def _best_point(
        self,
        numbers: Sequence[HyperparamConfig],
        space: SearchSpace,
        population: Sequence[Record],
        generator: Generator,
    ) -> Array:
        """Coordinates in [0, 1], (d,)."""
        records = Records.of(population)
        names = tuple(each.name for each in numbers)
        model = records.once((self, space, names), lambda: _model(records, numbers, self.memory))
        candidates = generator.random((self.candidates, len(numbers)))
        best: Array = candidates[int(np.argmax(model.upper_bound(candidates)))]
        return best


@dataclass(frozen=True)
class _Model:
    """What a generation knows of the space; all that explore in it ask the same.

    Args:
        gain: What has been seen.
        tried: The same, and what will be known once what is being tried has been seen.
        now: The generation that begins.
        weight: By which the deviation counts.
    """

    gain: Posterior
    tried: Posterior
    now: float
    weight: float

    def upper_bound(self, candidates: Array) -> Array:
        """Of the gain, (n,)."""
        bound: Array = self.gain.mean(candidates, self.now) + self.weight * self.tried.deviation(candidates, self.now)
        return bound


def _model(records: Records, numbers: Sequence[HyperparamConfig], memory: int) -> _Model:
    seen = sorted((one for record in records for one in record.observations), key=lambda one: one.time)[-memory:]
    points = _points([one.hyperparams for one in seen], numbers)
    times = np.array([float(one.time) for one in seen])
    values = standardised(np.array([one.gain for one in seen]))
    now = 1.0 + max([0, *(one.time for one in seen), *(record.generation for record in records)])
    kernel = likeliest(KERNELS, points, times, values) if len(seen) >= _ENOUGH_TO_CHOOSE else Kernel()
    tried = _points([record.hyperparams for record in records], numbers)
    gain = Posterior(kernel, points, times, values)
    return _Model(gain, _with_tried(kernel, points, times, tried, now), now, kappa(len(seen)))


def kappa(observations: int) -> float:
    """How much the deviation counts: ``sqrt(0.2 + max(0, ln(0.4 n)))`` after n observations."""
    return math.sqrt(_OFFSET + max(0.0, math.log(_GROWTH * observations))) if observations else math.sqrt(_OFFSET)


def _with_tried(kernel: Kernel, points: Array, times: Array, tried: Array, now: float) -> Posterior:
    """What will be known once what is being tried has been seen; deviations do not depend on what that will be."""
    all_times = np.concatenate([times, np.full(len(tried), now)])
    return Posterior(kernel, np.concatenate([points, tried]), all_times, np.zeros(len(all_times)))


def _points(several: Sequence[Hyperparams], numbers: Sequence[HyperparamConfig]) -> Array:
    """The coordinates of some hyper-parameters, (n, d)."""
    rows = [[each.allowed.coordinate(values.get(each.name)) for each in numbers] for values in several]
    return np.array(rows, dtype=np.float64).reshape(len(several), len(numbers))
