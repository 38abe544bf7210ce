"""UPGDW: AdaptiveUPGD under AdamW's argument names and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch.optim.optimizer import ParamsT

from everlearn.optim.block import Hyper
from everlearn.optim.directions import AdamDirection
from everlearn.optim.registry import optimizers
from everlearn.optim.scopes import Scope
from everlearn.optim.utility_optimizer import NoiseKind, Preset, UtilityOptimizer


@optimizers.register("upgdw")
@final
class UPGDW(UtilityOptimizer):
    """AdamW that protects useful weights: the law of ``AdaptiveUPGD`` with the utility's decay equal to ``beta2``.

    Args:
        params: Parameters, named parameters or groups; groups may carry ``label`` (see ``scope``).
        lr: Learning rate, >= 0.
        betas: Decays of the first and second moment, in [0, 1); the second is the utility's too.
        eps: Added to the root of the second moment, >= 0.
        weight_decay: Decoupled decay, >= 0; not gated.
        sigma: Standard deviation of the noise in units of the preconditioned step, >= 0.
        protect: True gates step and noise; False gates the noise only.
        scope: ``"global"``, ``"group"``, ``"tensor"``, ``"row"`` or ``"none"``, as in ``UPGD``.
        step_multiplier: ``k``; by default 2, with ``preset="paper"`` 1.
        preset: ``"paper"`` or ``"official"``, as in ``UPGD``.
        adaptive_noise: Noise relative to the preconditioned step, as in ``AdaptiveUPGD``.
        noise_beta: Decay of the running root mean square that adaptive noise follows, in [0, 1).
        min_noise_std: Least standard deviation of adaptive noise, >= 0.
        noise: ``"generator"`` or ``"table"``, see ``everlearn.optim.noise``.
        seed: Seed of the noise; by default it follows from torch's generator, which is not advanced.

    Source: Elsayed & Mahmood, ICLR 2024, Algorithm 5; Loshchilov & Hutter, ICLR 2019, for names and defaults.
    """

    direction = AdamDirection()
    factor_acts_on = "step"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        sigma: float = 0.001,
        *,
        protect: bool = True,
        scope: Scope = "global",
        step_multiplier: float | None = None,
        preset: Preset | None = None,
        adaptive_noise: bool = False,
        noise_beta: float = 0.999,
        min_noise_std: float = 1e-6,
        noise: NoiseKind = "generator",
        seed: int | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "sigma": sigma,
            "beta1": betas[0],
            "beta2": betas[1],
            "eps": eps,
            "protect": protect,
            "scope": scope,
            "step_multiplier": step_multiplier,
            "preset": preset,
            "adaptive_noise": adaptive_noise,
            "noise_beta": noise_beta,
            "min_noise_std": min_noise_std,
        }
        super().__init__(params, options, noise, seed)

    def hyper(self, group: Mapping[str, Any]) -> Hyper:
        """The group's hyper-parameters, with ``beta2`` as the decay of the utility."""
        hyper = super().hyper(group)
        return {**hyper, "beta_utility": hyper["beta2"]}
