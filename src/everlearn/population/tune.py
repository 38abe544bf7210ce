"""Ray Tune as the one who decides: ``Trainable`` is what its schedulers drive."""

from __future__ import annotations

from everlearn.core.errors import MissingExtraError

try:
    import ray.tune as _tune  # noqa: F401 - asked for here, so that what is imported next may take it for granted
except ImportError as error:
    raise MissingExtraError("A Trainable of Ray Tune", "ray[tune]", "ray") from error

from everlearn.pbt.tune_trainable import Trainable, TrialFailed

__all__ = ["Trainable", "TrialFailed"]
