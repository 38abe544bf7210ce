"""The journal of a population: what was trained and decided, one transaction at a time.

Whatever was committed is never done again; whatever was not is done again and comes to the same. A file that a member's
state is in is durable before the transaction that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from everlearn.checkpoint import strict_json
from everlearn.population.journal_database import LARGEST, JournalDatabase, sealed
from everlearn.population.members import score_of
from everlearn.population.segments import Result, plain_result, result_from

FILE = "population.sqlite"
_DEPTH = 16


@dataclass(frozen=True)
class Generation:
    """A generation that has been decided.

    Args:
        number: Of the generation.
        seconds: Time that training has taken up to here.
        generator: State of the population's generator after its decisions.
        decisions: What was decided about each member, as plain data.
    """

    number: int
    seconds: float
    generator: Mapping[str, Any]
    decisions: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Journal:
    """All that a population has done.

    Args:
        about: Seed, members and generator at the beginning, rules, as plain data.
        results: Of the segments, by generation, in the order in which they came in.
        generations: Those that have been decided.
        failures: Segments of generations in which all had failed, and which were trained again.
        seconds: Time that training has taken up to the last of all these.
    """

    about: Mapping[str, Any]
    results: Mapping[int, Sequence[Result]] = field(default_factory=dict)
    generations: Sequence[Generation] = ()
    failures: Sequence[Result] = ()
    seconds: float = 0.0


@final
class PopulationStore:
    """The journal of a population; one process writes it, others may read meanwhile.

    Args:
        path: The file; made if it is missing.
        read_only: Only look; the file has to be there.

    Raises:
        ConfigError: If there is none to look at.
        StateError: If it is damaged, or of another kind.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._database = JournalDatabase(path, read_only=read_only)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def begin(self, about: Mapping[str, Any]) -> None:
        """Enter a new population.

        Args:
            about: What it begins with, as plain data; nothing of it changes afterwards.
        """
        rows = [sealed(name, _text(value)) for name, value in about.items()]
        with self._database.transaction("begin") as connection:
            connection.executemany("INSERT INTO about VALUES (?, ?, ?)", rows)

    def commit_results(self, results: Sequence[Result], seconds: float = 0.0) -> None:
        """Enter what came of some segments, all of it or nothing; a segment that is there already stays as it is.

        Args:
            results: Of these segments.
            seconds: Time that training has taken up to here.
        """
        rows = [
            (each.generation, _text(each.member_id), each.step, score_of(each.performance, "max"), *row)
            for each, row in ((each, sealed(float(seconds), _text(plain_result(each)))) for each in results)
        ]
        with self._database.transaction("results") as connection:
            connection.executemany("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def commit_generation(self, generation: Generation) -> None:
        """Enter what was decided about all members, and with it the generator's state; all of it or nothing.

        Raises:
            OrderError: If it is decided already.
        """
        texts = _text(generation.generator), _text([*generation.decisions])
        row = sealed(generation.number, float(generation.seconds), *texts)
        with self._database.transaction("generation") as connection:
            connection.execute("INSERT INTO generations VALUES (?, ?, ?, ?, ?)", row)

    def forget_failures(self, generation: int) -> None:
        """Take back the segments of a generation in which all have failed, so that they are trained again."""
        moved = (
            "INSERT INTO failures (seconds, result, sha256) "
            "SELECT seconds, result, sha256 FROM segments WHERE generation = ? ORDER BY rowid"
        )
        with self._database.transaction("forget") as connection:
            connection.execute(moved, (generation,))
            connection.execute("DELETE FROM segments WHERE generation = ?", (generation,))

    def read(self) -> Journal | None:
        """All that is there at one moment; None before ``begin``.

        Raises:
            StateError: If something in it is damaged, or no such data.
        """
        with self._database.snapshot():
            about = {name: self._value(value) for name, value in self._database.rows("SELECT * FROM about")}
            generations = [
                Generation(number, seconds, self._value(generator), self._value(decisions))
                for number, seconds, generator, decisions in self._database.rows(
                    "SELECT * FROM generations ORDER BY generation"
                )
            ]
            segments, failures = self._results("segments"), self._results("failures")
        results: dict[int, list[Result]] = {}
        for _, result in segments:
            results.setdefault(result.generation, []).append(result)
        seconds = max((seconds for seconds, _ in (*segments, *failures)), default=0.0)
        return Journal(about, results, generations, [result for _, result in failures], seconds) if about else None

    def _results(self, table: str) -> list[tuple[float, Result]]:
        """The results in a table, each with the seconds that training had taken."""
        rows = self._database.rows(f"SELECT seconds, result, sha256 FROM {table} ORDER BY rowid")
        return [(seconds, result_from(self._value(result))) for seconds, result in rows]

    def _value(self, text: str) -> Any:
        return strict_json.loads(text.encode(), self.path, "", max_bytes=LARGEST, max_depth=_DEPTH)


def _text(value: Any) -> str:
    return strict_json.dumps(value).decode()
