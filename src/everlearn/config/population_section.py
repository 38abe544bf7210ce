"""The section of a configuration that makes a population of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from everlearn.config.ray_section import RayConfig
from everlearn.environments.spec import Count, Fraction, NotNegative, Section, stated_as, whole

Spec = Annotated[str | dict[str, Any], stated_as("a name or a mapping with the key 'kind'")]
Probability = Fraction
Factor = Annotated[float | list[float], stated_as("a factor above 1, or two as [1.2, 0.8]")]


class HyperparamSection(Section):
    """What one hyper-parameter may be and how it changes: bounds, or values; see ``HyperparamConfig``.

    Attributes:
        min_value: Lowest.
        max_value: Highest.
        values: All that it may be, in an order in which neighbours are alike.
        perturbation_factor: A step up multiplies by it, a step down divides; or both factors.
        resample_probability: How often it is drawn anew where a method does both.
        is_log_scale: The same as ``scale: log``.
        scale: linear, log, one_minus, logit, or of your own; integer for whole numbers.
        default: Where it goes back to where a method resets.
        divides: It is a divisor of this number.
    """

    min_value: float | int | None = None
    max_value: float | int | None = None
    values: list[Any] | None = None
    perturbation_factor: Factor = 1.2
    resample_probability: Probability = 0.25
    is_log_scale: bool = False
    scale: str | None = None
    default: Any = None
    divides: Count | None = None


DEFAULT_SPACE: Mapping[str, HyperparamSection] = {
    "learning_rate": HyperparamSection(min_value=1e-5, max_value=1e-3, is_log_scale=True),
    "ent_coef": HyperparamSection(min_value=0.0, max_value=0.02),
    "clip_range": HyperparamSection(min_value=0.1, max_value=0.4),
}
"""What a population learns that is not told."""


class PopulationConfig(Section):
    """Population based training: every member is an agent of this configuration, with hyper-parameters of its own.

    ``total_timesteps`` are those of each member. A training update is a rollout and its epochs.

    Attributes:
        population_size: Members.
        perturbation_interval: Training updates from one decision about the members to the next.
        hyperparams: What is learned, by name: an argument of the algorithm, or an option of a part with a dot
            (``optimizer.sigma``, ``vgs.alpha``). None: learning_rate, ent_coef and clip_range.
        hyperparam_mutations: Further ones, as Ray Tune has them.
        initial: Hyper-parameters of each member at the beginning; None draws them.
        exploit_method: Who copies whom: truncation, binary_tournament, k_tournament, t_test, threshold, none.
        explore_method: How hyper-parameters of copies change: perturb, resample, both, reset, pb2.
        truncation_ratio: Share of the bottom that copies, and of the top that is copied.
        metric_mode: Whether a score is better when it is higher (max) or lower (min).
        score: ``training``: the mean return of the last ``stats_window_size`` training episodes since the last
            decision; where none has ended, of those that the member's policy had before. ``evaluation``: that of the
            section evaluation's episodes, played at every decision.
        optimizer_exploit_strategy: Whether a copy takes over the optimizer's state (copy) or begins anew (reset).
        copied: ``everything`` that the source has learned, or its ``weights``.
        burn_in: Training updates before the first decision.
        mutate_all: Members that copy nobody explore too, but for the best.
        relative_gap: A source has to be better by this share of the target's score.
        absolute_gap: A source has to be better by as much.
        executor: Who trains: ``vectorised`` (members side by side in one compiled step, in a process per core),
            ``processes`` (member by member, in a process per core), ``inline`` (in this process), ``ray`` (member by
            member, on all machines of a cluster; needs everlearn[ray]); ``auto`` is vectorised wherever all members
            keep the shape of their minibatches.
        workers: Processes; ``auto`` is one per core, and with ray one per member or as many as there is room for.
        ray: Of the executor ray: which cluster, and what a worker needs.
        heartbeat_timeout: Seconds without a sign of life after which a worker is replaced; it gives one at every step
            of its environments, so that this has to be longer than the updates after a rollout take.
        restarts: How often the segments of workers that were lost are tried again.
    """

    population_size: Count = 10
    perturbation_interval: Count = 5
    hyperparams: dict[str, HyperparamSection] | None = None
    hyperparam_mutations: dict[str, Any] | None = None
    initial: list[dict[str, Any]] | None = None
    exploit_method: Spec = "truncation"
    explore_method: Spec = "both"
    truncation_ratio: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    metric_mode: Literal["max", "min"] = "max"
    score: Literal["training", "evaluation"] = "training"
    optimizer_exploit_strategy: Literal["copy", "reset"] = "copy"
    copied: Literal["everything", "weights"] = "everything"
    burn_in: Annotated[int, Field(ge=0), BeforeValidator(whole)] = 0
    mutate_all: bool = False
    relative_gap: NotNegative = 0.0
    absolute_gap: NotNegative = 0.0
    executor: str = "auto"
    workers: Annotated[Literal["auto"] | Count, stated_as("'auto' or a number of processes")] = "auto"
    ray: RayConfig | None = None
    heartbeat_timeout: Annotated[float, Field(gt=0)] = 300.0
    restarts: Annotated[int, Field(ge=0)] = 2
