"""The sections of a run's configuration: every key, its type, its range and its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from everlearn.config.population_section import PopulationConfig
from everlearn.environments.spec import (
    Count,
    EnvConfig,
    Fraction,
    NotNegative,
    Positive,
    Section,
    expected,
    stated_as,
    whole,
)
from everlearn.ppo.schedules import linear_start

LinearText = Annotated[str, Field(pattern=r"^lin_[0-9.eE+-]+$")]


def _schedule(value: Any) -> float | str | dict[str, Any]:
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        return dict(value)
    start = linear_start(value) if isinstance(value, str) else value
    if isinstance(start, bool) or not isinstance(start, float | int) or not 0 < start < math.inf:
        raise expected("a number above 0, 'lin_x' for a linear schedule from x to 0, or a mapping with the key 'kind'")
    return value if isinstance(value, str) else float(value)


Schedule = Annotated[
    float | str | dict[str, Any],
    PlainValidator(_schedule, json_schema_input_type=Annotated[float, Field(gt=0)] | LinearText | dict[str, Any]),
]
Spec = Annotated[str | dict[str, Any], stated_as("a name or a mapping with the key 'kind'")]
Switch = Annotated[bool | str | dict[str, Any], stated_as("true, false, a name or a mapping with the key 'kind'")]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$"), stated_as("auto, cpu, cuda or cuda:N")]
Layers = Annotated[
    list[Count] | dict[Literal["pi", "vf"], list[Count]], stated_as("[units, ...] or {pi: [...], vf: [...]}")
]
ModuleName = Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$"), stated_as("the name of a module")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class PolicyConfig(Section):
    """Arguments of the policy; those left out have the policy's own defaults.

    Attributes:
        net_arch: Units of the hidden layers, for actor and critics or as ``{pi: [...], vf: [...]}``.
        activation_fn: A name: tanh, relu, elu, gelu, silu, leaky_relu, mish.
        ortho_init: Orthogonal initial weights.
        log_std_init: Initial logarithm of the actions' standard deviation.
        full_std: With ``use_sde``, one deviation per latent feature and action.
        use_expln: With ``use_sde``, deviations grow slower than exponentially above 1.
        squash_output: With ``use_sde``, squash actions by tanh.
        features_extractor_kwargs: Arguments of the features extractor.
        share_features_extractor: One extractor for actor and critics.
        normalize_images: Divide image observations by 255.
    """

    net_arch: Layers | None = None
    activation_fn: str | None = None
    ortho_init: bool | None = None
    log_std_init: Annotated[float, Field(allow_inf_nan=False)] | None = None
    full_std: bool | None = None
    use_expln: bool | None = None
    squash_output: bool | None = None
    features_extractor_kwargs: dict[str, Any] | None = None
    share_features_extractor: bool | None = None
    normalize_images: bool | None = None


class AlgorithmConfig(Section):
    """The algorithm and its constructor's arguments, with SB3's names and defaults.

    ``n_steps`` None means a rollout of 2,048 steps shared by the environments, ``policy`` None the one for
    the observations. For the arguments that SB3's PPO does not have, None means the default of the class.

    Attributes:
        name: ``PPO`` or ``DistributionalPPO``: one algorithm, two sets of defaults.
    """

    name: str = "DistributionalPPO"
    policy: Literal["MlpPolicy", "CnnPolicy", "MultiInputPolicy"] | None = None
    learning_rate: Schedule = 3e-4
    n_steps: Count | None = None
    batch_size: Count = 64
    n_epochs: Count = 10
    gamma: Fraction = 0.99
    gae_lambda: Fraction = 0.95
    clip_range: Schedule = 0.2
    clip_range_vf: Schedule | None = None
    normalize_advantage: bool = True
    ent_coef: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    vf_coef: NotNegative = 0.5
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    use_sde: bool = False
    sde_sample_freq: Annotated[int, Field(ge=-1)] = -1
    target_kl: Positive | None = None
    stats_window_size: Count = 100
    policy_kwargs: PolicyConfig = PolicyConfig()
    value_head: Spec | None = None
    n_critics: Count | None = None
    critic_reduction: Spec | None = None
    optimizer_class: str | None = None
    optimizer_kwargs: dict[str, Any] | None = None
    variance_gradient_scaling: bool | None = None
    vgs_beta: Annotated[float, Field(ge=0, lt=1)] = 0.99
    vgs_alpha: NotNegative = 0.1
    vgs_warmup_steps: Annotated[int, Field(ge=0)] = 100
    vgs_kwargs: dict[str, Any] | None = None
    normalize_returns: bool | None = None
    kl_penalty: Switch | None = None
    divergence: Spec | None = None
    compile: Literal["auto"] | bool = "auto"

    @model_validator(mode="after")
    def _options_fit_together(self) -> AlgorithmConfig:
        if self.normalize_advantage and self.batch_size == 1:
            raise _one_sample("batch_size 1", "batch_size")
        if self.policy_kwargs.squash_output and not self.use_sde:
            raise PydanticCustomError("squash", "policy_kwargs.squash_output needs use_sde: set it to true")
        return self


class LoggingConfig(Section):
    """What is recorded.

    Attributes:
        interval: Training updates between two records of the metrics.
        tensorboard: Write TensorBoard files too.
        evaluation_episodes: Deterministic episodes at the end of training; 0 for none.
        baseline_episodes: Episodes of a random policy to compare with; 0 for none.
    """

    interval: Count = 1
    tensorboard: bool = True
    evaluation_episodes: Annotated[int, Field(ge=0)] = 10
    baseline_episodes: Annotated[int, Field(ge=0)] = 10


class EvaluationConfig(Section):
    """Evaluation while the agent trains; it is off unless ``every`` is set, for it takes time from training.

    Attributes:
        every: Environment steps from one evaluation to the next, rounded up to whole rollouts; 0 for none.
        episodes: Episodes of one evaluation.
        n_envs: Environments to play them in, side by side; they are not those of the training.
        deterministic: Take the most likely action instead of sampling.
        seed: Every evaluation plays the episodes of this seed; None derives it from the run's.
    """

    every: Annotated[int, Field(ge=0), BeforeValidator(whole)] = 0
    episodes: Count = 10
    n_envs: Count = 1
    deterministic: bool = True
    seed: Seed | None = None


class CheckpointConfig(Section):
    """Checkpoints while the agent trains, in the run's ``checkpoints``: a run that is killed goes back to the last one.

    They are written between rollouts and when training ends. A file that cannot be written is a warning, and is tried
    again after 1, 2, 4, ..., 64, 64, ... rollouts. However few are kept, the two latest whole ones always stay.

    Attributes:
        every: Environment steps from one checkpoint to the next, rounded up to whole rollouts; 0 for none but those of
            the best evaluations.
        keep_last: So many of the newest stay.
        keep_best: So many of those with the best score stay, an evaluation's mean return if there are evaluations,
            else the mean return of the last training episodes. With evaluation, an agent that is the best so far gets
            a checkpoint at once, unless this is 0.
        keep_every: The first at or after each multiple of so many steps stays for ever; None for none.
        max_failures: Training stops with an error after so many failures in a row, 20 of which take more than 800
            rollouts.
    """

    every: Annotated[int, Field(ge=0), BeforeValidator(whole)] = 20_000
    keep_last: Count = 3
    keep_best: Annotated[int, Field(ge=0), BeforeValidator(whole)] = 1
    keep_every: Count | None = None
    max_failures: Count = 20


class RuntimeConfig(Section):
    """Where and how the run is computed.

    Attributes:
        threads: Threads of torch; ``auto`` is 1 for small networks, which are fastest so.
        device: ``auto`` is the processor for observations of features, the GPU (if any) for images.
    """

    threads: Annotated[Literal["auto"] | Count, stated_as("'auto' or a number of threads")] = "auto"
    device: Device = "auto"


class StretchConfig(Section):
    """Hyper-parameters for some training updates.

    Attributes:
        updates: Training updates, a rollout and its epochs each.
        hyperparams: Value by name, as ``set_hyperparameter`` takes them.
    """

    updates: Count
    hyperparams: dict[str, Any]


def _one_sample(what: str, key: str) -> PydanticCustomError:
    return PydanticCustomError(
        "one_sample",
        "{what} leaves nothing to normalise advantages by: raise {key}, or set normalize_advantage to false",
        {"what": what, "key": key},
    )


class RunConfig(Section):
    """Everything that a run is made from.

    Attributes:
        env: The environments.
        algorithm: The algorithm and its arguments.
        total_timesteps: Environment steps to train for, over all environments.
        seed: Seeds everything; None draws one, which the resolved configuration records.
        evaluation: How the agent is evaluated while it trains.
        checkpoint: How often its state is kept, and which of the files stay.
        logging: What is recorded.
        runtime: Where it is computed.
        population: Of ``everlearn pbt``: how many agents learn side by side, and what becomes of them.
        hyperparameter_schedule: Hyper-parameters that change while the agent trains, stretch after stretch; those of
            the last one stay. Written by ``everlearn pbt replay``.
        plugins: Modules to import before anything is looked up: your own environments, optimizers, value heads and
            wrappers, registered by name.
    """

    env: EnvConfig
    algorithm: AlgorithmConfig = AlgorithmConfig()
    total_timesteps: Count = 200_000
    seed: Seed | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    population: PopulationConfig | None = None
    hyperparameter_schedule: list[StretchConfig] | None = None
    plugins: list[ModuleName] = []  # noqa: RUF012 - pydantic copies it

    @model_validator(mode="after")
    def _rollout_has_a_deviation(self) -> RunConfig:
        if self.algorithm.normalize_advantage and self.algorithm.n_steps == self.env.n_envs == 1:
            raise _one_sample("a rollout of one step", "algorithm.n_steps")
        return self
