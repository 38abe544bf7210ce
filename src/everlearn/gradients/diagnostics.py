"""What to log of variance gradient scaling."""

from __future__ import annotations

import torch
from torch import Tensor

from everlearn.gradients.history import GradientHistory
from everlearn.gradients.statistics import noise_to_signal


def scaling_diagnostics(history: GradientHistory, factors: Tensor, warm: Tensor, tiny: float) -> dict[str, Tensor]:
    """Quantities by name, 0-d tensors; quantiles and medians are over parameters, variances are summed.

    Args:
        history: What was seen so far.
        factors: The factor of each parameter, (n,).
        warm: Whether warm-up is over, 0-d.
        tiny: Relative floor of the signal.
    """
    noise, signal = history.noise_and_signal()
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=factors.dtype, device=factors.device)
    low, median, high = factors.quantile(levels)
    return {
        "factor_p10": low,
        "factor_p50": median,
        "factor_p90": high,
        "warmup_done": warm,
        "noise_to_signal_median": noise_to_signal(noise, signal, tiny).quantile(0.5),
        "noise_to_signal_global": noise_to_signal(noise.sum(), signal.sum(), tiny),
        "gradient_variance_before": noise.sum(),
        "gradient_variance_after": (factors.square() * noise).sum(),
        "resets": history.resets,
        "skipped_steps": history.skipped_steps,
    }
