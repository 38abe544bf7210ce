"""Evaluation while an agent trains, which training must not notice."""

from __future__ import annotations

import csv
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import EvaluationConfig
from everlearn.core.rng import GlobalGenerators
from everlearn.environments.evaluation import Evaluation, evaluate
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.algorithm import PPO
from everlearn.report import EvaluationRecord
from everlearn.runs.evaluating import policy_of
from everlearn.runs.writing import LineFile


class PeriodicEvaluation(BaseCallback):
    """Plays episodes between rollouts, records them and knows the best agent; training goes on as if it had not.

    The environments are their own; observations are normalised with the training's statistics as they are at that
    moment, which the evaluation does not move. All global generators are put back afterwards. Every evaluation
    plays the same episodes, as far as the seed decides them, so that agents are compared on equal terms.

    Args:
        config: How often, how many episodes; ``seed`` decided.
        make_environment: Makes the environments from the state of the training's normaliser, None if it has none.
        file: Where to record, as CSV.
        stopped: Asked at every step; True abandons an evaluation.

    Attributes:
        file: Where records go.
        records: All evaluations.
        best: The best of them.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        make_environment: Callable[[dict[str, Any] | None], VecEnv],
        file: LineFile,
        stopped: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.records: list[EvaluationRecord] = []
        self.best: EvaluationRecord | None = None
        self._config, self._make_environment = config, make_environment
        self._stopped = stopped
        self.file = file
        self._rows = csv.writer(file, lineterminator="\n")
        if not file.size:
            self._rows.writerow(EvaluationRecord._fields)
        self._venv: VecEnv | None = None
        self._next = config.every
        self._start = time.monotonic()

    @property
    def last_mean(self) -> float | None:
        """Mean return of the last evaluation; None before the first."""
        return self.records[-1].mean_reward if self.records else None

    def score_now(self) -> float | None:
        """Mean return of an evaluation of the agent as it is at this step; None without one, or if no episode ended."""
        last = self.records[-1] if self.records else None
        return last.mean_reward if last and last.env_step == self.num_timesteps and last.episodes else None

    def state_dict(self) -> dict[str, Any]:
        """The records, which of them is the best, and when the next evaluation is due."""
        best = None if self.best is None else self.records.index(self.best)
        return {"records": [list(record) for record in self.records], "best": best, "next": self._next}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.records = [EvaluationRecord(*record) for record in state_dict["records"]]
        self.best = None if state_dict["best"] is None else self.records[state_dict["best"]]
        self._next = state_dict["next"]

    def close(self) -> None:
        """Close the environments."""
        if self._venv is not None:
            self._venv.close()

    def _on_training_start(self) -> None:
        self._start = time.monotonic()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self._next = (self.num_timesteps // self._config.every + 1) * self._config.every
            self._evaluate()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        """The agent at the end is evaluated too: it may be the best."""
        if not self.records or self.records[-1].env_step < self.num_timesteps:
            self._evaluate()
        self.logger.dump(self.num_timesteps)

    def _evaluate(self) -> None:
        agent = self.model
        assert isinstance(agent, PPO)
        with unnoticed(agent):
            played = self._played(agent)
        if len(played.returns) < self._config.episodes and self._stopped():
            return
        record = self._recorded(played)
        for name in ("mean_reward", "std_reward", "mean_ep_length"):
            self.logger.record(f"eval/{name}", getattr(record, name))
        if played.returns and (self.best is None or record.mean_reward >= self.best.mean_reward):
            self.best = record

    def _played(self, agent: PPO) -> Evaluation:
        """Episodes of the evaluation's own seed; only inside ``unnoticed``, because global generators are seeded."""
        seed = self._config.seed or 0
        statistics = agent.normaliser_state
        if self._venv is None:
            self._venv = self._make_environment(statistics)
        elif statistics is not None and isinstance(self._venv, Normaliser):
            self._venv.load_state_dict(statistics)
        self._venv.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed)
        policy = policy_of(agent, deterministic=self._config.deterministic)
        return evaluate(policy, self._venv, self._config.episodes, stopped=self._stopped)

    def _recorded(self, played: Evaluation) -> EvaluationRecord:
        seconds = round(time.monotonic() - self._start, 3)
        figures = (math.nan, math.nan, math.nan)
        if played.returns:
            figures = (played.mean, played.std, float(np.mean(played.lengths)))
        record = EvaluationRecord(self.num_timesteps, *figures, len(played.returns), seconds)
        self.records.append(record)
        self._rows.writerow(record)
        return record


@contextmanager
def unnoticed(agent: PPO) -> Iterator[None]:
    """The global generators and the policy's mode afterwards are what they were before."""
    generators = GlobalGenerators()
    before, training = generators.state_dict(), agent.policy.training
    try:
        yield
    finally:
        generators.load_state_dict(before)
        agent.policy.set_training_mode(training)
