"""Checkpoints of a training, which goes on when one of them cannot be written."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import safe_mean

from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.store import CheckpointStore, Retention
from everlearn.config import CheckpointConfig
from everlearn.core.stateful import Role
from everlearn.ppo.algorithm import PPO
from everlearn.report import Display
from everlearn.runs.directory import RunDirectory
from everlearn.runs.writing import writing

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 64
"""Rollouts from one failure to the next try, at most: a disk that has room again is found within these."""


def checkpoint_store(directory: RunDirectory, config: CheckpointConfig | None = None) -> CheckpointStore:
    """The store of a run; to write into it, with the rules of its configuration."""
    rules = config or CheckpointConfig()
    return CheckpointStore(directory.checkpoints, Retention(rules.keep_last, rules.keep_best, rules.keep_every))


class CheckpointWriter(BaseCallback):
    """Writes the agent with all of its state between rollouts: when it is due, when it is the best, and at the end.

    Row 14 of the failure modes: a checkpoint that cannot be written is a warning and is tried again after 1, 2, 4, ...,
    64, 64, ... rollouts; training stops with the error once so many in a row have failed as the configuration says.
    Row 13: an agent that is not finite is never written.

    Args:
        config: How often.
        store: Where to.
        display: Shows the warnings.
        score: Mean return of an evaluation of the agent as it is now, None if there was none just now; None instead of
            a function scores by the last training episodes.
        interrupted: Whether training is to end before its time, so that it may be resumed.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        store: CheckpointStore,
        display: Display,
        score: Callable[[], float | None] | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._interrupted = interrupted
        self._config, self._store, self._display, self._score = config, store, display, score
        self._next: float = config.every or math.inf
        self._best = -math.inf
        self._failures = 0
        self._pause = 0

    def _on_training_start(self) -> None:
        with writing(self._store.directory):
            self._store.sweep()

    def state_dict(self) -> dict[str, Any]:
        """When the next checkpoint is due, the best score, and failures."""
        return {"next": self._next, "best": self._best, "failures": self._failures, "pause": self._pause}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._next, self._best = state_dict["next"], state_dict["best"]
        self._failures, self._pause = state_dict["failures"], state_dict["pause"]

    def _on_rollout_start(self) -> None:
        if self._pause:
            self._pause -= 1
        elif self.num_timesteps >= self._next or self._is_best():
            try:
                self._write()
            except SaveError as error:
                self._count_failure(error)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        """The agent at the end gets one too: it holds more than the model file, and stands in for a damaged one."""
        if self._config.every or self._is_best() or self._interrupted():
            try:
                self._write()
            except SaveError as error:  # whether it is saved at all is decided by the model file, which comes next
                self._warn(f"{error} Training has ended; the agent itself is saved next.")

    def write_after_failure(self) -> None:
        """The emergency checkpoint: if an error has ended training while a rollout was collected, as before that.

        Whatever keeps it from being written is a warning: the error that ended training is what matters.
        """
        if self.model is None or not self.model.is_resumable:  # type: ignore[attr-defined]
            return
        try:
            self._write()
        except Exception as error:
            self._warn(f"{error} The last one before it stands.")

    def _is_best(self) -> bool:
        """Whether an evaluation has just found the agent to be the best so far, and the best are kept."""
        if self._score is None or not self._config.keep_best:
            return False
        score = self._score()
        return score is not None and score >= self._best

    def _write(self) -> None:
        agent = self.model
        assert isinstance(agent, PPO)
        step = agent.saved_steps if agent.is_resumable else self.num_timesteps
        members, about = agent.file_contents(tuple(Role))
        performance = self._performance()
        self._store.save(step, members, about, performance)
        self._failures = 0
        self._best = max(self._best, -math.inf if performance is None else performance)
        if self._config.every:
            self._next = (step // self._config.every + 1) * self._config.every

    def _performance(self) -> float | None:
        """What the agent is worth; None if nobody knows."""
        if self._score is not None:
            return self._score()
        episodes = getattr(self.model, "ep_info_buffer", None)
        return float(safe_mean([episode["r"] for episode in episodes])) if episodes else None

    def _count_failure(self, error: SaveError) -> None:
        """Say it and wait, or give up."""
        self._failures += 1
        if self._failures >= self._config.max_failures:
            error.add_note(f"This was failure {self._failures} in a row, so training stops (checkpoint.max_failures).")
            raise error
        self._pause = min(2 ** (self._failures - 1), _LONGEST_PAUSE) - 1
        rollouts = f"{self._pause + 1} rollouts" if self._pause else "one rollout"
        limit = self._config.max_failures
        self._warn(
            f"{error} Training goes on, and it is tried again in {rollouts}; after {limit} failures in a row it stops."
        )

    def _warn(self, problem: str) -> None:
        message = f"No checkpoint at step {self.num_timesteps}: {problem}"
        _log.warning("%s", message)
        self._display.announce(f"warning: {message}")
