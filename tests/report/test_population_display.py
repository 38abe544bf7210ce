import io
import logging
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from everlearn.population.trainer import Watcher
from everlearn.report import population_display, population_rows
from everlearn.report.population_display import (
    LivePopulation,
    PopulationDisplay,
    PopulationLines,
    SilentPopulation,
    population_display_for,
)
from everlearn.report.population_output import diverted
from everlearn.report.population_pace import Pace, PopulationProgress, Tally
from everlearn.report.population_rows import MemberRow, member_rows
from tests.report.toy_populations import STEPS, rules, trained

MISFORTUNES = {"1:0": "raise", "2:1": "nan"}
NOTHING = PopulationProgress(1, 1, 0.0, 0, None, None, None)


def pipe() -> Console:
    return Console(file=io.StringIO(), width=80)


def terminal(width: int = 100, height: int = 30) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(display: LivePopulation, width: int = 100, height: int = 30) -> str:
    """The table, on a terminal of its own."""
    console = terminal(width, height)
    console.print(display.drawn())
    return printed(console)


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("everlearn.report.population_pace.time", clock)
    monkeypatch.setattr("everlearn.report.population_display.time", clock)
    return clock


def watched(directory: Path, display: PopulationDisplay, size: int = 6) -> None:
    trained(directory, rules(size), 6, MISFORTUNES, watcher=display, beat=display.beat)


def test_the_display_suits_the_console() -> None:
    assert isinstance(population_display_for(terminal(), quiet=False), LivePopulation)
    assert isinstance(population_display_for(pipe(), quiet=False), PopulationLines)
    assert isinstance(population_display_for(terminal(), quiet=True), SilentPopulation)


def test_quiet_shows_nothing(tmp_path: Path, capsys) -> None:
    display = population_display_for(terminal(), quiet=True)
    display.announce("Training")
    watched(tmp_path, display)
    display.close()
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_a_line_for_each_generation(tmp_path: Path) -> None:
    console = pipe()
    watched(tmp_path, population_display_for(console, quiet=False))
    lines = printed(console).splitlines()
    assert [line.split(":")[0] for line in lines] == ["generation 1/3", "generation 2/3", "generation 3/3"]
    assert "1 <- " in lines[0]  # the member that has failed takes over another
    assert "(rate 0.275 -> " in lines[0]
    assert lines[0].endswith("; failed: 1 (ValueError: a misfortune)")
    assert "failed" not in lines[1] + lines[2]
    assert "<-" not in lines[2]  # nothing is decided at the end
    assert all(word in lines[2] for word in ("best ", "(member ", "median ", f"{(3 * 6 - 1) * 2 * STEPS:,} env steps"))


def test_many_exploits_are_counted_and_not_told(tmp_path: Path) -> None:
    console = pipe()
    trained(tmp_path, rules(40), 4, watcher=population_display_for(console, quiet=False))
    line = printed(console).splitlines()[0]
    assert line.count("<-") == 5
    assert line.endswith(", and 3 more")


def test_a_long_generation_has_a_line_a_minute(tmp_path: Path, clock: Clock) -> None:
    console = pipe()
    display = PopulationLines(console)

    def beat(member_id, updates) -> None:
        clock.now += 20.0
        display.beat(member_id, updates)

    trained(tmp_path, rules(6), 2, watcher=display, beat=beat)
    lines = printed(console).splitlines()
    assert len(lines) == 3 + 1  # in twelve updates of twenty seconds, and the generation's own
    assert lines[0].startswith("generation 1/1: 33% of all updates")
    assert "2 min 40 s left" in lines[0]


def test_speed_and_time_left_are_those_of_this_session(tmp_path: Path, clock: Clock) -> None:
    stop = iter([False] * 9 + [True])
    trainer = trained(tmp_path, rules(6), 6, stopped=lambda: next(stop))
    pace, clock.now = Pace(trainer.population), clock.now + 10.0
    progress = pace.progress(Tally.of(trainer.population), {4: 1})
    assert (progress.generation, progress.generations) == (2, 3)
    assert progress.fraction == pytest.approx((9 * 2 + 1) / 36)
    assert progress.env_steps == (9 * 2 + 1) * STEPS
    assert progress.speed == pytest.approx(STEPS / 10.0)
    assert progress.remaining == pytest.approx(17 * 10.0)


def test_before_anything_is_trained_nothing_is_said_of_speed(tmp_path: Path, clock: Clock) -> None:
    population = trained(tmp_path, rules(6), 6, stopped=lambda: True).population
    progress = Pace(population).progress(Tally.of(population), {})
    assert (progress.speed, progress.remaining, progress.best, progress.pace_words()) == (None, None, None, "")


