"""What a run is to do, and how its agent learns and leaves its records."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import RunConfig
from everlearn.environments.build import evaluation_environment
from everlearn.ppo.algorithm import PPO
from everlearn.report import Display, EvaluationRecord
from everlearn.runs.checkpointing import CheckpointWriter, checkpoint_store
from everlearn.runs.directory import RunDirectory
from everlearn.runs.following import ScheduleFollower
from everlearn.runs.interruption import Abandoned, Interruption
from everlearn.runs.periodic import PeriodicEvaluation
from everlearn.runs.recording import (
    Episode,
    EpisodeRecorder,
    LogPositions,
    ProgressReporter,
    Stopper,
    episodes_in,
    metric_logger,
)
from everlearn.runs.time_limit import TimeLimit
from everlearn.runs.writing import LineFile


@dataclass(frozen=True)
class Learning:
    """What training did: environment steps, seconds, the episodes that ended, the best evaluation."""

    steps: int
    seconds: float
    episodes: list[Episode]
    best: EvaluationRecord | None


@dataclass(frozen=True)
class Order:
    """What a run is to do: its resolved configuration, where, how it is watched, and when it is to stop.

    Attributes:
        config: Every setting.
        directory: The run's.
        display: Shows the progress.
        callbacks: The user's.
        interruption: Signals that have come.
        time_limit: When training ends.
        positions: How much stays of each log, by name; empty for a new run.
        continued: Whether training goes on from a checkpoint.
        extend: By how many environment steps, beyond those that it was for.
    """

    config: RunConfig
    directory: RunDirectory
    display: Display
    callbacks: list[BaseCallback]
    interruption: Interruption
    time_limit: TimeLimit
    positions: Mapping[str, int] = field(default_factory=dict)
    continued: bool = False
    extend: int = 0

    def stopped(self) -> bool:
        """Whether training is to end."""
        return self.interruption.requested() or self.time_limit.over()

    def stopped_by(self, steps: int) -> str | None:
        """What ended training after so many steps; None if it came to its end."""
        if self.interruption.signal is not None:
            return self.interruption.signal.name
        if steps >= self.config.total_timesteps:
            return None
        return "time limit" if self.time_limit.over() else "callback"


def learn(agent: PPO, order: Order) -> Learning:
    """Train, and save the agent whatever ends the training."""
    config, directory = order.config, order.directory
    with ExitStack() as stack:
        metrics = _log(directory.progress_jsonl, order)  # which its logger closes
        agent.set_logger(metric_logger(directory, tensorboard=config.logging.tensorboard, lines=metrics))
        stack.callback(agent.logger.close)  # after the agent is saved: a full disk refuses small files' last lines too
        episodes = stack.enter_context(closing(_log(directory.episodes, order)))
        recorder = EpisodeRecorder(episodes, episodes_in(directory.episodes))
        evaluation = _periodic_evaluation(order, stack)
        reporter = ProgressReporter(
            order.display,
            recorder,
            config.total_timesteps,
            config.algorithm.stats_window_size,
            lambda: evaluation.last_mean if evaluation else None,
        )
        store, score = checkpoint_store(directory, config.checkpoint), evaluation.score_now if evaluation else None
        checkpoints = CheckpointWriter(config.checkpoint, store, order.display, score, order.stopped)
        logs = [metrics, episodes, *([evaluation.file] if evaluation else [])]
        watching = [checkpoints, reporter, Stopper(order.stopped)]
        following = [ScheduleFollower(config.hyperparameter_schedule)] if config.hyperparameter_schedule else []
        ours = [LogPositions(logs), *following, recorder, *([evaluation] if evaluation else []), *watching]
        order.interruption.may_abandon = lambda: agent.is_stepping
        try:
            _train(agent, order, CallbackList([*ours, *order.callbacks]))
        finally:
            order.interruption.may_abandon = lambda: False
            agent.set_logger(Logger(None, []))
            checkpoints.write_after_failure()
            agent.save(directory.model)
    return Learning(agent.saved_steps, reporter.seconds, recorder.episodes, evaluation.best if evaluation else None)


def _train(agent: PPO, order: Order, callbacks: CallbackList) -> None:
    try:
        if order.continued:
            agent.continue_learning(callbacks, order.extend, order.config.logging.interval)
        else:
            agent.learn(order.config.total_timesteps, callbacks, order.config.logging.interval)
    except Abandoned:
        order.display.announce(
            "Interrupted while the environments were at work: the agent is saved as before the rollout."
        )


def _log(path: Path, order: Order) -> LineFile:
    return LineFile(path, order.positions.get(path.name, sys.maxsize if order.continued else 0))


def _periodic_evaluation(order: Order, stack: ExitStack) -> PeriodicEvaluation | None:
    config = order.config.evaluation
    if not config.every:
        return None

    def environments(statistics: dict[str, Any] | None) -> VecEnv:
        return evaluation_environment(order.config.env, config.n_envs, config.seed or 0, statistics)

    rows = stack.enter_context(closing(_log(order.directory.evaluations, order)))
    callback = PeriodicEvaluation(config, environments, rows, order.stopped)
    stack.callback(callback.close)
    return callback
