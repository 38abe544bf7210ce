"""A training run from its configuration to its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import RunConfig, dump
from everlearn.environments.build import reward_threshold, training_environment
from everlearn.environments.evaluation import random_policy
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.algorithm import PPO
from everlearn.report import Display, Silent, Summary, draw_learning_curve
from everlearn.train.building import build_agent, resolved, thread_count
from everlearn.train.directory import RunDirectory, claim, claim_next
from everlearn.train.evaluating import play, policy_of
from everlearn.train.interruption import Interruption
from everlearn.train.recording import Episode, EpisodeRecorder, ProgressReporter, Stopper, metric_logger

_EVALUATION_SEED = 10_000  # added to the run's seed, so that evaluation never replays training's first episodes


@dataclass(frozen=True)
class Run:
    """A finished (or stopped) run.

    Attributes:
        directory: Its files.
        model: The agent.
        summary: What was learned.
    """

    directory: RunDirectory
    model: PPO
    summary: Summary


@dataclass(frozen=True)
class _Learning:
    """What training did: environment steps, seconds, and the episodes that ended."""

    steps: int
    seconds: float
    episodes: list[Episode]


def train(
    config: RunConfig, out: Path | None = None, *, overwrite: bool = False, display: Display | None = None
) -> Run:
    """Train an agent, compare it with a random policy and leave everything in a directory.

    The first SIGINT or SIGTERM ends training after the current step; the agent is saved all the same.

    Args:
        config: What to do.
        out: The run's directory; None takes the next free ``runs/ENVIRONMENT-ALGORITHM-n``.
        overwrite: Replace an earlier run in ``out``.
        display: Shows the progress; None shows nothing.

    Raises:
        ConfigError: If the configuration does not fit the environment, or ``out`` is taken.
        NonFiniteError: If a NaN or an infinity appears; the agent as it was then is saved.
    """
    with closing(training_environment(config.env, config.algorithm.gamma)) as venv:
        return _run(config, venv, out, overwrite=overwrite, display=display or Silent())


def _run(config: RunConfig, venv: VecEnv, out: Path | None, *, overwrite: bool, display: Display) -> Run:
    config, seed = resolved(config, venv)
    agent = build_agent(config, venv)
    directory = _claimed(config, out, overwrite=overwrite)
    directory.config.write_text(dump(config), encoding="utf-8")
    display.announce(_headline(config, agent, directory))
    with Interruption() as interruption, _threads(thread_count(config, agent)):
        play_on = partial(play, config.env, seed=seed + _EVALUATION_SEED, stopped=interruption.requested)
        baseline = play_on(lambda fresh: random_policy(fresh, seed), config.logging.baseline_episodes)
        learning = _learn(agent, config, directory, display, interruption.requested)
        statistics = venv.state_dict() if isinstance(venv, Normaliser) else None
        evaluation = play_on(
            lambda _: policy_of(agent), config.logging.evaluation_episodes, normaliser_state=statistics
        )
    summary = Summary(
        directory=directory.path,
        environment=config.env.id,
        algorithm=config.algorithm.name,
        seed=seed,
        steps=learning.steps,
        seconds=learning.seconds,
        returns=[episode.ret for episode in learning.episodes],
        evaluation=evaluation,
        baseline=baseline,
        reward_threshold=reward_threshold(venv),
        stopped_by=interruption.signal,
    )
    draw_learning_curve(directory.learning_curve, [episode.env_step for episode in learning.episodes], summary)
    return Run(directory, agent, summary)


def _claimed(config: RunConfig, out: Path | None, *, overwrite: bool) -> RunDirectory:
    if out is not None:
        return claim(out, overwrite=overwrite)
    return claim_next(Path("runs"), f"{config.env.id}-{config.algorithm.name}")


def _headline(config: RunConfig, agent: PPO, directory: RunDirectory) -> str:
    normalised = "normalised, " if config.env.normalize.enabled else ""
    return (
        f"Training {config.algorithm.name} on {config.env.id} ({config.env.n_envs} environments, {normalised}"
        f"seed {config.seed}, {agent.device}) in {directory.path}"
    )


def _learn(
    agent: PPO, config: RunConfig, directory: RunDirectory, display: Display, stopped: Callable[[], bool]
) -> _Learning:
    """Train, and save the agent whatever ends the training."""
    logger = metric_logger(directory, tensorboard=config.logging.tensorboard)
    agent.set_logger(logger)
    with directory.episodes.open("w", buffering=1, encoding="utf-8", newline="") as file:
        recorder = EpisodeRecorder(file)
        reporter = ProgressReporter(display, recorder, config.total_timesteps, config.algorithm.stats_window_size)
        try:
            callbacks = CallbackList([recorder, reporter, Stopper(stopped)])
            agent.learn(config.total_timesteps, callbacks, log_interval=config.logging.interval)
        finally:
            logger.close()
            agent.set_logger(Logger(None, []))
            agent.save(directory.model)
    return _Learning(agent.num_timesteps, reporter.seconds, recorder.episodes)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
