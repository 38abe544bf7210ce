"""Playing episodes: with an agent in memory, with one that was saved, or with any policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from everlearn.checkpoint.files import is_directory
from everlearn.config import RunConfig, load, require_imported
from everlearn.core.errors import ConfigError
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.environments.build import evaluation_environment
from everlearn.environments.evaluation import Act, Evaluation, evaluate
from everlearn.environments.spec import EnvConfig
from everlearn.ppo.algorithm import PPO
from everlearn.runs.checking import check_device
from everlearn.runs.directory import RunDirectory
from everlearn.runs.model_files import Which, class_of, existing, loaded_agent, model_file

_ENVIRONMENTS = 8  # side by side


def play(
    env: EnvConfig,
    policy: Callable[[VecEnv], Act],
    episodes: int,
    *,
    seed: int,
    normaliser_state: Mapping[str, Any] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Episodes in fresh environments; None if none are asked for, or ``stopped`` before the first.

    Args:
        env: The environments.
        policy: Makes the policy for the environments that were built.
        episodes: How many.
        seed: Seeds the environments.
        normaliser_state: The training normaliser's statistics, if it had one.
        stopped: Asked at every step; True ends the episodes early.
    """
    if not episodes or stopped():
        return None
    n_envs = min(episodes, _ENVIRONMENTS)
    with closing(evaluation_environment(env, n_envs, seed, normaliser_state)) as venv:
        return evaluate(policy(venv), venv, episodes, stopped=stopped)


def policy_of(agent: PPO, *, deterministic: bool = True) -> Act:
    """The agent's policy as a function from observations to actions."""
    return lambda observations: agent.predict(observations, deterministic=deterministic)[0]


def evaluate_saved(
    path: Path,
    *,
    which: Which = "latest",
    episodes: int = 10,
    deterministic: bool = True,
    env_id: str | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[str, Evaluation]:
    """Run episodes with the agent of a run, or of a model file.

    Args:
        path: A run's directory, or a model file, whose suffix ``.zip`` may be left out; the ``config.yaml`` of the run
            that it is in names the environment.
        which: Of a run, the ``"latest"`` agent or the ``"best"``; of a model file there is one.
        episodes: How many, at least one.
        deterministic: Take the most likely action instead of sampling.
        env_id: Another environment than the run's.
        seed: Seeds environments and sampling.
        device: Where to compute.

    Returns:
        The id of the environment, and the episodes.

    Raises:
        ConfigError: If there is no model or device, or the environment is unknown or has other spaces.
        CheckpointError: If the file is no model, or damaged.
        StateError: If it cannot be read.
    """
    keep_compiled_code_private()
    check_device(device, "device")
    of_run = is_directory(path)
    path = path if of_run else existing(path)
    if which != "latest" and not of_run:
        raise ConfigError(f"{path}: a file has one agent, which is neither. Name a run's directory for its best.")
    directory = run_of(path)
    if not (directory.model.is_file() or directory.config.is_file()) and any(path.glob("step-*.zip")):
        raise ConfigError(
            f"{path}: this is a directory of checkpoints. Name the run above it, {path.resolve().parent}, or one of "
            "its files with --env ID (env_id in Python)."
        )
    model = model_file(directory, which) if of_run else path
    class_of(model)  # before its environment is asked for
    config = load(directory.config) if directory.config.is_file() else None
    if config is not None:
        require_imported(config.plugins, str(path))
    env = _environment(model, config, env_id)
    agent = loaded_agent(model, device)
    _check_spaces(agent, env)
    agent.set_random_seed(seed)
    policy = policy_of(agent, deterministic=deterministic)
    played = play(env, lambda _: policy, episodes, seed=seed, normaliser_state=agent.normaliser_state)
    return env.id, played or Evaluation([], [])


def run_of(path: Path) -> RunDirectory:
    """The run that a path is: itself a directory, a file in one, or one of its checkpoints."""
    if path.is_dir():
        return RunDirectory(path)
    above = RunDirectory(path.parent.parent)
    return above if path.parent == above.checkpoints else RunDirectory(path.parent)


def _environment(model: Path, config: RunConfig | None, env_id: str | None) -> EnvConfig:
    if config is not None and env_id in (None, config.env.id):
        return config.env
    if env_id is None:
        raise ConfigError(f"{model}: no config.yaml beside it names the environment. Give --env ID (env_id in Python).")
    return EnvConfig(id=env_id)


def _check_spaces(agent: PPO, env: EnvConfig) -> None:
    with closing(evaluation_environment(env, 1, seed=0)) as venv:
        found = {"observations": venv.observation_space, "actions": venv.action_space}
    trained = {"observations": agent.observation_space, "actions": agent.action_space}
    for kind, space in trained.items():
        if found[kind] != space:
            raise ConfigError(
                f"--env: the agent was trained with {kind} of {space}; '{env.id}' has {found[kind]}. "
                "Evaluate it in an environment with the same spaces."
            )