def test_a_terminal_shows_a_table_and_is_left_in_order(tmp_path: Path) -> None:
    console = terminal()
    display = LivePopulation(console)
    shown: list[str] = []

    class Looking(Watcher):
        def began(self, *args) -> None:
            display.began(*args)

        def reported(self, *args) -> None:
            display.reported(*args)
            shown.append(drawn(display))

        def decided(self, *args) -> None:
            display.decided(*args)

    display.announce("Training [begins]")
    stderr = sys.stderr
    trained(tmp_path, rules(), 6, MISFORTUNES, watcher=Looking(), beat=display.beat)
    display.close()
    display.close()
    text = printed(console)
    assert sys.stderr is stderr
    assert "Training [begins]" in text
    assert "member 1 has failed in generation 1: ValueError: a misfortune" in text
    assert text.rstrip("\n").endswith("\x1b[2K")  # the table is gone
    assert "\x1b[?25h" in text  # the cursor is visible again
    assert ("generation 1/3" in shown[0], "generation 3/3" in shown[-1]) == (True, True)
    assert ("2/2" in shown[0], "waits" in shown[0], "waits" in shown[-1]) == (True, True, False)
    assert "best " in shown[-1]


@pytest.mark.parametrize("stops_after", [0, 7, 100])  # at the beginning, within a generation, never
def test_the_table_shows_the_population_as_it_is_after_every_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after: int
) -> None:
    shown, asked = [], iter(range(100))
    monkeypatch.setattr(population_display, "Live", lambda **options: nullcontext())  # its thread would draw besides
    monkeypatch.setattr(population_display, "member_table", lambda rows, *more, **other: shown.append(rows) or "")
    monkeypatch.setattr(Pace, "progress", lambda pace, tally, updates: shown.append(tally) or NOTHING)

    class Drawing(Watcher):
        def began(self, population, *more) -> None:
            display.began(population, *more)
            self.compare(population)

        def reported(self, population, *more) -> None:
            display.reported(population, *more)
            self.compare(population)

        def decided(self, population, *more) -> None:
            display.decided(population, *more)
            self.compare(population)

        def compare(self, population) -> None:
            shown.clear()
            display.drawn()
            assert [*map(repr, shown)] == [repr(member_rows(population)), repr(Tally.of(population))]
            best = population.best()
            assert [row.member_id for row in shown[0] if row.is_best] == ([] if best is None else [best.member_id])

    for stop in (lambda: next(asked) == stops_after, lambda: False):  # from the beginning, and resumed
        display = LivePopulation(terminal())
        trained(tmp_path, rules(), 6, MISFORTUNES, watcher=Drawing(), beat=display.beat, stopped=stop)
        display.close()


@pytest.mark.parametrize("kind", [LivePopulation, PopulationLines])
def test_a_result_costs_its_own_row_however_many_members_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[PopulationDisplay]
) -> None:
    looked, size, row, of = {"row": 0, "tally": 0}, 40, population_rows.member_row, Tally.of

    def counted_row(*given) -> MemberRow:
        looked["row"] += 1
        return row(*given)

    def counted_tally(population) -> Tally:
        looked["tally"] += 1
        return of(population)

    for module in (population_rows, population_display):
        monkeypatch.setattr(module, "member_row", counted_row)
    monkeypatch.setattr(Tally, "of", counted_tally)
    monkeypatch.setattr(population_display, "Live", lambda **options: nullcontext())
    display = kind(terminal())
    trained(tmp_path, rules(size), 6, watcher=display)
    display.close()
    assert looked["row"] <= 2 * 3 * size
    assert looked["tally"] <= 3 * 3


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (80, 10)])
def test_a_hundred_members_fit_on_the_terminal(tmp_path: Path, width: int, height: int) -> None:
    console = terminal(width, height)
    display = LivePopulation(console)
    stop = iter([False] * 30 + [True])
    trained(tmp_path, rules(100), 4, watcher=display, beat=display.beat, stopped=lambda: next(stop))
    lines = drawn(display, width, height).splitlines()
    display.close()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_log_lines_and_warnings_go_above_what_is_live_and_back_to_their_place_afterwards(capsys) -> None:
    console = terminal()
    handler, shown = logging.StreamHandler(sys.stderr), warnings.showwarning
    logging.getLogger().addHandler(handler)
    try:
        with diverted(console):
            logging.getLogger("everlearn").warning("a line")
            warnings.showwarning("a warning", UserWarning, "file.py", 1)
        logging.getLogger("everlearn").warning("another line")
    finally:
        logging.getLogger().removeHandler(handler)
    assert printed(console) == "a line\nwarning: a warning\n"
    assert capsys.readouterr().err == "another line\n"
    assert warnings.showwarning is shown
