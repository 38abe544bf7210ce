"""Playing episodes with a saved agent."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import AlgorithmConfig, RunConfig, load
from everlearn.core.errors import ConfigError
from everlearn.environments.build import evaluation_environment
from everlearn.environments.evaluation import Evaluation, evaluate
from everlearn.environments.spec import EnvConfig
from everlearn.ppo.algorithm import PPO
from everlearn.train.building import algorithms
from everlearn.train.directory import RunDirectory
from everlearn.train.running import policy_of

_ENVIRONMENTS = 8


def evaluate_saved(
    path: Path,
    *,
    episodes: int = 10,
    deterministic: bool = True,
    env_id: str | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> tuple[str, Evaluation]:
    """Run episodes with the agent of a run, or of a model file.

    Args:
        path: A run's directory, or a model file; beside it the run's ``config.yaml`` names the environment.
        episodes: How many.
        deterministic: Take the most likely action instead of sampling.
        env_id: Another environment than the run's.
        seed: Seeds environments and sampling.
        device: Where to compute.

    Returns:
        The id of the environment, and the episodes.

    Raises:
        ConfigError: If there is no model, or the environment is unknown or has other spaces.
    """
    directory = RunDirectory(path) if path.is_dir() else RunDirectory(path.parent)
    model = directory.model if path.is_dir() else path
    if not model.is_file():
        raise ConfigError(f"{model}: there is no such model. Name a run's directory or a model file.")
    config = load(directory.config) if directory.config.is_file() else None
    env = _environment(model, config, env_id)
    algorithm = AlgorithmConfig() if config is None else config.algorithm
    agent = algorithms[algorithm.name].load(model, device=device)
    agent.set_random_seed(seed)
    with closing(evaluation_environment(env, min(episodes, _ENVIRONMENTS), seed, agent.normaliser_state)) as venv:
        _check_spaces(agent, venv, env.id)
        return env.id, evaluate(policy_of(agent, deterministic=deterministic), venv, episodes)


def _environment(model: Path, config: RunConfig | None, env_id: str | None) -> EnvConfig:
    if config is not None and env_id in (None, config.env.id):
        return config.env
    if env_id is None:
        raise ConfigError(f"{model}: no config.yaml beside it names the environment. Give --env ID.")
    return EnvConfig(id=env_id)


def _check_spaces(agent: PPO, venv: VecEnv, env_id: str) -> None:
    for kind, trained, found in (
        ("observations", agent.observation_space, venv.observation_space),
        ("actions", agent.action_space, venv.action_space),
    ):
        if trained != found:
            raise ConfigError(
                f"--env: the agent was trained with {kind} of {trained}; '{env_id}' has {found}. "
                "Evaluate it in an environment with the same spaces."
            )
