"""How a population is watched: a table that moves on a terminal, a line for each generation elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
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
    member_row,
    member_rows,
    with_best,
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
        self._population: Population | None = None
        self._tally: Tally | None = None  # of the beginning or the end of a generation
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
        self._population, self._tally, self._updates = population, Tally.of(population), {}

    def beat(self, member_id: MemberId, updates: int) -> None:
        """Print a line if nothing was printed for long."""
        self._updates[member_id] = updates
        is_time = time.monotonic() - self._last > self._LONGEST
        if is_time and self._pace is not None and self._population is not None:
            progress = self._pace.progress(Tally.of(self._population), self._updates)
            words = (f"{progress.title}: {progress.fraction:.0%} of all updates", progress.pace_words())
            self.announce("  ".join(filter(None, words)))

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Remember it for the line; the last generation, which nothing is decided in, has its line at once."""
        self._failed += _failures(results)
        for result in results:
            self._updates.pop(result.member_id, None)
        if len(population.results) == len(population.members):
            self._tally = Tally.of(population)
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
        # The table goes to its own thread as one object in which only whole rows and numbers of updates are replaced.
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
        self._view = _View(population)
        self._open.enter_context(self._live)
        self._open.enter_context(diverted(self._console))

    def beat(self, member_id: MemberId, updates: int) -> None:
        """Move a bar."""
        if self._view is not None:
            self._view.updates[member_id] = updates

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Show what came of segments; of those that failed there is a line above."""
        if self._view is not None:
            self._view.reported(population, results)
        for result in results:
            if result.error is not None:
                where = f"member {result.member_id} has failed in generation {result.generation + 1}"
                self.announce(f"{where}: {last_line(result.error)}")

    def decided(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        """Show the next generation."""
        self._view = _View(population)

    def drawn(self) -> Group | str:
        """The table as it is now; also for the thread that draws."""
        view, pace = self._view, self._pace
        if view is None or pace is None:
            return ""
        updates = dict(view.updates)
        most = max(3, min(self._MOST, self._console.height - self._AROUND))
        rows = view.rows()
        tally = view.tally(rows)
        segments = Segments(tally.segment, updates)
        table = member_table(rows, self._console.width, view.mode, most=most, segments=segments)
        return Group("", table, "", _caption(pace.progress(tally, updates)))

    def close(self) -> None:
        """Take the table away: what comes next tells it all again."""
        self._open.close()


@final
class _View:
    """What the table shows of a generation.

    When members have reported their rows alone are made anew: so many as a population has would take longer than all
    else that a result costs. What follows from all of them is found when the table is drawn.

    Args:
        population: At the beginning of the generation, or within; it is read here and not kept.

    Attributes:
        mode: Whether higher or lower is better.
        updates: Training updates of the segments that are not over.
    """

    def __init__(self, population: Population) -> None:
        self.mode = population.config.metric_mode
        self.updates: dict[MemberId, int] = {}
        self._rows = {row.member_id: row for row in member_rows(population)}
        self._tally = Tally.of(population)
        self._earlier = self._tally.behind - self._tally.segment * len(population.results)  # of other generations

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Show what came of segments."""
        for result in results:
            self._rows[result.member_id] = member_row(population, population.ledger.member(result.member_id))
            self.updates.pop(result.member_id, None)

    def rows(self) -> tuple[MemberRow, ...]:
        """All members, in their order."""
        return with_best(tuple(self._rows.values()), self.mode)

    def tally(self, rows: Sequence[MemberRow]) -> Tally:
        """How far the population is with these rows."""
        best = next((row for row in rows if row.is_best), None)
        return replace(
            self._tally,
            behind=self._earlier + self._tally.segment * sum(row.state != "open" for row in rows),
            env_steps=sum(row.env_steps for row in rows),
            best=None if best is None or best.score is None else (best.score, best.member_id),
        )


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
