"""UPGD: gradient descent that protects useful weights and refreshes useless ones."""

from __future__ import annotations

from typing import final

from torch.optim.optimizer import ParamsT

from everlearn.optim.directions import GradientDirection
from everlearn.optim.registry import optimizers
from everlearn.optim.scopes import Scope
from everlearn.optim.utility_optimizer import NoiseKind, Preset, UtilityOptimizer


@optimizers.register("upgd")
@final
class UPGD(UtilityOptimizer):
    """``w <- (1 - lr*wd) * w - k * lr * (g + xi) * (1 - s)`` with ``s = sigmoid(U^ / eta)``, ``xi ~ N(0, sigma^2)``.

    ``U`` is the trace of the utility ``-g * w``, ``eta`` the largest corrected utility in the scope, ``k`` the step
    multiplier. With ``k = 2`` a weight of utility zero takes exactly the step of SGD with decoupled decay.

    Args:
        params: Parameters, named parameters or groups; groups may carry ``label`` (see ``scope``).
        lr: Learning rate, >= 0.
        weight_decay: Decoupled decay, >= 0; not gated.
        beta_utility: Decay of the utility trace, in [0, 1).
        sigma: Standard deviation of the noise, >= 0; with ``adaptive_noise`` relative to the update.
        protect: True gates gradient and noise; False gates the noise only.
        scope: Whose largest utility normalises: ``"global"``, ``"group"`` (groups of one ``label`` together),
            ``"tensor"``, ``"row"`` (the released "local" rule: the norm over the last dimension), ``"none"`` (no gate).
        step_multiplier: ``k``; by default 2, with ``preset="paper"`` 1.
        preset: ``"paper"`` (k = 1) or ``"official"`` (the released code: the largest utility is not bias-corrected).
        adaptive_noise: Noise of ``max(sigma * R, min_noise_std)`` with ``R`` the running root mean square of the
            gradient: the ratio of noise to update does not depend on the scale of the gradient. Without it the noise
            is fixed.
        noise_beta: Decay of ``R``, in [0, 1).
        min_noise_std: Least standard deviation of adaptive noise, >= 0.
        noise: ``"generator"`` or ``"table"``, see ``everlearn.optim.noise``.
        seed: Seed of the noise; by default it follows from torch's generator, which is not advanced.

    Source: Elsayed & Mahmood, "Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning",
    ICLR 2024, Algorithm 1.
    """

    direction = GradientDirection()
    factor_acts_on = "gradient"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-5,
        weight_decay: float = 0.001,
        beta_utility: float = 0.999,
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
            "beta_utility": beta_utility,
            "sigma": sigma,
            "protect": protect,
            "scope": scope,
            "step_multiplier": step_multiplier,
            "preset": preset,
            "adaptive_noise": adaptive_noise,
            "noise_beta": noise_beta,
            "min_noise_std": min_noise_std,
        }
        super().__init__(params, options, noise, seed)
