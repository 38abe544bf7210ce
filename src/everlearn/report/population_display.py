"""How a population is watched: a table that moves on a terminal, a line for each generation elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from everlearn.population.decided import Decided
from everlearn.population.members import MemberId
from everlearn.population.population import Population
from everlearn.population.segments import Result
from everlearn.population.trainer import Watcher
from everlearn.report.population_output import diverted
from everlearn.report.population_pace import Pace, PopulationProgress, Tally
from everlearn.report.population_rows import (
    MemberRow,
    exploit_words,
    hyperparams_before,
    is_finished,
    last_line,
    median_score,
    member_rows,
)
from everlearn.report.population_table import Segments, member_table
from everlearn.report.wording import number

_MOST_EXPLOITS = 5
"""Exploits that one line tells."""


class PopulationDisplay(Watcher, ABC):
    """Shows a population while it is trained; ``close`` ends it whatever happened."""

    @abstractmethod
    def beat(self, member_id: MemberId, updates: int) -> None:
        """Show how many training updates of a segment are done; called up to many times a second."""

    @abstractmethod
    def announce(self, text: str) -> None:
        """Show one line about what happens now."""

    @abstractmethod
    def close(self) -> None:
        """Leave the terminal as it was; may be called twice."""


@final
class SilentPopulation(PopulationDisplay):
    """Shows nothing."""

    def beat(self, member_id: MemberId, updates: int) -> None:
        """Show nothing."""

    def announce(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to close."""


@final
class PopulationLines(PopulationDisplay):
    """Plain lines for a log file or a pipe: one for each generation, and one a minute while nothing else happens.

    Args:
        console: Where to print.
    """

    _LONGEST = 60.0  # seconds between two lines

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace: Pace | None = None
        self._tally: Tally | None = None
        self._updates: dict[MemberId, int] = {}
        self._failed: list[str] = []
        self._last = 0.0

    def announce(self, text: str) -> None:
        """Print the text."""
        self._last = time.monotonic()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def began(self, population: Population, seconds: float) -> None:
        """Begin to measure."""
        self._pace, self._last = Pace(population), time.monotonic()
        self._failed = _failures([*population.results.values()])
        self._tally, self._updates = Tally.of(population), {}

    def beat(self, member_id: MemberId, updates: int) -> None:
        """Print a line if nothing was printed for long."""
        self._updates[member_id] = updates
        if self._pace is not None and self._tally is not None and time.monotonic() - self._last > self._LONGEST:
            progress = self._pace.progress(self._tally, self._updates)
            words = (f"{progress.title}: {progress.fraction:.0%} of all updates", progress.pace_words())
            self.announce("  ".join(filter(None, words)))

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Remember it for the line; the last generation, which nothing is decided in, has its line at once."""
        self._failed += _failures(results)
        self._tally = Tally.of(population)
        for result in results:
            self._updates.pop(result.member_id, None)
        if is_finished(population):
            self._generation(population, Tally.of(population), [])

    def decided(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        """Print a line: best, median, who took over whom, who failed."""
        self._generation(population, self._tally or Tally.of(population), _exploits(population, decided))
        self._tally, self._updates, self._failed = Tally.of(population), {}, []

    def close(self) -> None:
        """Nothing to close."""

    def _generation(self, population: Population, tally: Tally, exploits: Sequence[str]) -> None:
        assert self._pace is not None  # training has begun
        progress, median = self._pace.progress(tally, {}), median_score(population)
        told = [progress.best_words() or "no score", *([] if median is None else [f"median {number(median)}"])]
        more = [f"and {len(exploits) - _MOST_EXPLOITS} more"] if len(exploits) > _MOST_EXPLOITS else []
        parts = [
            ", ".join(told),
            progress.pace_words(),
            ", ".join([*exploits[:_MOST_EXPLOITS], *more]),
            *([f"failed: {', '.join(self._failed)}"] if self._failed else []),
        ]
        self.announce(f"{progress.title}: {'; '.join(filter(None, parts))}")


@final
class LivePopulation(PopulationDisplay):
    """A table that moves, for a terminal; what others print meanwhile appears above it.

    Args:
        console: The terminal.
    """

    _MOST = 16  # members shown
    _AROUND = 8  # lines beside those of the members

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace: Pace | None = None
        self._view: _View | None = None
        self._open = ExitStack()
        # The table goes to its own thread as one object that nobody changes but for the numbers of updates in it.
        self._live = Live(
            console=console,
            get_renderable=self.drawn,
            refresh_per_second=3,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

    def announce(self, text: str) -> None:
        """Print the text above the table."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def began(self, population: Population, seconds: float) -> None:
        """Show the table."""
        self._pace = Pace(population)
        self._view = _View(population, {})
        self._open.enter_context(self._live)
        self._open.enter_context(diverted(self._console))

    def beat(self, member_id: MemberId, updates: int) -> None:
        """Move a bar."""
        if self._view is not None:
            self._view.updates[member_id] = updates

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Show what came of segments; of those that failed there is a line above."""
        updates = {} if self._view is None else self._view.updates
        for result in results:
            updates.pop(result.member_id, None)
        self._view = _View(population, updates)
        for result in results:
            if result.error is not None:
                where = f"member {result.member_id} has failed in generation {result.generation + 1}"
                self.announce(f"{where}: {last_line(result.error)}")

    def decided(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        """Show the next generation."""
        self._view = _View(population, {})

    def drawn(self) -> Group | str:
        """The table as it is now; also for the thread that draws."""
        view, pace = self._view, self._pace
        if view is None or pace is None:
            return ""
        updates = dict(view.updates)
        most = max(3, min(self._MOST, self._console.height - self._AROUND))
        segments = Segments(view.tally.segment, updates)
        table = member_table(view.rows, self._console.width, view.mode, most=most, segments=segments)
        return Group("", table, "", _caption(pace.progress(view.tally, updates)))

    def close(self) -> None:
        """Take the table away: what comes next tells it all again."""
        self._open.close()


@final
class _View:
    """What the table shows of a population at a moment.

    Args:
        population: At that moment; it is read here and not kept.
        updates: Training updates of the segments that are not over; they go on.
    """

    def __init__(self, population: Population, updates: dict[MemberId, int]) -> None:
        self.rows: tuple[MemberRow, ...] = member_rows(population)
        self.mode = population.config.metric_mode
        self.tally = Tally.of(population)
        self.updates = updates


def population_display_for(console: Console, quiet: bool) -> PopulationDisplay:
    """The display that suits the console."""
    if quiet:
        return SilentPopulation()
    return LivePopulation(console) if console.is_terminal else PopulationLines(console)


def _caption(progress: PopulationProgress) -> Text:
    words = (progress.title, progress.pace_words(), progress.best_words())
    return Text("  ".join(filter(None, words)), style="cyan")


def _exploits(population: Population, decided: Sequence[Decided]) -> list[str]:
    events = [each.event for each in decided if each.event.source_id is not None]
    return [exploit_words(event, hyperparams_before(population, event)) for event in events]


def _failures(results: Sequence[Result]) -> list[str]:
    return [f"{each.member_id} ({last_line(each.error)})" for each in results if each.error is not None]
