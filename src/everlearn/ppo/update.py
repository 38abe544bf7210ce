"""The one update step of PPO, and the eager runner that carries it out.

``FunctionalStep`` is the whole update as a function of tensors; ``EagerRunner`` does the same
with ``loss.backward()`` and the optimizer's own ``step()``, for every policy and every optimizer. Both call the same
rules in the same order: backward, variance scaling, clipping, optimizer step, commit of the scaler.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.func import functional_call, grad

from everlearn.core.metrics import Row
from everlearn.gradients import VarianceGradientScaler, clip_by_global_norm_
from everlearn.gradients.functional import FunctionalScaler
from everlearn.optim.functional_step import FunctionalOptimizer, States, Tensors
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.loss import Coefficients, Minibatch, Scalar, Stats, ppo_loss

Outcome = Literal["moved", "skipped", "stopped"]
"""Parameters moved; something was not finite; the KL had grown too large."""
EARLY_STOP_TOLERANCE = 1.5
"""Updates of a rollout stop above so many times ``target_kl``: SB3's."""


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

    def updates(
        self, samples: Minibatch, batches: Iterable[Tensor], coefficients: Coefficients
    ) -> Generator[tuple[Row, Outcome]]:
        """An update with each of some rows of the samples."""
        for indices in batches:
            stats, outcome = self.update(samples.rows(indices), coefficients)
            yield Row.of(stats), outcome

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


class Taken(NamedTuple):
    """What came of an update that was done as a function of tensors.

    Args:
        stats: What is logged of it, 0-d by name; ``skipped`` is 1 where something was not finite.
        active: For the next update of this rollout: False once the KL has grown too large, 0-d.
        gradients: As the optimizer took them, in the order of ``optimizer.params`` and joined by its pieces.
        factors: Of variance scaling, 0-d by name; empty without.
    """

    stats: Stats
    active: Tensor
    gradients: Sequence[Tensor]
    factors: Tensors


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
        noise: Tensor,
        active: Tensor,
    ) -> Taken:
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
            noise: Standard normal numbers, as from ``optimizer.draw_noise()``.
            active: 0-d boolean; False masks the update.

        Returns:
            What came of it.
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
        raw, factors = torch.empty(0), dict[str, Tensor]()
        if self.scaler is not None:
            raw = self.scaler.gather(grads)
            found = self.scaler.factors(scaler_state, scaler_hyper, raw)
            factors = dict(zip(self.scaler.names, found.unbind(), strict=True))
        gradients, norm = self._descend_(params, grads, optimizer_state, numbers, optimizer_hyper, noise, factors)
        moved = active & finite & torch.isfinite(norm)
        _undo_(learned, before, ~moved)
        if self.scaler is not None:
            self.scaler.observe_(scaler_state, scaler_hyper, raw, active & finite)
        return Taken(stats | {"skipped": (active & ~moved).float()}, active, gradients, factors)

    def _descend_(
        self,
        params: Tensors,
        grads: Tensors,
        optimizer_state: States,
        coefficients: Coefficients,
        optimizer_hyper: Sequence[Tensors],
        noise: Tensor,
        factors: Tensors,
    ) -> tuple[list[Tensor], Tensor]:
        """Scale, clip and step; returns the gradients that the optimizer took, and their norm before clipping."""
        if factors and self.optimizer.factor_acts_on == "gradient":
            grads = {name: gradient * factors[name].to(gradient.dtype) for name, gradient in grads.items()}
        gradients = self.optimizer.joined(grads)
        norm = clip_by_global_norm_(gradients, coefficients.max_grad_norm)
        self.optimizer.step_(params, gradients, optimizer_state, optimizer_hyper, noise, factors)
        return gradients, norm


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
