"""The one update step of PPO, and the eager runner that carries it out.

``ppo_loss`` is the loss; ``FunctionalStep`` is the whole update as a function of tensors; ``EagerRunner`` does the same
with ``loss.backward()`` and the optimizer's own ``step()``, for every policy and every optimizer. Both call the same
rules in the same order: backward, variance scaling, clipping, optimizer step, commit of the scaler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor
from torch.distributions import Distribution
from torch.func import functional_call, grad

from everlearn import losses
from everlearn.gradients import VarianceGradientScaler, clip_by_global_norm_
from everlearn.gradients.functional import FunctionalScaler
from everlearn.optim.functional import FunctionalOptimizer, States, Tensors
from everlearn.ppo.action_kl import action_kl
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.policy import Evaluation
from everlearn.values import CriticEnsemble

Scalar = float | Tensor
Stats = dict[str, Tensor]
Outcome = Literal["moved", "skipped", "stopped"]
"""Parameters moved; something was not finite; the KL had grown too large."""
EARLY_STOP_TOLERANCE = 1.5
"""Updates of a rollout stop above so many times ``target_kl``: SB3's."""


class Minibatch(NamedTuple):
    """Samples of one update; every tensor has the batch's leading size."""

    observations: PyTorchObs
    actions: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    returns: Tensor
    """In the heads' unit."""
    old_values: Tensor
    """What each critic predicted before the first update, (batch, n_critics), in the heads' unit."""
    old_action_parameters: Tensor | None = None
    """Of the action distributions before the first update, (batch, k), where the loss asks for their divergence."""

    def rows(self, indices: Tensor | slice) -> Minibatch:
        """Some of the samples."""
        tensors = (None if tensor is None else tensor[indices] for tensor in self[1:])
        return Minibatch(rows(self.observations, indices), *tensors)  # type: ignore[arg-type]


def rows(observations: PyTorchObs, indices: Tensor | slice) -> PyTorchObs:
    """Some rows of tensors or of a dictionary of tensors."""
    if isinstance(observations, dict):
        return {key: value[indices] for key, value in observations.items()}
    return observations[indices]


@dataclass(frozen=True)
class Coefficients:
    """The numbers of the loss: floats, or 0-d tensors where the step is traced.

    Args:
        clip_range: Of the probability ratio.
        ent_coef: Weight of the entropy loss.
        vf_coef: Weight of the value loss.
        max_grad_norm: Largest norm of all gradients together.
        clip_range_vf: Of the values, in the heads' unit; None for no clipping.
        target_kl: Updates stop above 1.5 times this approximate KL; None for never.
        normalize_advantage: Whether advantages are normalised within the minibatch.
        kl_coef: Weight of KL(old || new) in the loss; None for no such term.
    """

    clip_range: Scalar
    ent_coef: Scalar
    vf_coef: Scalar
    max_grad_norm: Scalar
    clip_range_vf: Scalar | None = None
    target_kl: Scalar | None = None
    normalize_advantage: bool = True
    kl_coef: Scalar | None = None


