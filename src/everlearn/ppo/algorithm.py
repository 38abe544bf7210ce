"""PPO and DistributionalPPO: one algorithm, two sets of defaults."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from everlearn.gradients import VarianceGradientScaler
from everlearn.ppo.compilation import CompileChoice, UpdateCompiler, require_choice
from everlearn.ppo.construction import check_batch_size, choose_optimizer, policy_arguments
from everlearn.ppo.divergence import DivergenceGuard, DivergenceSpec, divergence_controls
from everlearn.ppo.hyperparameters import HYPERPARAMETERS
from everlearn.ppo.kl import KLControl, KLSpec, kl_control
from everlearn.ppo.policy import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    HeadSpec,
    MultiInputActorCriticPolicy,
    ReductionSpec,
    parameters_by_part,
)
from everlearn.ppo.schedules import ScheduleSpec, schedule_from
from everlearn.ppo.segments import SegmentedLearner


@dataclass(frozen=True)
class Defaults:
    """What the arguments that everlearn adds to SB3's stand for when they are None."""

    value_head: HeadSpec
    n_critics: int
    critic_reduction: ReductionSpec
    optimizer_class: str
    variance_gradient_scaling: bool
    vgs_kwargs: dict[str, Any]
    normalize_returns: bool
    kl_penalty: KLSpec | None
    divergence: DivergenceSpec


