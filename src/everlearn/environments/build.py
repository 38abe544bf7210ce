"""Vector environments from a configuration: one for training, one for evaluation."""

from __future__ import annotations

import difflib
import importlib.util
import logging
import warnings
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled
from gymnasium.error import Error as GymnasiumError
from stable_baselines3.common.vec_env import VecEnv

from everlearn.core.errors import ConfigError, MissingExtraError
from everlearn.environments.finite import FiniteSubprocessVecEnv, FiniteVecEnv
from everlearn.environments.normaliser import Normaliser
from everlearn.environments.recorded import Recorded
from everlearn.environments.snapshots import is_known
from everlearn.environments.spaces import check_spaces, is_continuous_control
from everlearn.environments.spec import EnvConfig
from everlearn.environments.wrappers import Env, check_wrappers, wrapped, wrappers

_logger = logging.getLogger(__name__)

MARKET = "everlearn/Market-v0"
"""A ``MarketEnv``, imported when it is made."""
if MARKET not in gymnasium.registry:
    gymnasium.register(MARKET, "everlearn.markets.market_env:MarketEnv")


def training_environment(config: EnvConfig, gamma: float) -> VecEnv:
    """The environments to learn in: monitored, gated, and normalised where the configuration says so.

    Args:
        config: What to build.
        gamma: The algorithm's discount, used to scale rewards.

    Raises:
        ConfigError: For an unknown id, argument, wrapper, or a space that no agent here can use.
        MissingExtraError: If the simulator is not installed.
    """
    venv = _simulations(config, config.n_envs)
    if not normalises(config, venv):
        return venv
    settings = config.normalize.model_dump(exclude={"enabled"})
    try:
        return Normaliser(venv, gamma=gamma, **settings)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"env.normalize: the observations of '{config.id}' cannot be normalised: {error}. "
            "Set norm_obs to false, or norm_obs_keys to keys with Box observations."
        ) from error


def evaluation_environment(
    config: EnvConfig, n_envs: int, seed: int, normaliser_state: Mapping[str, Any] | None = None
) -> VecEnv:
    """Fresh environments to evaluate in: true rewards, observations as the agent was trained to see them.

    Args:
        config: What to build; its number of environments and its normalisation are not used.
        n_envs: Number of environments.
        seed: Seeds the first episodes; environment i has ``seed + i``.
        normaliser_state: The training normaliser's ``state_dict()``; None if there was none.
    """
    venv = _simulations(config, n_envs)
    venv.seed(seed)
    return venv if normaliser_state is None else Normaliser.from_state(venv, normaliser_state)


def normalises(config: EnvConfig, venv: VecEnv) -> bool:
    """What ``normalize: auto`` means for this environment; otherwise what the configuration says."""
    enabled = config.normalize.enabled
    return is_continuous_control(venv.observation_space, venv.action_space) if enabled == "auto" else enabled


def reward_threshold(env_id: str) -> float | None:
    """The mean return at which the environment's authors call it solved, where they say so."""
    return gymnasium.registry[env_id].reward_threshold


def _simulations(config: EnvConfig, n_envs: int) -> VecEnv:
    check_id(config.id)
    check_wrappers(config.wrappers)
    _quieten_mujoco(config.id)
    names = [spec if isinstance(spec, str) else spec["kind"] for spec in config.wrappers]
    make = partial(_made, config, gymnasium.registry[config.id], {name: wrappers[name] for name in names})
    venv = FiniteVecEnv([make] * n_envs) if config.engine == "synchronous" else FiniteSubprocessVecEnv([make] * n_envs)
    check_spaces(config.id, venv.observation_space, venv.action_space)
    return venv


def check_id(env_id: str) -> None:
    """Refuse an id that nothing is registered under, or that would import a module.

    Raises:
        ConfigError: With similar ids, if there are any.
    """
    if ":" in env_id:
        raise ConfigError(
            f"env.id: '{env_id}' would import a module. Name the module on the command line instead: "
            f"--import {env_id.partition(':')[0]} --env {env_id.partition(':')[2]}"
        )
    if env_id not in gymnasium.registry:
        close = difflib.get_close_matches(env_id, gymnasium.registry, n=3, cutoff=0.6)
        known = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(
            f"env.id: there is no environment '{env_id}'.{known} "
            "If a module of yours registers it, name that module with --import MODULE, or under plugins: in the file."
        )


def _made(config: EnvConfig, spec: EnvSpec, named: Mapping[str, Any]) -> Env:
    """An environment with its wrappers, also in a process that has not imported what registered them."""
    gymnasium.registry.setdefault(spec.id, spec)
    for name, wrapper in named.items():
        wrappers.add(name, wrapper)
    _quieten_mujoco(config.id)
    env = _make(config)
    return wrapped(env if is_known(env) else Recorded(env), config.wrappers)


def _make(config: EnvConfig) -> Env:
    """Row 33 of the failure modes: what an environment's modules do to the filters of warnings is undone."""
    filters = list(warnings.filters)
    try:
        return gymnasium.make(config.id, **config.kwargs)
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        raise _missing_dependency(config.id, error) from error
    except ImportError as error:  # gymnasium's way to say that an environment has moved out of it
        raise ConfigError(f"env.id: '{config.id}' cannot be made: {error}") from error
    except TypeError as error:
        raise ConfigError(f"env.kwargs: {error}. Remove or rename the argument.") from error
    except (AssertionError, ValueError) as error:
        raise ConfigError(
            f"env.kwargs: '{config.id}' cannot be made with {config.kwargs}: {error}. Change the arguments."
        ) from error
    except GymnasiumError as error:
        raise ConfigError(f"env.id: '{config.id}' cannot be made: {error}") from error
    finally:
        warnings.filters[:] = filters  # type: ignore[index]


def _missing_dependency(env_id: str, error: Exception) -> Exception:
    if _is_mujoco(env_id):
        return MissingExtraError(f"The environment '{env_id}'", "mujoco", "mujoco")
    return ConfigError(f"env.id: '{env_id}' needs a package that is not installed: {error}")


def _is_mujoco(env_id: str) -> bool:
    return "mujoco" in str(gymnasium.registry[env_id].entry_point)


def _quieten_mujoco(env_id: str) -> None:
    """Send MuJoCo's warnings to logging, each once: by itself it would write a file where one stands."""
    if _is_mujoco(env_id) and importlib.util.find_spec("mujoco"):
        importlib.import_module("mujoco").set_mju_user_warning(_log_mujoco_warning)


@cache
def _log_mujoco_warning(text: str) -> None:
    level = logging.INFO if "deprecated" in text else logging.WARNING
    _logger.log(level, "MuJoCo: %s", text)
