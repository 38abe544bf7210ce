"""PPO's loss: what it is of, the numbers it depends on, and what is logged of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from everlearn import losses
from everlearn.ppo.action_kl import action_kl
from everlearn.ppo.policy import Evaluation
from everlearn.values import CriticEnsemble

Scalar = float | Tensor
Stats = dict[str, Tensor]


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
