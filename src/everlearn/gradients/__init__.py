"""Gradients between backward and step: variance gradient scaling and clipping."""

from everlearn.gradients.clipping import clip_by_global_norm_
from everlearn.gradients.statistics import half_batch_noise_and_signal
from everlearn.gradients.variance_scaling import VarianceGradientScaler

__all__ = ["VarianceGradientScaler", "clip_by_global_norm_", "half_batch_noise_and_signal"]
