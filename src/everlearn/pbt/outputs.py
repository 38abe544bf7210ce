"""What a population leaves besides its journal: logs, pictures, its best member; all of it made from the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from everlearn.checkpoint.files import write_file
from everlearn.config import RunConfig
from everlearn.pbt.logs import PopulationLogs
from everlearn.population.decided import Decided
from everlearn.population.files import file_problem
from everlearn.population.members import MemberId
from everlearn.population.population import Population
from everlearn.population.segments import Checkpoint, Result
from everlearn.population.store import PopulationStore
from everlearn.population.trainer import Watcher
from everlearn.report.lineage_figures import draw_lineage
from everlearn.report.population_display import PopulationDisplay
from everlearn.report.population_figures import draw_schedules, draw_scores
from everlearn.runs.directory import RunDirectory
from everlearn.runs.writing import writing


@final
class Outputs(Watcher):
    """Writes down what happens to a population, and shows it.

    Args:
        directory: The population's.
        config: Every setting.
        store: The journal.
        display: Shows the progress.
    """

    def __init__(
        self, directory: RunDirectory, config: RunConfig, store: PopulationStore, display: PopulationDisplay
    ) -> None:
        self._directory, self._config, self._display = directory, config, display
        self._kept: Checkpoint | None = None
        self._logs = PopulationLogs(directory.path, store, tensorboard=config.logging.tensorboard)

    def beat(self, member_id: MemberId, updates: int) -> None:
        """A member has done so many updates of its segment."""
        self._display.beat(member_id, updates)

    def began(self, population: Population, seconds: float) -> None:
        """Begin the logs, anew from the journal."""
        self._logs.began(population, seconds)
        self._display.began(population, seconds)

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Log what has come of segments."""
        self._logs.reported(population, results)
        self._display.reported(population, results)

    def decided(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        """Log what was decided."""
        self._logs.decided(population, decided, seconds)
        self._display.decided(population, decided, seconds)

        self._keep_best(population)

    def ended(self, population: Population, seconds: float) -> None:
        """Draw the pictures, and close the logs."""
        self._keep_best(population)
        self._logs.ended(population, seconds)
        self._display.ended(population, seconds)
        for name, draw in _DRAWN.items():
            with writing(self._directory.path):
                draw(self._directory.picture(name), population)

    def _keep_best(self, population: Population) -> None:
        """Put the best member where models are; as long as there is none, whatever is there stays."""
        best = population.best()
        checkpoint = None if best is None else population.places[best.member_id].checkpoint
        if checkpoint is None or checkpoint == self._kept:
            return
        problem = file_problem(self._directory.members, checkpoint)
        if problem is not None:
            name = self._directory.model.name
            self._display.announce(f"warning: {name} stays as it is, for the best member's state is lost: {problem}.")
            return
        write_file(self._directory.model, [(self._directory.members / checkpoint.name).read_bytes()])
        self._kept = checkpoint


_DRAWN = {"lineage": draw_lineage, "schedules": draw_schedules, "scores": draw_scores}
