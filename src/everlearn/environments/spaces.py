"""Which spaces an agent can use, and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from everlearn.core.errors import ConfigError

Space = spaces.Space[Any]

_FLAT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_spaces(env_id: str, observation: Space, action: Space) -> None:
    """Refuse what no policy here can read or act in.

    Raises:
        ConfigError: Naming the space and the wrapper that would help.
    """
    _check_observation(env_id, observation)
    _check_action(env_id, action)


def _check_observation(env_id: str, space: Space) -> None:
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    for key, part in parts.items():
        if not isinstance(part, _FLAT):
            where = f" under the key '{key}'" if key else ""
            raise ConfigError(
                f"env.id: '{env_id}' has observations of {part}{where}. Box, Discrete, MultiDiscrete, "
                "MultiBinary and one level of Dict can be used. "
                "Add the wrapper FlattenObservation to env.wrappers."
            )


def _check_action(env_id: str, space: Space) -> None:
    if not isinstance(space, _FLAT):
        raise ConfigError(
            f"env.id: '{env_id}' has actions of {space}. Box, Discrete, MultiDiscrete and MultiBinary "
            "can be used. Wrap the environment so that its actions are one of these."
        )
    if isinstance(space, spaces.Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ConfigError(
            f"env.id: '{env_id}' has unbounded actions, {space}. Give each a finite lower and upper bound."
        )
    if isinstance(space, spaces.Discrete) and space.start != 0:
        raise ConfigError(f"env.id: the actions of '{env_id}' start at {space.start}. Number them from 0 in a wrapper.")


def is_continuous_control(observation: Space, action: Space) -> bool:
    """Whether actions are continuous and every observation is a floating-point Box."""
    parts = observation.spaces.values() if isinstance(observation, spaces.Dict) else [observation]
    return isinstance(action, spaces.Box) and all(
        isinstance(part, spaces.Box) and np.issubdtype(part.dtype, np.floating) for part in parts
    )


def policy_for(observation: Space) -> str:
    """The name of the policy that reads these observations."""
    if isinstance(observation, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(observation) else "MlpPolicy"


def check_policy(policy: str, observation: Space, action: Space, *, use_sde: bool) -> None:
    """Refuse a policy that cannot read these observations, or act in this way.

    Raises:
        ConfigError: Naming the policy to use instead.
    """
    images = is_image_space(observation)
    fits = {"MultiInputPolicy": isinstance(observation, spaces.Dict), "CnnPolicy": images}
    if not fits.get(policy, not isinstance(observation, spaces.Dict)):
        raise ConfigError(
            f"algorithm.policy: {policy} cannot read observations of {observation}. Use {policy_for(observation)}."
        )
    if use_sde and not isinstance(action, spaces.Box):
        raise ConfigError(
            f"algorithm.use_sde: state-dependent exploration needs continuous actions; these are {action}. "
            "Set use_sde to false."
        )