class PPO(SegmentedLearner):
    """Proximal Policy Optimization: Stable-Baselines3's PPO, with everlearn's additions off.

    Arguments up to ``_init_setup_model`` are SB3's, in SB3's order and meaning; ours follow, by keyword only. None
    stands for the class's default.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or an ``ActorCriticPolicy`` class.
        env: Environment, vectorised environment or the id of a registered one.
        learning_rate: A number, ``"lin_x"`` (from x to 0), a mapping as ``{"kind": "cosine", "start": x}``, or a
            function of the remaining progress (1 to 0).
        n_steps: Steps of every environment per rollout.
        batch_size: Samples per update.
        n_epochs: Passes over a rollout.
        gamma: Discount, in [0, 1].
        gae_lambda: Of generalised advantage estimation, in [0, 1].
        clip_range: Of the probability ratio, > 0; a number or a schedule as for ``learning_rate``.
        clip_range_vf: Of the values, > 0, in reward units (with ``normalize_returns`` in units of the return scale);
            None for no clipping.
        normalize_advantage: Whether advantages are normalised within each minibatch.
        ent_coef: Weight of the entropy loss.
        vf_coef: Weight of the value loss.
        max_grad_norm: Largest norm of the gradient.
        use_sde: Whether to explore with generalised state-dependent noise.
        sde_sample_freq: Steps between new exploration matrices; -1 for once per rollout.
        rollout_buffer_class: SB3's by default.
        rollout_buffer_kwargs: Its further arguments.
        target_kl: Updates of a rollout stop above 1.5 times this approximate KL.
        stats_window_size: Episodes that the logged means cover.
        tensorboard_log: Folder of TensorBoard logs.
        policy_kwargs: Further arguments of the policy.
        verbose: 0 nothing, 1 information, 2 debugging.
        seed: Of all generators.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
        _init_setup_model: Whether to build the networks at once.
        value_head: ``"scalar"``, ``"quantile"``, ``"categorical"``, a ``{"kind": ...}`` mapping or a ``ValueHead``.
        n_critics: Number of critics, each with its own trunk and extractor.
        critic_reduction: ``"mean"``, ``"min"``, ``"lcb"``, ``"truncated"``, a mapping or a ``Reduction``.
        optimizer_class: Registered name (``"adam"``, ``"adaptive_upgd"``, ...) or class.
        optimizer_kwargs: Its arguments; a learning rate given here (``lr``) goes before ``learning_rate``.
        variance_gradient_scaling: Whether steps shrink where gradients are noise.
        vgs_beta: Decay of the scaler's statistics.
        vgs_alpha: Strength of the scaling.
        vgs_warmup_steps: Updates before any scaling.
        vgs_kwargs: Further arguments of ``VarianceGradientScaler``.
        normalize_returns: Whether critics predict in units of a running return scale.
        kl_penalty: Control of the policy's divergence per rollout: None, True (``"pid"``), a name (``"doubling"``,
            ``"early_stop"``, ``"adaptive_lr"``), a ``{"kind": ...}`` mapping or a ``KLControl``.
        divergence: What follows when updates in a row meet a loss or gradient that is not finite: ``"stop"``,
            ``"restore"``, a ``{"kind": ...}`` mapping or a ``DivergenceControl``.
        compile: Whether the update is compiled to one graph: True, False, or ``"auto"`` for trainings that are long
            enough to pay for it. What cannot be compiled stays eager, with one warning.

    Raises:
        ArgumentError: If an argument is outside its range or contradicts another.

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms".
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
    }
    defaults: ClassVar[Defaults] = Defaults("scalar", 1, "mean", "adam", False, {}, False, None, "stop")

    def __init__(
        self,
        policy: str | type[SB3ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: ScheduleSpec = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: ScheduleSpec = 0.2,
        clip_range_vf: ScheduleSpec | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        value_head: HeadSpec | None = None,
        n_critics: int | None = None,
        critic_reduction: ReductionSpec | None = None,
        optimizer_class: str | type[torch.optim.Optimizer] | None = None,
        optimizer_kwargs: dict[str, Any] | None = None,
        variance_gradient_scaling: bool | None = None,
        vgs_beta: float = 0.99,
        vgs_alpha: float = 0.1,
        vgs_warmup_steps: int = 100,
        vgs_kwargs: dict[str, Any] | None = None,
        normalize_returns: bool | None = None,
        kl_penalty: KLSpec | None = None,
        divergence: DivergenceSpec | None = None,
        compile: CompileChoice = "auto",
    ) -> None:
        require_choice(compile)
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,  # type: ignore[arg-type]
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            device=device,
            seed=seed,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )
        self.compile, self.update_compiler = compile, UpdateCompiler()
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.clip_range = clip_range  # type: ignore[assignment]
        self.clip_range_vf = clip_range_vf  # type: ignore[assignment]
        self.normalize_advantage = normalize_advantage
        self.target_kl = target_kl
        given = self.defaults
        self.value_head = given.value_head if value_head is None else value_head
        self.n_critics = given.n_critics if n_critics is None else n_critics
        self.critic_reduction = given.critic_reduction if critic_reduction is None else critic_reduction
        if optimizer_class is None and "optimizer_class" not in (policy_kwargs or {}):
            optimizer_class = given.optimizer_class
        self.optimizer_class = optimizer_class
        self.optimizer_kwargs = optimizer_kwargs
        self.variance_gradient_scaling = (
            given.variance_gradient_scaling if variance_gradient_scaling is None else variance_gradient_scaling
        )
        self.vgs_beta = vgs_beta
        self.vgs_alpha = vgs_alpha
        self.vgs_warmup_steps = vgs_warmup_steps
        self.vgs_kwargs = {**given.vgs_kwargs, **(vgs_kwargs or {})}
        self.normalize_returns = given.normalize_returns if normalize_returns is None else normalize_returns
        self.kl_penalty = given.kl_penalty if kl_penalty is None else kl_penalty
        self.divergence = given.divergence if divergence is None else divergence
        switches = {"variance_gradient_scaling": variance_gradient_scaling, "kl_penalty": kl_penalty}
        self.switched_off = [name for name, value in switches.items() if value is False]
        if _init_setup_model:
            self._setup_model()

    # --- construction ---------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        """Build the networks and all that hangs on them; a second call changes nothing."""
        if self._is_set_up():
            return
        for name in HYPERPARAMETERS:  # loading puts them in place unchecked
            setattr(self, name, vars(self)[name])
        given = self.policy_kwargs
        optimizer = choose_optimizer(self.optimizer_class, self.optimizer_kwargs, given)
        self._optimizer_lr = optimizer[1].get("lr")
        critics = {
            "value_head": self.value_head,
            "n_critics": self.n_critics,
            "critic_reduction": self.critic_reduction,
            "normalize_returns": self.normalize_returns,
        }
        self.policy_kwargs = policy_arguments(self.policy_class, given, optimizer, critics)
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = given
        if self.env is not None:
            check_batch_size(self.batch_size, self.n_steps, self.env.num_envs, self.normalize_advantage)
        self.variance_gradient_scaler = self._make_scaler() if self.variance_gradient_scaling else None
        self.kl_controller = self._make_kl_controller()
        self.divergence_guard = DivergenceGuard(divergence_controls.build(self.divergence))

    def _make_scaler(self) -> VarianceGradientScaler:
        scaler = VarianceGradientScaler(
            parameters_by_part(self.policy),
            beta=self.vgs_beta,
            alpha=self.vgs_alpha,
            warmup_steps=self.vgs_warmup_steps,
            **self.vgs_kwargs,
        )
        scaler.attach(self.policy.optimizer)
        return scaler

    def _make_kl_controller(self) -> KLControl | None:
        controller = copy.deepcopy(kl_control(self.kl_penalty))  # an object of the user may be given to several models
        if controller is not None:
            controller.require_no_other(self.target_kl)
        return controller

    def _setup_lr_schedule(self) -> None:
        """``optimizer_kwargs["lr"]`` goes before ``learning_rate``, unless that was assigned later."""
        in_optimizer = None if self._learning_rate_was_set else self._optimizer_lr
        rate: ScheduleSpec = self.learning_rate if in_optimizer is None else in_optimizer
        self.lr_schedule = schedule_from(rate, "learning_rate")


class DistributionalPPO(PPO):
    """PPO with everlearn's system on: twin quantile critics in units of a return scale, AdaptiveUPGD, variance scaling.

    The scaler redistributes (``mode="relative"``): the gradients of PPO's minibatches are nearly all noise, so that
    ``mode="noise"`` would hold all factors at ``min_scale`` and act as a tenfold smaller learning rate.

    Arguments are those of ``PPO``; only what None stands for differs.
    """

    defaults: ClassVar[Defaults] = Defaults(
        "quantile", 2, "mean", "adaptive_upgd", True, {"mode": "relative"}, True, None, "restore"
    )
