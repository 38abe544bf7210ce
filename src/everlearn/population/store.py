"""The journal of a population: what was trained and decided, one transaction at a time, in an SQLite database.

Whatever was committed is never done again; whatever was not is done again and comes to the same. A file that a member's
state is in is durable before the transaction that names it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from everlearn.checkpoint import strict_json
from everlearn.core.errors import ConfigError, EverlearnError, StateError
from everlearn.population.segments import Result, plain_result, result_from

FILE = "population.sqlite"
_SCHEMA = {
    "about": "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "segments": (
        "CREATE TABLE segments (generation INTEGER, member TEXT, step INTEGER NOT NULL, performance REAL, "
        "result TEXT NOT NULL, PRIMARY KEY (generation, member)) STRICT"
    ),
    "generations": (
        "CREATE TABLE generations (generation INTEGER PRIMARY KEY, seconds REAL NOT NULL, generator TEXT NOT NULL, "
        "decisions TEXT NOT NULL) STRICT"
    ),
    "failures": (
        "CREATE TABLE failures (number INTEGER PRIMARY KEY, generation INTEGER NOT NULL, result TEXT NOT NULL) STRICT"
    ),
}
_FORMAT = 1
_LIMITS = {"max_bytes": 2**28, "max_depth": 16}


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
        results: Of the segments, by generation.
        generations: Those that have been decided.
        failures: Segments of generations in which all had failed, and which were trained again.
    """

    about: Mapping[str, Any]
    results: Mapping[int, Sequence[Result]] = field(default_factory=dict)
    generations: Sequence[Generation] = ()
    failures: Sequence[Result] = ()


@final
class PopulationStore:
    """The database of a population; one process writes it, others may read meanwhile.

    Args:
        path: The file; made if it is missing.
        read_only: Only look; the file has to be there.

    Raises:
        ConfigError: If there is none to look at.
        StateError: If it is damaged, or of another kind.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if read_only and not path.is_file():
            raise ConfigError(f"{path}: there is no population. Name the directory that 'everlearn pbt' has made.")
        mode = "ro" if read_only else "rwc"
        with self._refused():
            self._database = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30.0
            )
            self._database.execute("PRAGMA trusted_schema = OFF")
            if not read_only:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
            self._require_schema(may_be_made=not read_only)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def begin(self, about: Mapping[str, Any]) -> None:
        """Enter a new population.

        Args:
            about: What it begins with, as plain data; nothing of it changes afterwards.
        """
        rows = [(name, _text(value)) for name, value in {"format": _FORMAT, **about}.items()]
        with self._transaction():
            self._database.executemany("INSERT INTO about VALUES (?, ?)", rows)

    def commit_results(self, results: Sequence[Result]) -> None:
        """Enter what came of some segments, all of it or nothing; a segment that is there already stays as it is."""
        rows = [
            (each.generation, _text(each.member_id), each.step, each.performance, _text(plain_result(each)))
            for each in results
        ]
        with self._transaction():
            self._database.executemany("INSERT INTO segments VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def commit_generation(self, generation: Generation) -> None:
        """Enter what was decided about all members, and with it the generator's state; all of it or nothing."""
        row = (generation.number, generation.seconds, _text(generation.generator), _text([*generation.decisions]))
        with self._transaction():
            self._database.execute("INSERT INTO generations VALUES (?, ?, ?, ?)", row)

    def forget_failures(self, generation: int) -> None:
        """Take back the segments of a generation in which all have failed, so that they are trained again."""
        moved = "INSERT INTO failures (generation, result) SELECT generation, result FROM segments WHERE generation = ?"
        with self._transaction():
            self._database.execute(moved, (generation,))
            self._database.execute("DELETE FROM segments WHERE generation = ?", (generation,))

    def read(self) -> Journal | None:
        """All that is there; None before ``begin``.

        Raises:
            StateError: If something in it is no such data.
        """
        with self._refused():
            return self._journal()

    def _journal(self) -> Journal | None:
        about = {name: self._value(value) for name, value in self._database.execute("SELECT * FROM about")}
        if not about:
            return None
        if about.pop("format") != _FORMAT:
            raise StateError(f"{self.path}: it has the format of another version of everlearn. Use that version.")
        results: dict[int, list[Result]] = {}
        rows = self._database.execute("SELECT generation, result FROM segments ORDER BY generation, rowid")
        for number, result in rows:
            results.setdefault(number, []).append(result_from(self._value(result)))
        rows = self._database.execute("SELECT * FROM generations ORDER BY generation")
        generations = [
            Generation(number, seconds, self._value(generator), self._value(decisions))
            for number, seconds, generator, decisions in rows
        ]
        rows = self._database.execute("SELECT result FROM failures ORDER BY number")
        failures = [result_from(self._value(result)) for (result,) in rows]
        return Journal(about, results, generations, failures)

    def _require_schema(self, *, may_be_made: bool) -> None:
        rows = self._database.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        found = dict(rows.fetchall())
        if not found and may_be_made:
            with self._transaction():
                for statement in _SCHEMA.values():
                    self._database.execute(statement)
        elif found != _SCHEMA:
            raise StateError(f"{self.path}: it holds other tables than a population's. Name another directory.")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of what is done inside, on the disk when it is over; nothing of it if it fails."""
        with self._refused():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Inside, what the database refuses becomes an error that names the file."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise EverlearnError(
                f"{self.path}: the journal cannot be used ({error}). See to free space and to the permissions of its "
                "directory; what was committed before is safe."
            ) from error
        except sqlite3.DatabaseError as error:
            raise StateError(
                f"{self.path}: the journal is damaged ({error}). Restore it from a copy; the members' files are whole "
                "agents of their own."
            ) from error
        except (KeyError, TypeError, AttributeError) as error:
            raise StateError(f"{self.path}: it holds what no population has written ({error!r}).") from error

    def _value(self, text: Any) -> Any:
        return strict_json.loads(str(text).encode(), self.path, "", **_LIMITS)


def _text(value: Any) -> str:
    return strict_json.dumps(value).decode()
