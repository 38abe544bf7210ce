"""AdaptiveUPGD: Adam's step, gated by utility, with noise outside Adam's denominator."""

from __future__ import annotations

from typing import final

from torch.optim.optimizer import ParamsT

from everlearn.core.errors import ArgumentError
from everlearn.optim.directions import AdamDirection
from everlearn.optim.registry import optimizers
from everlearn.optim.scopes import Scope
from everlearn.optim.utility_optimizer import NoiseKind, Preset, UtilityOptimizer


@optimizers.register("adaptive_upgd")
@final
class AdaptiveUPGD(UtilityOptimizer):
    """``w <- (1 - lr*wd) * w - k * lr * (m^ / (sqrt(v^) + eps) + xi) * (1 - s)``.

    ``m, v`` are Adam's moments of the ungated gradient; ``s, k, xi`` as in ``UPGD``. With ``k = 2`` a weight of utility
    zero takes exactly AdamW's step.

    Args:
        params: Parameters, named parameters or groups; groups may carry ``label`` (see ``scope``).
        lr: Learning rate, >= 0.
        weight_decay: Decoupled decay, >= 0; not gated.
        beta_utility: Decay of the utility trace, in [0, 1).
        sigma: Standard deviation of the noise in units of the preconditioned step, >= 0; with ``adaptive_noise``
            relative to that step.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the root of the second moment, >= 0.
        adaptive_noise: Noise of ``max(sigma * R, min_noise_std)`` with ``R`` the running root mean square of the
            preconditioned step; without it the noise is fixed.
        noise_beta: Decay of ``R``, in [0, 1).
        min_noise_std: Least standard deviation of adaptive noise, >= 0.
        betas: ``(beta1, beta2)``, the name that Adam gives them; not together with other values of either.
        protect: True gates step and noise; False gates the noise only.
        scope: ``"global"``, ``"group"``, ``"tensor"``, ``"row"`` or ``"none"``, as in ``UPGD``.
        step_multiplier: ``k``; by default 2, with ``preset="paper"`` 1.
        preset: ``"paper"`` or ``"official"``, as in ``UPGD``.
        noise: ``"generator"`` or ``"table"``, see ``everlearn.optim.noise``.
        seed: Seed of the noise; by default it follows from torch's generator, which is not advanced.

    Source: Elsayed & Mahmood, ICLR 2024, Algorithm 5 (with the first-order utility of the released code).
    """

    direction = AdamDirection()
    factor_acts_on = "step"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-5,
        weight_decay: float = 0.001,
        beta_utility: float = 0.999,
        sigma: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        adaptive_noise: bool = False,
        noise_beta: float = 0.999,
        min_noise_std: float = 1e-6,
        *,
        betas: tuple[float, float] | None = None,
        protect: bool = True,
        scope: Scope = "global",
        step_multiplier: float | None = None,
        preset: Preset | None = None,
        noise: NoiseKind = "generator",
        seed: int | None = None,
    ) -> None:
        if betas is not None:
            if (beta1, beta2) != (0.9, 0.999):
                raise ArgumentError(f"betas={betas} contradicts beta1={beta1}, beta2={beta2}. Give one or the other.")
            beta1, beta2 = betas
        options = {
            "lr": lr,
            "weight_decay": weight_decay,
            "beta_utility": beta_utility,
            "sigma": sigma,
            "beta1": beta1,
            "beta2": beta2,
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