def ppo_loss(
    evaluation: Evaluation, minibatch: Minibatch, coefficients: Coefficients, critics: CriticEnsemble
) -> tuple[Tensor, Stats]:
    """``policy + ent_coef * entropy + vf_coef * value``, in SB3's order of operations (Schulman et al. 2017, Eq. 9).

    With ``kl_coef``, ``kl_coef * mean KL(old || new)`` is added (equation 8).

    Returns:
        The loss, 0-d, and what is logged of it, 0-d tensors under SB3's names.
    """
    advantages = minibatch.advantages
    if coefficients.normalize_advantage:
        advantages = losses.normalize_advantages(advantages)
    policy_loss, ratio = losses.clipped_surrogate_loss(
        evaluation.log_prob, minibatch.old_log_prob, advantages, coefficients.clip_range
    )
    value_loss = critics.loss(
        evaluation.distributions, minibatch.returns, minibatch.old_values, coefficients.clip_range_vf
    ).mean()
    entropy_loss = losses.entropy_loss(evaluation.entropy, evaluation.log_prob)
    loss = policy_loss + coefficients.ent_coef * entropy_loss + coefficients.vf_coef * value_loss
    penalty: Stats = {}
    if coefficients.kl_coef is not None:
        divergence = mean_kl(evaluation, minibatch)
        loss = loss + coefficients.kl_coef * divergence
        penalty["kl"] = divergence.detach()
    return loss, penalty | {
        "policy_gradient_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy_loss": entropy_loss.detach(),
        "loss": loss.detach(),
        "approx_kl": losses.approximate_kl(evaluation.log_prob.detach(), minibatch.old_log_prob),
        "clip_fraction": losses.clip_fraction(ratio.detach(), coefficients.clip_range),
    }


def mean_kl(evaluation: Evaluation, samples: Minibatch) -> Tensor:
    """Mean KL(old || new) of the action distributions, 0-d: exact where it has a closed form, else the estimate k3."""
    if samples.old_action_parameters is None:
        return losses.approximate_kl(evaluation.log_prob, samples.old_log_prob)
    return action_kl(evaluation.action_distribution, samples.old_action_parameters).mean()


@dataclass(frozen=True)
class EagerRunner:
    """One update with ``backward()`` and the optimizer's own step.

    Args:
        evaluator: The policy's forward pass.
        optimizer: Any torch optimizer over the policy's parameters.
        scaler: Variance gradient scaler, attached to the optimizer; None for none.
    """

    evaluator: Evaluator
    optimizer: torch.optim.Optimizer
    scaler: VarianceGradientScaler | None

    def update(self, minibatch: Minibatch, coefficients: Coefficients) -> tuple[Stats, Outcome]:
        """Do one update, or none where the KL has grown too large or something is not finite.

        Returns:
            What is logged, and whether parameters moved; if not they and all state are what they were, bit for bit.
        """
        evaluation = self.evaluator(minibatch.observations, minibatch.actions)
        loss, stats = ppo_loss(evaluation, minibatch, coefficients, self.evaluator.ensemble)
        limit = float("inf") if coefficients.target_kl is None else EARLY_STOP_TOLERANCE * coefficients.target_kl
        finite, within_kl = torch.stack([torch.isfinite(loss), ~(stats["approx_kl"] > limit)]).tolist()
        if not within_kl:
            return stats, "stopped"
        return stats, "moved" if finite and self._descend(loss, coefficients.max_grad_norm) else "skipped"

    def _descend(self, loss: Tensor, max_grad_norm: Scalar) -> bool:
        """Backward, scale, clip, step, commit; False and no step where a gradient is not finite."""
        self.optimizer.zero_grad()
        loss.backward()
        if self.scaler is not None:
            self.scaler.scale_gradients()
        grads = [
            param.grad for group in self.optimizer.param_groups for param in group["params"] if param.grad is not None
        ]
        finite = bool(torch.isfinite(clip_by_global_norm_(grads, max_grad_norm)))
        if finite:
            self.optimizer.step()
        if self.scaler is not None:
            self.scaler.step()  # commits nothing where the gradients were not finite
        return finite


