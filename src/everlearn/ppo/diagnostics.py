"""What is logged of a rollout and of the parts after it was learned from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from everlearn.gradients import VarianceGradientScaler
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.loss import Minibatch
from everlearn.ppo.rollout import Rollout

PROBE_SIZE = 512
TAIL = 0.1


@dataclass(frozen=True)
class Probe:
    """A kept batch of old samples on which forgetting is measured.

    Args:
        samples: The samples; their ``returns`` are in reward units.
    """

    samples: Minibatch

    @classmethod
    def of(cls, rollout: Rollout) -> Probe:
        """Samples spread evenly over a rollout."""
        step = max(len(rollout) // PROBE_SIZE, 1)
        indices = torch.arange(0, len(rollout), step, device=rollout.raw_returns.device)
        return cls(rollout.samples.rows(indices)._replace(returns=rollout.raw_returns[indices]))


@torch.no_grad()
def critic_metrics(evaluator: Evaluator, probe: Probe, kept: Probe) -> dict[str, float]:
    """Disagreement, spread, CVaR and bias of the critics on new samples, and their loss on kept old ones.

    All are in reward units but ``forgetting_loss``, which is in the heads' unit of now.

    Args:
        evaluator: The policy's forward pass.
        probe: Samples of the rollout just learned from.
        kept: Samples of the first rollout.
    """
    ensemble = evaluator.ensemble
    distributions = evaluator(probe.samples.observations, probe.samples.actions).distributions
    old = evaluator(kept.samples.observations, kept.samples.actions).distributions
    values = {
        "disagreement": ensemble.disagreement(distributions).mean(),
        "value_mean": ensemble.value(distributions).mean(),
        "value_std": ensemble.value(distributions).std(correction=0),
        "bias": (ensemble.value(distributions) - probe.samples.returns).mean(),
        "forgetting_loss": ensemble.loss(old, ensemble.to_units(kept.samples.returns)).mean(),
    }
    if ensemble.head.n_outputs > 1:
        alpha = max(TAIL, distributions[0].tail_resolution)
        values["spread"] = ensemble.spread(distributions).mean()
        values["cvar_10"] = ensemble.cvar(distributions, alpha).mean()
    return _read(values)


def optimizer_metrics(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """What the UPGD family says of its last step; nothing for other optimizers."""
    return _read(optimizer.diagnostics()) if isinstance(optimizer, UtilityOptimizer) else {}


def scaler_metrics(scaler: VarianceGradientScaler | None) -> dict[str, float]:
    """What the scaler says of itself; nothing without one."""
    return {} if scaler is None else scaler.diagnostics()


def _read(values: dict[str, Tensor]) -> dict[str, float]:
    """Every value at once: one transfer from the device."""
    return (
        dict(zip(values, torch.stack([value.double() for value in values.values()]).tolist(), strict=True))
        if values
        else {}
    )
