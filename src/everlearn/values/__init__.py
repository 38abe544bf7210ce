"""Predicted return distributions: heads that make them, critics that share one target, the unit they use."""

from everlearn.values.categorical import CategoricalDistribution, CategoricalHead
from everlearn.values.clipping import ClipRange, ValueClipping, clipped_prediction_loss, clipped_value_loss
from everlearn.values.ensemble import CriticEnsemble
from everlearn.values.head import ValueDistribution, ValueHead, heads
from everlearn.values.quantile import QuantileDistribution, QuantileHead
from everlearn.values.reduction import Reduction, disagreement, reductions
from everlearn.values.scalar import ScalarDistribution, ScalarHead
from everlearn.values.scale import ReturnScale

__all__ = [
    "CategoricalDistribution",
    "CategoricalHead",
    "ClipRange",
    "CriticEnsemble",
    "QuantileDistribution",
    "QuantileHead",
    "Reduction",
    "ReturnScale",
    "ScalarDistribution",
    "ScalarHead",
    "ValueClipping",
    "ValueDistribution",
    "ValueHead",
    "clipped_prediction_loss",
    "clipped_value_loss",
    "disagreement",
    "heads",
    "reductions",
]
