"""The rules of a population: who copies whom, what changes then, and when."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from everlearn.core.errors import ConfigError, require_in_range
from everlearn.population.exploit import ExploitStrategy, RequiredGap, Truncation, exploits, group_size
from everlearn.population.explore import ExploreStrategy, explores
from everlearn.population.members import MetricMode
from everlearn.population.mutations import from_mutations
from everlearn.population.space import Constraint, HyperparamConfig, SearchSpace

ExploitSpec = str | Mapping[str, Any] | ExploitStrategy
ExploreSpec = str | Mapping[str, Any] | ExploreStrategy
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PBTConfig:
    """Everything that decides what becomes of a population.

    Args:
        population_size: Members; 1 trains one agent, with nobody to copy.
        perturbation_interval: Training updates (a rollout and its epochs) from one decision about a member to the next.
        hyperparams: What is learned; other hyper-parameters stay as the members were built.
        exploit_method: Who copies whom: ``truncation``, ``binary_tournament``, ``k_tournament``, ``t_test``,
            ``threshold``, ``none``, as a name, a mapping with the key ``kind`` and options, or an object.
        explore_method: How hyper-parameters change: ``perturb``, ``resample``, ``both``, ``reset``, ``pb2``, likewise.
        truncation_ratio: Share of the top and of the bottom for ``truncation``, in (0, 0.5].
        checkpoint_dir: Where the members' parameters are kept; None to keep none and copy by ``member.parent``.
        metric_mode: Whether a performance is better when it is higher (``max``) or lower (``min``).
        ready_percentage: Share of the population, rounded down to members, that has to have reported before anything
            is decided in a generation.
        min_ready_members: So few are enough once a member has waited too long for the others.
        ready_check_max_wait: Calls in which it has.
        optimizer_exploit_strategy: Whether an exploit takes over the source's optimizer state (``copy``), or leaves it
            out (``reset``) so that the caller makes a new one.
        copied: ``everything`` that a source has given, or its ``weights``.
        burn_in: Training updates of a member before the first decision about it.
        mutate_all: Whether members that copy nobody explore too, but for the best of all.
        relative_gap: A source has to be better by this share of the target's score.
        absolute_gap: A source has to be better by as much.
        hyperparam_mutations: Further hyper-parameters, as Ray Tune has them.
        constraint: Tells whether the values of several hyper-parameters fit together.

    Raises:
        ConfigError: If something contradicts something else, is unknown or structural.
        ArgumentError: If a number is outside its range.

    Source: Jaderberg et al. 2017, "Population based training of neural networks".
    """

    population_size: int = 10
    perturbation_interval: int = 5
    hyperparams: Sequence[HyperparamConfig] = ()
    exploit_method: ExploitSpec = "truncation"
    explore_method: ExploreSpec = "both"
    truncation_ratio: float = 0.2
    checkpoint_dir: str | Path | None = "pbt_checkpoints"
    metric_mode: MetricMode = "max"
    ready_percentage: float = 0.8
    min_ready_members: int = 2
    ready_check_max_wait: int = 10
    optimizer_exploit_strategy: Literal["copy", "reset"] = "copy"
    copied: Literal["everything", "weights"] = "everything"
    burn_in: int = 0
    mutate_all: bool = False
    relative_gap: float = 0.0
    absolute_gap: float = 0.0
    hyperparam_mutations: Mapping[str, Any] | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        for name, low in _COUNTS.items():
            _require_whole(name, getattr(self, name), low)
        for name, words in _WORDS.items():
            _require_word(name, getattr(self, name), words)
        require_in_range("ready_percentage", self.ready_percentage, 0, 1, open_low=True)
        require_in_range("truncation_ratio", self.truncation_ratio, 0, open_low=True)
        self._require_no_overlap()
        self._require_enough_members()
        self.explore.require(self.space)
        _ = self.exploit

    @cached_property
    def space(self) -> SearchSpace:
        """All hyper-parameters together."""
        strange = [each for each in self.hyperparams if not isinstance(each, HyperparamConfig)]
        if strange:
            raise ConfigError(f"hyperparams: {strange[0]!r} is no HyperparamConfig. Give a list of these.")
        return SearchSpace((*self.hyperparams, *from_mutations(self.hyperparam_mutations or {})), self.constraint)

    @cached_property
    def exploit(self) -> ExploitStrategy:
        """The rule by which members copy."""
        strategy = exploits.build(_with_ratio(self.exploit_method, self.truncation_ratio))
        if self.relative_gap == self.absolute_gap == 0:
            return strategy
        return RequiredGap(strategy, self.relative_gap, self.absolute_gap)

    @cached_property
    def explore(self) -> ExploreStrategy:
        """The rule by which hyper-parameters change."""
        return explores.build(self.explore_method)

    @property
    def ready_members(self) -> int:
        """So many have to have reported: ``floor(population_size * ready_percentage)``, at least one."""
        return max(1, math.floor(self.population_size * self.ready_percentage + _ROUNDING))

    @property
    def truncated_members(self) -> int:
        """So many are at the top and at the bottom when all have reported."""
        return group_size(self.population_size, self.truncation_ratio)

    def _require_no_overlap(self) -> None:
        if self.truncation_ratio > 0.5:
            raise ConfigError(
                f"truncation_ratio={self.truncation_ratio:g}: the top and the bottom of the population would overlap. "
                "Give at most 0.5."
            )

    def _require_enough_members(self) -> None:
        if self.min_ready_members > max(self.population_size, 2):
            raise ConfigError(
                f"min_ready_members={self.min_ready_members} is more than population_size={self.population_size}. "
                "Lower the first, or raise the second."
            )


_COUNTS = {
    "population_size": 1,
    "perturbation_interval": 1,
    "min_ready_members": 1,
    "ready_check_max_wait": 1,
    "burn_in": 0,
}
"""Whole numbers, and the lowest that each may be."""
_WORDS = {
    "metric_mode": ("max", "min"),
    "optimizer_exploit_strategy": ("copy", "reset"),
    "copied": ("everything", "weights"),
}


def _require_whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}={value!r} is no whole number. Give one.")
    require_in_range(name, value, low)


def _require_word(name: str, value: Any, words: Sequence[str]) -> None:
    if value not in words:
        raise ConfigError(f"{name}={value!r} is unknown. Give one of: {', '.join(words)}.")


def _with_ratio(spec: ExploitSpec, ratio: float) -> ExploitSpec:
    """The specification with ``truncation_ratio`` where truncation is asked for without a ratio of its own."""
    if isinstance(spec, str) and exploits[spec] is Truncation:
        return Truncation(ratio)
    if isinstance(spec, Mapping) and isinstance(spec.get("kind"), str) and exploits[spec["kind"]] is Truncation:
        return {"ratio": ratio, **spec}
    return spec


def smallest_interval(steps_per_update: int, vgs_warmup_steps: int) -> int:
    """The smallest ``perturbation_interval`` after which variance gradient scaling has warmed up."""
    return vgs_warmup_steps // steps_per_update + 1


def warn_of_warmup(perturbation_interval: int, steps_per_update: int, vgs_warmup_steps: int) -> bool:
    """Warn where an exploit can come before the statistics of variance gradient scaling mean anything.

    That is so where ``perturbation_interval * steps_per_update <= vgs_warmup_steps``. It does no harm, for statistics
    and their counter travel together, but variance scaling will hardly ever be at work.

    Args:
        perturbation_interval: Training updates from one decision to the next.
        steps_per_update: Optimizer steps of one update: minibatches times epochs.
        vgs_warmup_steps: Optimizer steps before a factor is other than 1.

    Returns:
        Whether there was a warning.
    """
    require_in_range("steps_per_update", steps_per_update, 1)
    if perturbation_interval * steps_per_update > vgs_warmup_steps:
        return False
    warnings.warn(
        f"perturbation_interval={perturbation_interval} updates of {steps_per_update} optimizer steps each are over "
        f"before vgs_warmup_steps={vgs_warmup_steps} are: members can be copied before variance gradient scaling has "
        f"warmed up. Raise perturbation_interval to {smallest_interval(steps_per_update, vgs_warmup_steps)} or more.",
        stacklevel=2,
    )
    return True
