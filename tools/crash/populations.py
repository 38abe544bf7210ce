"""Kills of a population's controller: a new process goes on with it each time, until it ends as if it were undisturbed.

Every second population is trained in the controller itself, the others in workers. A controller is killed at a random
time, or before an operation, those first at which there were fewest kills; with workers sometimes alone, so that they
have to end by themselves, and sometimes together with them.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everlearn.checkpoint.files import DRAFT
from everlearn.core.errors import ConfigError, EverlearnError
from everlearn.population.files import file_problem
from everlearn.population.segments import plain_result
from everlearn.population.store import FILE, Journal, PopulationStore
from everlearn.population.trainer import replayed
from tools.crash.controller import KINDS, control, outcome, population, rules_of, undisturbed
from tools.crash.kills import Fork
from tools.crash.writer import READY

_KILLS = 5
"""Of the controllers of one population; then it is left in peace."""
_LONGEST = {False: 0.2, True: 1.5}
"""Seconds that a controller without or with workers may live at most where it is killed at a random time."""
_PATIENCE = 10.0
"""Seconds in which workers that are left alone have to end."""
_ONCE = ("journal:make", "journal:make done", "journal:begin", "journal:begin done")
_AGAIN = ("journal:results", "journal:results done", "journal:generation", "journal:generation done", "prune:remove")
_WRITING = tuple(f"save:{name}" for name in ("create", "write", "fsync", "close", "replace", "directory"))
"""Operations of a controller: those at the beginning, those that come again and again, those that write a member."""


@dataclass
class Tally:
    """What has been done, and what came of it.

    Attributes:
        populations: Populations that were trained to their end.
        at_random: Kills at random times.
        at_points: Kills before each operation.
        alone: Kills of a controller that left workers behind.
        together: Kills of a controller together with its workers.
        lost: What was lost, or came out differently.
    """

    populations: int = 0
    at_random: int = 0
    at_points: Counter[str] = field(default_factory=Counter)
    alone: int = 0
    together: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """All of them."""
        return self.at_random + self.at_points.total()

    def plain(self) -> dict[str, Any]:
        """As the results have it."""
        return {
            "kills": self.kills,
            "populations": self.populations,
            "at_random": self.at_random,
            "at_points": dict(sorted(self.at_points.items())),
            "workers_left_alone": self.alone,
            "workers_killed_too": self.together,
            "lost": len(self.lost),
            "losses": self.lost,
        }


def kill_controllers(number: int) -> dict[str, Any]:
    """So many kills, and then every population to its end.

    Returns:
        The figures.
    """
    start, tally = time.monotonic(), Tally()
    while tally.kills < number:
        with tempfile.TemporaryDirectory() as folder:
            Victim(Path(folder), tally).live(min(_KILLS, number - tally.kills))
        tally.populations += 1
        print(f"{tally.kills} of {number} kills of populations, {len(tally.lost)} losses", flush=True)
    return {**tally.plain(), "seconds": round(time.monotonic() - start, 1)}


class Victim:
    """A population whose controllers are killed.

    Args:
        directory: Where; empty at first.
        tally: What was done to those before it.
    """

    def __init__(self, directory: Path, tally: Tally) -> None:
        self._directory, self._tally = directory, tally
        self._has_workers = bool(tally.populations % 2)
        self._kind = tally.populations // 2 % len(KINDS)
        self._generator = random.Random(tally.populations)
        self._journal: Journal | None = None

    def live(self, kills: int) -> None:
        """Train it to its end, while so many controllers are killed on the way, unless it ends before."""
        last = self._tally.kills + kills
        code: int | None = -signal.SIGKILL
        while self._tally.kills < last and code == -signal.SIGKILL:
            code = self._killed_at_point() if (last - self._tally.kills) % 2 else self._killed_at_random()
            self._note(self._problems_of_journal())
        if code == -signal.SIGKILL:
            code = self._run()
        self._note([f"the last controller has ended with {code}"] if code else self._differences())

    def _killed_at_point(self) -> int | None:
        """Have a controller kill itself before the operation that is least known; returns how it has ended."""
        known = _ONCE if self._journal is None else (*_AGAIN, *(() if self._has_workers else _WRITING))
        point = min(known, key=lambda each: self._tally.at_points[each])
        code = self._run(point, 0 if self._journal is None else self._generator.randrange(4))
        if code == -signal.SIGKILL:
            self._tally.at_points[point] += 1
            self._tally.alone += self._has_workers
        return code

    def _killed_at_random(self) -> int | None:
        """Kill a controller, every second time with all of its workers; returns how it has ended."""
        together = self._has_workers and self._generator.random() < 0.5
        code = self._run(lifetime=self._generator.uniform(0, _LONGEST[self._has_workers]), together=together)
        if code == -signal.SIGKILL:
            self._tally.at_random += 1
            self._tally.together += together
            self._tally.alone += self._has_workers and not together
        return code

    def _run(
        self, point: str = "", skipped: int = 0, lifetime: float | None = None, together: bool = False
    ) -> int | None:
        """A controller from its beginning to its end, whichever it is."""
        heard, said = os.pipe()
        arguments = (self._directory, self._kind, self._has_workers, said, point, skipped)
        process = Fork.Process(target=control, args=arguments)
        process.start()
        os.close(said)
        with os.fdopen(heard, "rb") as pipe:
            ready = pipe.readline() == READY
        process.join(lifetime)
        if process.exitcode is None and ready:
            if together:
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
        process.join()
        self._note(left_alone(process.pid or 0))
        return process.exitcode

    def _note(self, problems: list[str]) -> None:
        self._tally.lost += [f"population {self._tally.populations}, {self._tally.kills} kills: {x}" for x in problems]

    def _problems_of_journal(self) -> list[str]:
        """What of the journal is lost since the last look, and which files that its members need."""
        before = self._journal
        try:
            with closing(PopulationStore(self._directory / FILE, read_only=True)) as store:
                self._journal = journal = store.read()
            if journal is None:
                return [] if before is None else ["the journal is empty"]
            standing = replayed(rules_of(self._kind), journal)[0]
        except ConfigError:  # killed before there was a journal
            return [] if before is None else ["the journal is gone"]
        except EverlearnError as error:
            return [f"the journal cannot be read: {error}"]
        places = standing.places.values()
        needed = [each for place in places for each in (place.checkpoint, place.copy and place.copy.checkpoint) if each]
        problems = [problem for each in needed if (problem := file_problem(self._directory, each)) is not None]
        return [*problems, *([] if before is None else _lost(before, journal))]

    def _differences(self) -> list[str]:
        """What has come out differently, and what is left over."""
        trainer = population(self._directory, self._kind)
        names = {path.name for path in self._directory.iterdir()}
        strange = {name for name in names if name.startswith(("member-", DRAFT))} ^ trainer.population.needed()
        problems = [f"{name} is left over, or is missing" for name in sorted(strange)]
        if not trainer.population.is_over:
            problems.append("it has not come to its end")
        expected = undisturbed(self._kind)
        differing = [(a, b) for a, b in zip(outcome(trainer), expected, strict=False) if a != b]
        if len(outcome(trainer)) != len(expected):
            problems.append(f"{len(outcome(trainer))} decisions and scores instead of {len(expected)}")
        return [*problems, *(f"{found} instead of {wanted}" for found, wanted in differing[:1])]


def _lost(before: Journal, after: Journal) -> list[str]:
    """What was committed and is not there any more, or is different."""
    problems = []
    for number, results in before.results.items():
        kept = after.results.get(number, ())[: len(results)]
        if [plain_result(each) for each in kept] != [plain_result(each) for each in results]:
            problems.append(f"results of generation {number} are lost, or were entered again")
    if list(after.generations[: len(before.generations)]) != list(before.generations):
        problems.append("decisions are lost, or were made again")
    return problems


def left_alone(session: int) -> list[str]:
    """Processes of a controller's session that have not ended by themselves; they are ended now."""
    end = time.monotonic() + _PATIENCE
    while (alive := _alive(session)) and time.monotonic() < end:
        time.sleep(0.01)
    for process in alive:
        os.kill(process, signal.SIGKILL)
    return [f"process {process} has outlived its controller" for process in alive]


def _alive(session: int) -> list[int]:
    """The processes of a session, as the system lists them; those that are dead and not yet buried do not count."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number, *_ = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if int(number) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
