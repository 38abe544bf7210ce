"""Whether an environment does what it says, looked at in its first steps."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from gymnasium import spaces

from everlearn.core.errors import EverlearnError

FIRST_STEPS = 10
"""After a reset of all: an environment that has conformed so often is trusted."""


def require_conforming(
    environment: int, space: spaces.Space[Any], outcome: tuple[Any, Any, Any, Any, Any], step: int
) -> None:
    """Refuse what would be cast, broadcast or misread without a word; row 32 of the failure modes.

    Args:
        environment: Its index.
        space: Of its observations.
        outcome: What its ``step`` returned.
        step: Which step it was.

    Raises:
        EverlearnError: Naming the environment, the step, and what it returned.
    """
    observation, reward, terminated, truncated, info = outcome
    problem = _problem(observation, space, "observation")
    if problem is None and not (isinstance(reward, Real | np.number) or np.shape(reward) == ()):
        problem = f"the reward {reward!r:.100}, which is no number"
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if problem is None and not isinstance(flag, bool | np.bool_):
            problem = f"{name}={flag!r:.100}, which is neither True nor False"
    if problem is None and not isinstance(info, dict):
        problem = f"the info {info!r:.100}, which is no dictionary"
    if problem is not None:
        raise EverlearnError(f"Environment {environment} returned at its step {step} {problem}. Correct it.")


def _problem(observation: Any, space: spaces.Space[Any], name: str) -> str | None:
    """What is wrong with an observation; None if nothing is."""
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or space.spaces.keys() - observation.keys():
            return f"an {name} that lacks one of the keys {sorted(space.spaces)}"
        parts = (_problem(observation[key], part, f"{name} '{key}'") for key, part in space.spaces.items())
        return next((part for part in parts if part is not None), None)
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete):
        return None
    if np.shape(observation) != (space.shape or ()):
        return f"an {name} of the shape {np.shape(observation)}, where its space has {space.shape}"
    kind = np.asarray(observation).dtype.kind
    if kind not in "biuf" or (kind == "f" and space.dtype is not None and np.dtype(space.dtype).kind in "iub"):
        return f"an {name} of {np.asarray(observation).dtype}, where its space has {space.dtype}"
    return None
