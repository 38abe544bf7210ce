"""The wrappers that a configuration can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import wrappers as library
from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor

from everlearn.core.errors import ConfigError
from everlearn.core.registry import Registry

Env = gymnasium.Env[Any, Any]

wrappers: Registry[Any] = Registry("wrapper", runtime={"env"})

for _wrapper in (
    library.AtariPreprocessing,
    library.ClipAction,
    library.ClipReward,
    library.DelayObservation,
    library.DiscretizeAction,
    library.DiscretizeObservation,
    library.FilterObservation,
    library.FlattenObservation,
    library.FrameStackObservation,
    library.GrayscaleObservation,
    library.MaxAndSkipObservation,
    library.RepeatAction,
    library.ReshapeObservation,
    library.ResizeObservation,
    library.StickyAction,
    library.TimeAwareObservation,
    library.TimeLimit,
    AtariWrapper,
):
    wrappers.add(_wrapper.__name__, _wrapper)


@wrappers.register("RescaleAction")
class RescaleAction(library.RescaleAction[Any, Any]):
    """Actions in ``[min_action, max_action]``, mapped linearly to the bounds of the environment's own.

    Args:
        env: The environment, with finite bounds of its actions.
        min_action: Lower bound, one number or one per action.
        max_action: Upper bound, likewise.
    """

    def __init__(self, env: Env, min_action: float | list[float] = -1.0, max_action: float | list[float] = 1.0) -> None:
        shape = env.action_space.shape or ()
        super().__init__(env, np.full(shape, min_action, np.float32), np.full(shape, max_action, np.float32))


def check_wrappers(specs: Sequence[str | Mapping[str, Any]]) -> None:
    """Refuse what names no wrapper, or gives one an argument that it does not have.

    Raises:
        ConfigError: With the dotted path.
    """
    for index, spec in enumerate(specs):
        wrappers.check(spec, f"env.wrappers.{index}")


def wrapped(env: Env, specs: Sequence[str | Mapping[str, Any]]) -> Env:
    """``env`` inside the named wrappers and one ``Monitor``.

    The monitor counts episodes and their true returns: it stands outside of the last wrapper that ends
    episodes (``TimeLimit``) and inside of all that follow, because those change what the agent sees, not what
    it has earned.

    Raises:
        ConfigError: For an unknown wrapper or argument, or a wrapper that does not fit the environment.
    """
    check_wrappers(specs)
    limits = [index for index, spec in enumerate(specs) if _is_time_limit(spec)]
    inside = limits[-1] + 1 if limits else 0
    for spec in specs[:inside]:
        env = _applied(spec, env)
    env = Monitor(env)
    for spec in specs[inside:]:
        env = _applied(spec, env)
    return env


def _applied(spec: str | Mapping[str, Any], env: Env) -> Env:
    try:
        return cast(Env, wrappers.build(spec, env=env))
    except DependencyNotInstalled as error:
        raise ConfigError(f"env.wrappers: {spec} needs a package that is not installed: {error}") from error
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"env.wrappers: {spec} does not fit {env}: {error}. Change its arguments or remove it."
        ) from error


def _is_time_limit(spec: str | Mapping[str, Any]) -> bool:
    return wrappers[spec if isinstance(spec, str) else spec["kind"]] is library.TimeLimit
