"""From a configuration to an agent: everything that was left open is decided here, once."""

from __future__ import annotations

import secrets
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import AlgorithmConfig, PolicyConfig, RunConfig
from everlearn.environments.build import normalises
from everlearn.environments.spaces import check_policy, policy_for
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.vocabulary import activations
from everlearn.runs.checking import check_device, checked_mappings
from everlearn.runs.names import algorithms

_ROLLOUT = 2048  # steps per update, shared by the environments: SB3's n_steps, for one environment
EVALUATION_SEED = 10_000  # added to the run's seed, so that evaluation never replays training's first episodes
_SMALL = 1_000_000  # parameters up to which one thread is faster than several


def resolved(config: RunConfig, venv: VecEnv) -> tuple[RunConfig, int]:
    """The configuration with all that it left open decided: policy, rollout, normalisation, seed, our defaults.

    Args:
        config: What the user asked for.
        venv: The environments that were built from it.

    Returns:
        That configuration, and its seed.
    """
    seed = secrets.randbits(31) if config.seed is None else config.seed
    given, env = config.algorithm, config.env
    name = algorithms.canonical(given.name, "algorithm.name")
    defaults = vars(algorithms[name].defaults)
    algorithm = {key: value for key, value in defaults.items() if getattr(given, key) is None}
    algorithm |= {
        "name": name,
        "policy": given.policy or policy_for(venv.observation_space),
        "n_steps": given.n_steps or max(2, _ROLLOUT // env.n_envs),
    }
    normalize = env.normalize.model_copy(update={"enabled": normalises(env, venv)})
    evaluation_seed = (seed + EVALUATION_SEED) % 2**32 if config.evaluation.seed is None else config.evaluation.seed
    sections = {
        "algorithm": given.model_copy(update=algorithm),
        "env": env.model_copy(update={"normalize": normalize}),
        "evaluation": config.evaluation.model_copy(update={"seed": evaluation_seed}),
    }
    return config.model_copy(update={**sections, "seed": seed}), seed


def build_agent(config: RunConfig, venv: VecEnv) -> PPO:
    """The agent of a resolved configuration.

    Raises:
        ConfigError: For options that do not fit the environment's spaces, or an unknown name.
    """
    algorithm = config.algorithm
    policy = algorithm.policy or policy_for(venv.observation_space)
    check_policy(policy, venv.observation_space, venv.action_space, use_sde=algorithm.use_sde)
    return algorithms[algorithm.name](
        policy,
        venv,
        seed=config.seed,
        device=device_of(config),
        **constructor_arguments(algorithm, policy),
    )


def constructor_arguments(config: AlgorithmConfig, policy: str) -> dict[str, Any]:
    """What is set of the algorithm's section, in the constructor's own types; what is None is left to the class.

    Raises:
        ConfigError: For options that what they are for does not have.
    """
    arguments = config.model_dump(exclude={"name", "policy", "policy_kwargs"}, exclude_none=True)
    return arguments | checked_mappings(config, policy) | {"policy_kwargs": _policy_arguments(config.policy_kwargs)}


def thread_count(config: RunConfig, agent: PPO) -> int:
    """Threads for torch: what the configuration says, or one for a small network."""
    if config.runtime.threads != "auto":
        return config.runtime.threads
    size = sum(parameter.numel() for parameter in agent.policy.parameters())
    return 1 if size <= _SMALL else torch.get_num_threads()


def _policy_arguments(config: PolicyConfig) -> dict[str, Any]:
    arguments = config.model_dump(exclude_none=True)
    if config.activation_fn is not None:
        where = "algorithm.policy_kwargs.activation_fn"
        arguments["activation_fn"] = activations[activations.canonical(config.activation_fn, where)]
    return arguments


def device_of(config: RunConfig) -> str:
    """Where a resolved configuration computes: ``auto`` is the GPU for images only; for small networks it is slower."""
    device = config.runtime.device
    if device == "auto":
        return "auto" if config.algorithm.policy == "CnnPolicy" else "cpu"
    check_device(device, "runtime.device")
    return device
