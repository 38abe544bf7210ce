"""What of a source's parameters reaches the member that takes it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from everlearn.core.errors import StateError
from everlearn.optim.noise import KINDS, make_stream
from everlearn.population.parameter_files import OPTIMIZER, POLICY

_WEIGHTS = (POLICY, "value_scale", "normaliser")
"""Parts without which the weights mean something else."""
_NOISE = "noise"


def for_copy(
    parameters: Mapping[str, Any],
    copied: Literal["everything", "weights"],
    optimizer: Literal["copy", "reset"],
    seed: int,
) -> dict[str, Any]:
    """The parameters as the copy gets them: what was asked for, with a stream of random numbers of its own.

    Args:
        parameters: The source's.
        copied: ``everything``, or the ``weights`` with what gives them their meaning. Tensors without parts are all
            weights.
        optimizer: ``reset`` leaves out the optimizer's state, so that the caller makes a new one.
        seed: Of the copy's private streams: no two members draw the same noise.
    """
    if POLICY not in parameters:
        return dict(parameters)
    if copied == "weights":
        return {name: state for name, state in parameters.items() if name in _WEIGHTS}
    taken = {name: state for name, state in parameters.items() if optimizer == "copy" or name != OPTIMIZER}
    return {name: with_own_noise(state, seed) if name == OPTIMIZER else state for name, state in taken.items()}


def with_own_noise(state: Any, seed: int) -> Any:
    """An optimizer's state whose noise, if it has some, begins anew by another seed."""
    if not isinstance(state, Mapping) or _NOISE not in state:
        return state
    noise = state[_NOISE]
    kind = noise.get("kind") if isinstance(noise, Mapping) else None
    if kind not in KINDS:
        raise StateError(
            f"{OPTIMIZER}.{_NOISE} is no state of a stream of noise: {noise!r:.100}. Save the optimizer again."
        )
    return {**state, _NOISE: make_stream(kind, seed).state_dict()}
