"""Control of how far the policy moves per rollout: penalties, early stopping, learning rates.

To add one, write a ``KLControl`` in one file and register it with ``@kl_controls.register("name")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from everlearn.core.errors import ArgumentError
from everlearn.ppo.kl.control import KLControl, kl_controls
from everlearn.ppo.kl.limits import KLAdaptiveLR, KLEarlyStop
from everlearn.ppo.kl.penalties import DoublingPenalty, PIDPenalty

__all__ = [
    "DoublingPenalty",
    "KLAdaptiveLR",
    "KLControl",
    "KLEarlyStop",
    "KLSpec",
    "PIDPenalty",
    "kl_control",
    "kl_controls",
]

KLSpec = bool | str | Mapping[str, Any] | KLControl


def kl_control(spec: KLSpec | None) -> KLControl | None:
    """The control that a specification stands for: None or False for none, True for ``"pid"``.

    Raises:
        ArgumentError: If it is none of these.
        ConfigError: For an unknown name or argument.
    """
    if spec is None or isinstance(spec, bool):
        return PIDPenalty() if spec else None
    if not isinstance(spec, str | Mapping | KLControl):
        raise ArgumentError(f"kl_penalty={spec!r}: give True, one of {sorted(kl_controls)}, or a mapping with 'kind'.")
    return kl_controls.build(spec)
