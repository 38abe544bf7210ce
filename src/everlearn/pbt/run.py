"""A population as an object: its configuration, its journal, its best member."""

from __future__ import annotations

from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import final

from everlearn.checkpoint.lock import is_written
from everlearn.config import RunConfig, require_imported
from everlearn.core.errors import ConfigError
from everlearn.pbt.rules import rules_of
from everlearn.population.config import PBTConfig
from everlearn.population.population import Population
from everlearn.population.store import Journal, PopulationStore
from everlearn.population.trainer import replayed
from everlearn.ppo.algorithm import PPO
from everlearn.report.population_summary import PopulationSummary, population_summary
from everlearn.runs.model_files import loaded_agent
from everlearn.runs.run import Run


@final
class PopulationRun:
    """A population that was trained, is trained or was interrupted.

    Args:
        path: Its directory.

    Attributes:
        directory: Its files.
        stopped_by: What has just ended its training early: a signal's name or ``"time limit"``.

    Raises:
        ConfigError: If there is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.directory = Run(path).directory
        self.stopped_by: str | None = None
        if self.config.population is None:
            raise ConfigError(f"{path}: this is no population. Name the directory that 'everlearn pbt' has made.")

    def __repr__(self) -> str:
        return f"PopulationRun({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The directory."""
        return self.directory.path

    @cached_property
    def config(self) -> RunConfig:
        """The configuration with every setting resolved."""
        return Run(self.path).config

    @cached_property
    def rules(self) -> PBTConfig:
        """By what its members are decided."""
        if self.config.population is None:
            raise ConfigError(f"{self.directory.config}: the section population is missing. Restore the file.")
        return rules_of(self.config.population)

    def journal(self) -> Journal:
        """All that it has done so far.

        Raises:
            ConfigError: If it has not begun.
            StateError: If it is damaged.
        """
        with closing(PopulationStore(self.directory.population, read_only=True)) as store:
            journal = store.read()
        if journal is None:
            raise ConfigError(f"{self.path}: the population has not begun. Train it again.")
        return journal

    def population(self) -> Population:
        """As it stands: members, where each is, and what was decided."""
        return replayed(self.rules, self.journal())[0]

    def summary(self) -> PopulationSummary:
        """How it stands, also while another process trains it."""
        journal, config = self.journal(), self.config
        return population_summary(
            replayed(self.rules, journal)[0],
            journal,
            directory=self.path,
            environment=config.env.id,
            algorithm=config.algorithm.name,
            seed=config.seed,
            is_training=self.stopped_by is None and is_written(self.path),
            stopped_by=self.stopped_by,
        )

    def load(self, *, device: str = "cpu") -> PPO:
        """The best member, as it was after the last generation that has been decided, or at the end.

        Args:
            device: Where it computes.

        Raises:
            ConfigError: If there is none yet, or the population's plug-ins have not been imported.
            CheckpointError: If the file is damaged.
        """
        require_imported(self.config.plugins, str(self.path))
        return loaded_agent(self.directory.model, device)