@dataclass(frozen=True)
class FunctionalStep:
    """One update as a function of tensors, in place: what is traced, compiled and mapped over members.

    It is bound to a structure (names, groups, head, whether there is a scaler), not to values.

    Args:
        evaluator: The policy's forward pass; its parameters are not read, they come in.
        optimizer: Functional step of the optimizer.
        scaler: Functional step of the scaler; None for none.
        normalize_advantage: Whether advantages are normalised within the minibatch.
    """

    evaluator: Evaluator
    optimizer: FunctionalOptimizer
    scaler: FunctionalScaler | None
    normalize_advantage: bool = True

    def __call__(
        self,
        params: Tensors,
        buffers: Tensors,
        optimizer_state: States,
        scaler_state: Tensors,
        minibatch: Minibatch,
        coefficients: Tensors,
        optimizer_hyper: Sequence[Tensors],
        scaler_hyper: Tensors,
        noise: Tensors,
        active: Tensor,
    ) -> tuple[Stats, Tensor]:
        """Update ``params`` and both states in place, or leave every bit as it is.

        Args:
            params: Parameters by name.
            buffers: Buffers by name.
            optimizer_state: As from ``optimizer.state()``.
            scaler_state: As from ``scaler.state()``; empty without one.
            minibatch: The samples.
            coefficients: ``Coefficients`` by name, 0-d; ``clip_range_vf`` and ``kl_coef`` only where they are in use.
            optimizer_hyper: As from ``optimizer.hyper()``.
            scaler_hyper: As from ``scaler.hyper()``; empty without one.
            noise: Standard normal numbers by parameter name.
            active: 0-d boolean; False masks the update.

        Returns:
            What is logged, and ``active`` for the next update of this rollout: False once the KL has grown too large.
        """
        numbers = Coefficients(**coefficients, normalize_advantage=self.normalize_advantage)

        def loss_of(params: Tensors) -> tuple[Tensor, Stats]:
            inputs = (minibatch.observations, minibatch.actions)
            evaluation = functional_call(self.evaluator, (_prefixed(params), _prefixed(buffers)), inputs)
            return ppo_loss(evaluation, minibatch, numbers, self.evaluator.ensemble)

        with unchecked_distributions():
            grads, stats = grad(loss_of, has_aux=True)(params)
        active = active & ~(stats["approx_kl"] > EARLY_STOP_TOLERANCE * coefficients["target_kl"])
        finite = torch.isfinite(stats["loss"])
        learned = [*params.values(), *(tensor for state in optimizer_state.values() for tensor in state.values())]
        before = [tensor.clone() for tensor in learned]
        raw = {name: gradient.clone() for name, gradient in grads.items()}
        factors = {} if self.scaler is None else self.scaler.factors(scaler_state, scaler_hyper, raw)
        norm = self._descend_(params, grads, optimizer_state, numbers, optimizer_hyper, noise, factors)
        moved = active & finite & torch.isfinite(norm)
        _undo_(learned, before, ~moved)
        if self.scaler is not None:
            self.scaler.observe_(scaler_state, scaler_hyper, raw, active & finite)
        return stats | {"skipped": (active & ~moved).float()}, active

    def _descend_(
        self,
        params: Tensors,
        grads: Tensors,
        optimizer_state: States,
        coefficients: Coefficients,
        optimizer_hyper: Sequence[Tensors],
        noise: Tensors,
        factors: Tensors,
    ) -> Tensor:
        """Scale, clip and step; returns the norm of the gradients."""
        if factors and self.optimizer.factor_acts_on == "gradient":
            grads = {name: gradient * factors[name].to(gradient.dtype) for name, gradient in grads.items()}
        norm = clip_by_global_norm_(list(grads.values()), coefficients.max_grad_norm)
        self.optimizer.step_(params, grads, optimizer_state, optimizer_hyper, noise, factors)
        return norm


@contextmanager
def unchecked_distributions() -> Iterator[None]:
    """No checks of arguments inside ``torch.distributions``: they branch on values, which no trace can follow."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checked)


def _undo_(tensors: Sequence[Tensor], before: Sequence[Tensor], where: Tensor) -> None:
    """Put every tensor back to what it was where the 0-d ``where`` is true, to the bit."""
    for tensor, old in zip(tensors, before, strict=True):
        tensor.copy_(torch.where(where, old, tensor))


def _prefixed(tensors: Tensors) -> dict[str, Tensor]:
    return {f"policy.{name}": tensor for name, tensor in tensors.items()}
