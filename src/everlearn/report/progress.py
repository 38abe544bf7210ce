"""How a run is watched: a live bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from everlearn.report.wording import duration, number


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        steps: Environment steps taken.
        total: Environment steps asked for.
        seconds: Time since training began.
        mean_return: Mean return of the last episodes; None before the first has ended.
        evaluated: Mean return of the last evaluation; None before the first, or without evaluation.
    """

    steps: int
    total: int
    seconds: float
    mean_return: float | None
    evaluated: float | None = None

    @property
    def fraction(self) -> float:
        """The share that is done, at most 1."""
        return min(1.0, self.steps / self.total)

    @property
    def speed(self) -> float:
        """Environment steps per second since training began."""
        return self.steps / max(self.seconds, 1e-9)

    @property
    def remaining(self) -> float:
        """Seconds still to go at this speed."""
        return max(0, self.total - self.steps) / max(self.speed, 1e-9)

    def words(self) -> str:
        """Returns, speed and remaining time in one phrase."""
        reached = "no episode yet" if self.mean_return is None else f"return {number(self.mean_return)}"
        evaluated = "" if self.evaluated is None else f"  evaluated {number(self.evaluated)}"
        return f"{reached}  {number(self.speed)} steps/s  {duration(self.remaining)} left{evaluated}"


class Display(ABC):
    """Shows a run while it goes on; ``close`` ends it whatever happened."""

    @abstractmethod
    def announce(self, text: str) -> None:
        """Show one line about what happens now."""

    @abstractmethod
    def update(self, progress: Progress) -> None:
        """Show how far training is; called several times a second."""

    @abstractmethod
    def close(self) -> None:
        """Leave the terminal as it was."""


@final
class Silent(Display):
    """Shows nothing."""

    def announce(self, text: str) -> None:
        """Show nothing."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to close."""


@final
class Lines(Display):
    """Plain lines for a log file or a pipe: one per twentieth of the run, and at least one a minute.

    Args:
        console: Where to print.
    """

    _LINES = 20
    _SHORTEST, _LONGEST = 2.0, 60.0  # seconds between two lines

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = Progress(0, 1, 0.0, None)

    def announce(self, text: str) -> None:
        """Print the text."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Print a line if it is time for one."""
        waited = progress.seconds - self._last.seconds
        advanced = int(progress.fraction * self._LINES) > int(self._last.fraction * self._LINES)
        if waited < self._SHORTEST or not (advanced or waited >= self._LONGEST):
            return
        self._last = progress
        self.announce(f"{progress.steps:>11,} / {progress.total:,} steps  {progress.words()}")

    def close(self) -> None:
        """Nothing to close."""


@final
class LiveBar(Display):
    """A bar that moves, for a terminal.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} % "),
            _Words(),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("training", total=1.0, words="", visible=False)

    def announce(self, text: str) -> None:
        """Print the text above the bar."""
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        self._bar.start()
        self._bar.update(self._task, completed=progress.fraction, words=progress.words(), visible=True)

    def close(self) -> None:
        """Stop the bar where it is."""
        self._bar.stop()


class _Words(ProgressColumn):
    """The phrase beside the bar."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["words"], style="cyan", no_wrap=True)


def display_for(console: Console, quiet: bool) -> Display:
    """The display that suits the console."""
    if quiet:
        return Silent()
    return LiveBar(console) if console.is_terminal else Lines(console)
