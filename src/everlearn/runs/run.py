"""A run as an object: its configuration, its records, its agents."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import RunConfig, load, require_imported
from everlearn.core.errors import ConfigError, StateError
from everlearn.environments.build import evaluation_environment
from everlearn.ppo.algorithm import PPO
from everlearn.report import EvaluationRecord, Summary, summary_from
from everlearn.runs.checking import check_device
from everlearn.runs.directory import RunDirectory
from everlearn.runs.model_files import Which, loaded_agent, model_file
from everlearn.runs.recording import Episode

Table = dict[str, list[Any]]
"""Columns by name, all of one length: what ``pandas.DataFrame`` takes."""


@final
class Run:
    """A run, just trained or opened later.

    Args:
        path: Its directory.

    Raises:
        ConfigError: If there is no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.directory = RunDirectory(Path(path))
        if not self.directory.is_run():
            raise ConfigError(f"{path}: this is no run of everlearn. Name the directory that a training has made.")

    @classmethod
    def just_trained(cls, directory: RunDirectory, model: PPO, summary: Summary) -> Run:
        """The run whose agent and summary are in memory still."""
        run = cls(directory.path)
        run.model, run.summary = model, summary
        return run

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The directory."""
        return self.directory.path

    @cached_property
    def config(self) -> RunConfig:
        """The configuration with every setting resolved."""
        return load(self.directory.config)

    @cached_property
    def model(self) -> PPO:
        """The agent at the end of training."""
        return self.load("latest")

    @cached_property
    def summary(self) -> Summary:
        """What was learned.

        Raises:
            StateError: If the run has not ended, or the file is damaged.
        """
        file = self.directory.summary
        if not file.is_file():
            raise StateError(
                f"{file}: there is none. The run goes on still, or it was killed; progress() has the metrics."
            )
        try:
            return summary_from(json.loads(file.read_text("utf-8")), self.path, self.episodes()["return"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"{file}: it is damaged ({error!r}). Read progress() and episodes() instead.") from error

    def load(self, which: Which = "latest", *, device: str = "cpu") -> PPO:
        """A new agent from a model file, with the statistics that its observations are normalised by.

        ``agent.predict(agent.normalize_obs(observation))`` acts on an observation as the environment gives it.

        Args:
            which: ``"latest"``, as it was when training ended, and of a run that goes on or was killed the newest
                checkpoint that is whole, with a warning; or ``"best"``, the checkpoint with the highest score.
            device: Where it computes.

        Raises:
            ConfigError: If there is no such model or device, or the run's plug-ins have not been imported.
            CheckpointError: If all that there is is damaged.
        """
        check_device(device, "device")
        model = model_file(self.directory, which)
        require_imported(self.config.plugins, str(self.path))
        return loaded_agent(model, device)

    def environment(self, n_envs: int = 1, seed: int = 0, *, which: Which = "latest") -> VecEnv:
        """New environments of the run's kind, with true rewards and observations normalised as an agent expects them.

        Normalisation moves on during training, so name the agent that is to act: with ``run.load("best")`` belongs
        ``run.environment(which="best")``.

        Args:
            n_envs: How many, side by side.
            seed: Seeds the first episodes; environment i has ``seed + i``.
            which: Whose statistics: those of the ``"latest"`` agent, or of the ``"best"``.

        Raises:
            ConfigError: If there is no such model, or the run's plug-ins have not been imported.
            CheckpointError: If all that there is is damaged.
        """
        model = model_file(self.directory, which)
        require_imported(self.config.plugins, str(self.path))
        statistics = loaded_agent(model, "cpu").normaliser_state
        return evaluation_environment(self.config.env, n_envs, seed, statistics)

    def progress(self) -> Table:
        """The metrics by name, one entry per record, with ``step``; NaN where a record lacks one."""
        records = [json.loads(line) for line in _complete_lines(self.directory.progress_jsonl)]
        names = dict.fromkeys(name for record in records for name in record)
        return {name: [_number(record.get(name)) for record in records] for name in names}

    def episodes(self) -> Table:
        """The episodes of the training: ``env_step``, ``env``, ``return``, ``length``, ``seconds``."""
        return _columns(self.directory.episodes, [*Episode._fields], {"ret": "return"}, ("env_step", "env", "length"))

    def evaluations(self) -> Table:
        """The evaluations during training, with the columns of ``EvaluationRecord``; empty ones without any."""
        return _columns(self.directory.evaluations, [*EvaluationRecord._fields], {}, ("env_step", "episodes"))


def _columns(file: Path, fields: list[str], renamed: dict[str, str], whole: tuple[str, ...]) -> Table:
    rows = list(csv.DictReader(_complete_lines(file)))
    names = [renamed.get(field, field) for field in fields]
    return {name: [(int if name in whole else float)(row[name]) for row in rows] for name in names}


def _complete_lines(file: Path) -> Iterator[str]:
    """The lines of a file that may be missing; the last one is left out if it is still being written."""
    if file.is_file():
        lines = file.read_text("utf-8").splitlines(keepends=True)
        yield from (line for line in lines if line.endswith("\n"))


def _number(value: Any) -> Any:
    return math.nan if value is None else value
