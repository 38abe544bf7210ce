"""Learning from a rollout: the passes over it, what is checked before, what is logged after."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Any, Self

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import explained_variance

from everlearn.core.errors import OrderError
from everlearn.core.metrics import Row, RunningMeans
from everlearn.gradients import VarianceGradientScaler
from everlearn.ppo.acting import Actor, actor_for
from everlearn.ppo.compilation import CompileChoice, UpdateCompiler, Updates, pays
from everlearn.ppo.diagnostics import Probe, critic_metrics, optimizer_metrics, scaler_metrics
from everlearn.ppo.divergence import DivergenceGuard
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.kl import KLControl
from everlearn.ppo.loss import Coefficients
from everlearn.ppo.policy import parameters_by_part
from everlearn.ppo.rollout import Behaviour, Rollout, RolloutCollector, read_rollout, recover_behaviour, rollout_kl
from everlearn.ppo.update import EagerRunner, Outcome

BEHAVIOUR_TOLERANCE = 1e-2
"""How far recovered log-probabilities, and relative to the largest the values, may be off before the user is told."""


class RolloutLearner(RolloutCollector):
    """The half of PPO that learns: one rollout in, new parameters and logs out."""

    batch_size: int
    n_epochs: int
    clip_range: Callable[[float], float]
    clip_range_vf: Callable[[float], float] | None
    normalize_advantage: bool
    target_kl: float | None
    variance_gradient_scaler: VarianceGradientScaler | None
    kl_controller: KLControl | None
    divergence_guard: DivergenceGuard
    compile: CompileChoice
    update_compiler: UpdateCompiler
    _probe: Probe | None = None
    _warned_of_behaviour = False
    _callback: BaseCallback | None = None
    _waiting: dict[str, Any] | None = None
    """States of callbacks and of records, restored before there are any."""
    _iteration = 0
    _pause_at: int | None = None
    """Behind so many iterations ``learn`` pauses; None to go on to the end."""
    _compiles: bool | None = None
    """What ``compile="auto"`` has come to in this training; a resumed one keeps to it."""

    @property
    def skipped_updates(self) -> int:
        """Updates that met a loss or gradient that was not finite, since the model was made."""
        return self.divergence_guard.skipped

    @property
    def evaluator(self) -> Evaluator:
        """The forward pass of the policy that is in place now."""
        return Evaluator(self.policy)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Alternate rollouts and updates for ``total_timesteps`` environment steps, with SB3's callbacks and logs.

        Args:
            total_timesteps: Environment steps, over all environments.
            callback: SB3 callbacks or a function.
            log_interval: Iterations between logs.
            tb_log_name: Name of the TensorBoard run; by default the class's.
            reset_num_timesteps: Whether counters start at zero.
            progress_bar: Whether SB3's progress bar is shown.
        """
        if self.env is None:
            raise OrderError("The model has no environment to learn in. Give it one with set_env(), or load(env=...).")
        iteration = 0
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        callback.on_training_start(locals(), globals())
        iteration = self._started(callback)
        while self.num_timesteps < total_timesteps and iteration != self._pause_at:
            self._clean_point()
            if not self.collect_rollouts(self.env, callback, self.rollout_buffer, n_rollout_steps=self.n_steps):
                break
            iteration = self._iteration = iteration + 1
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if log_interval is not None and iteration % log_interval == 0:
                self.dump_logs(iteration)
            self.train()
        else:  # where a callback stopped it, the last clean point stands: a part of a rollout is none
            self._clean_point()
        callback.on_training_end()
        return self

    def _started(self, callback: BaseCallback) -> int:
        """Callbacks know that training begins; returns how many iterations it has behind it."""
        self._callback = callback
        return self._iteration

    def _clean_point(self) -> None:
        """Between two iterations: the last rollout is consumed, nothing is in flight.

        Here the return scale moves, the buffer gets its size, and what may have to be restored is kept.
        """
        self.rollout_buffer.buffer_size = self.n_steps  # in force from its next reset
        self._actor = self._fast_actor()
        ensemble = self.evaluator.ensemble
        if ensemble.return_scale is not None:
            ensemble.refresh_scale_(self.policy.value_nets())  # type: ignore[operator]
        self.divergence_guard.keep(self.get_parameters)

    def _update_learning_rate(self, optimizers: list[torch.optim.Optimizer] | torch.optim.Optimizer) -> None:
        """The schedule's value, times the factors of KL and divergence control, times each group's ``lr_scale``."""
        rate = self.lr_schedule(self._current_progress_remaining) * self.divergence_guard.lr_factor
        if self.kl_controller is not None:
            rate *= self.kl_controller.lr_factor
        self.logger.record("train/learning_rate", rate)
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)

    def train(self) -> None:
        """Learn from the rollout in the buffer: ``n_epochs`` passes in minibatches."""
        rollout = self._prepare(read_rollout(self.rollout_buffer, self.action_space))
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        coefficients = self._coefficients()
        updates = self._updates(rollout, coefficients)
        means, before_last_epoch = RunningMeans(), 0
        for _ in range(self.n_epochs):
            before_last_epoch = len(means)
            with closing(updates(rollout.batches(self.batch_size))) as done:
                goes_on = self._learn_once(done, means)
            self._n_updates += 1
            if not goes_on:
                break
        if self.divergence_guard.has_diverged:
            self._restore()
        elif self.kl_controller is not None and len(means):  # some update was not skipped
            self._control_kl(self.kl_controller, rollout)
        self._record(means, before_last_epoch, coefficients, rollout)

    def _updates(self, rollout: Rollout, coefficients: Coefficients) -> Updates:
        """What does the updates of this rollout: a compiled graph where it pays, else the eager runner."""
        eager = EagerRunner(self.evaluator, self.policy.optimizer, self._linked_scaler())
        return self.update_compiler.updates(eager, rollout, self.batch_size, coefficients, self._is_worth_compiling())

    def _is_worth_compiling(self) -> bool:
        """Whether what equals the plain code to rounding may take its place; "auto" decides once for a training."""
        if self.compile != "auto":
            return pays(self.compile, 0)
        rollout = self.n_steps * self.n_envs
        updates = self._total_timesteps / rollout * self.n_epochs * math.ceil(rollout / self.batch_size)
        self._compiles = self.update_compiler.decides(self._compiles, updates)
        return self._compiles

    def _fast_actor(self) -> Actor | None:
        """What acts in the policy's place; None for the policy itself."""
        if not self._is_worth_compiling():
            return None
        kept = self._actor is not None and self._actor.policy is self.policy
        return self._actor if kept else actor_for(self.policy, self._last_obs)

    def _learn_once(self, updates: Generator[tuple[Row, Outcome]], means: RunningMeans) -> bool:
        """One pass over the rollout; False where the KL has grown too large or training diverges."""
        for row, outcome in updates:
            self.divergence_guard.count(skipped=outcome == "skipped")
            if outcome != "skipped":  # one NaN would blot out the means of all the others
                means.add(row)
            if outcome == "stopped" or self.divergence_guard.has_diverged:
                return False
        return True

    def _restore(self) -> None:
        """Put back the last good state and go on with a smaller learning rate, or stop."""
        self.set_parameters(self.divergence_guard.good_state(self.num_timesteps), device=self.device)

    def _control_kl(self, controller: KLControl, rollout: Rollout) -> None:
        """Show the controller how far the policy has moved."""
        self.policy.set_training_mode(False)
        divergence = rollout_kl(self.evaluator, rollout)
        controller.observe(divergence)
        self.logger.record("kl/divergence", divergence)
        for name, value in controller.diagnostics().items():
            self.logger.record(f"kl/{name}", value)

    def _prepare(self, rollout: Rollout) -> Rollout:
        """The rollout in the critics' unit, checked against what the policy says of it now."""
        self.policy.set_training_mode(False)
        evaluator = self.evaluator
        behaviour = recover_behaviour(evaluator, rollout)
        self._check_behaviour(rollout, behaviour)
        ensemble = evaluator.ensemble
        old_values = rollout.samples.old_values
        if ensemble.return_scale is not None:
            first = not bool(ensemble.return_scale.weight > 0)
            ensemble.return_scale.observe(rollout.raw_returns)
            if first:  # nothing has been learned yet that a move could spoil
                ensemble.return_scale.refresh_()
        if ensemble.return_scale is not None or ensemble.n_critics > 1:
            old_values = behaviour.means
        returns = ensemble.to_units(rollout.raw_returns)
        samples = rollout.samples._replace(returns=returns, old_values=old_values)
        if self.kl_controller is not None:
            samples = samples._replace(old_action_parameters=behaviour.action_parameters)
        return replace(rollout, samples=samples)

    def _check_behaviour(self, rollout: Rollout, behaviour: Behaviour) -> None:
        """Before the first update the policy must reproduce what the rollout stored: all ratios are 1."""
        log_prob_error = (behaviour.log_prob - rollout.samples.old_log_prob).abs().max()
        value_error = (behaviour.value - rollout.values).abs().max() / rollout.values.abs().max().clamp(min=1.0)
        errors = torch.stack([log_prob_error, value_error]).tolist()
        self.logger.record("train/behaviour_log_prob_error", errors[0])
        self.logger.record("train/behaviour_value_error", errors[1])
        if not all(error <= BEHAVIOUR_TOLERANCE for error in errors) and not self._warned_of_behaviour:
            self._warned_of_behaviour = True
            warnings.warn(
                f"The policy gives the rollout's actions log-probabilities that differ by up to {errors[0]:.2g} from "
                f"those when it took them, and values that differ by up to {errors[1]:.2g} of the largest: the first "
                "ratios are not 1. A layer that is random in evaluation mode, or a callback that changed the policy "
                "during the rollout, would do that.",
                stacklevel=3,
            )

    def _coefficients(self) -> Coefficients:
        """The hyper-parameters now in force."""
        progress, controller = self._current_progress_remaining, self.kl_controller
        target_kl = self.target_kl if controller is None else controller.target_kl or self.target_kl
        return Coefficients(
            clip_range=self.clip_range(progress),
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            max_grad_norm=self.max_grad_norm,
            clip_range_vf=None if self.clip_range_vf is None else self.clip_range_vf(progress),
            target_kl=target_kl,
            normalize_advantage=self.normalize_advantage,
            kl_coef=None if controller is None else controller.coefficient,
        )

    def _linked_scaler(self) -> VarianceGradientScaler | None:
        """The scaler, following the policy's parameters and optimizer should either have been recreated."""
        scaler = self.variance_gradient_scaler
        if scaler is not None:
            if {id(own) for own in scaler.parameters} != {id(new) for new in self.policy.parameters()}:
                scaler.update_parameters(parameters_by_part(self.policy))
            scaler.attach(self.policy.optimizer)
        return scaler

    def _record(
        self, means: RunningMeans, before_last_epoch: int, coefficients: Coefficients, rollout: Rollout
    ) -> None:
        """Log under SB3's names, and ours under new ones; SB3's approximate KL is that of the last epoch alone."""
        values, series = means.means(), means.series()
        buffer = self.rollout_buffer
        record = self.logger.record
        for name in ("entropy_loss", "policy_gradient_loss", "value_loss", "clip_fraction"):
            record(f"train/{name}", values.get(name, math.nan))
        last_kl = series.get("approx_kl", [])[before_last_epoch:]
        record("train/approx_kl", sum(last_kl) / len(last_kl) if last_kl else math.nan)
        record("train/loss", series.get("loss", [math.nan])[-1])
        record("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
        if "log_std" in dict(self.policy.named_parameters()):
            record("train/std", torch.exp(self.policy.log_std).mean().item())
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/clip_range", coefficients.clip_range)
        if coefficients.clip_range_vf is not None:
            record("train/clip_range_vf", coefficients.clip_range_vf)
        record("train/skipped_updates", self.skipped_updates)
        record("train/compiled", float(bool(self.update_compiler.compiled)))
        record("train/restores", self.divergence_guard.restores)
        probe = Probe.of(rollout)
        self._probe = self._probe or probe
        self.policy.set_training_mode(False)
        parts = {
            "critics": critic_metrics(self.evaluator, probe, self._probe),
            "upgd": optimizer_metrics(self.policy.optimizer),
            "vgs": scaler_metrics(self.variance_gradient_scaler),
        }
        for part, metrics in parts.items():
            for name, value in metrics.items():
                record(f"{part}/{name}", value)
