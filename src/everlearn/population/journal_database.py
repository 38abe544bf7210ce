"""The SQLite database under a population's journal: of one form only, with one writer, its rows with fingerprints."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, final

from everlearn.checkpoint.files import operation
from everlearn.core.errors import ConfigError, EverlearnError, OrderError, StateError

LARGEST = 2**28
"""Bytes of one value."""
_APPLICATION, _FORMAT = 0x65766C6E, 1
"""By what a file's header says that it is a journal, and of which form."""
_SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT",
    "CREATE TABLE segments (generation INTEGER, member TEXT, step INTEGER NOT NULL, performance REAL, "
    "seconds REAL NOT NULL, result TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (generation, member)) STRICT",
    "CREATE TABLE generations (generation INTEGER PRIMARY KEY, seconds REAL NOT NULL, generator TEXT NOT NULL, "
    "decisions TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT",
    "CREATE TABLE failures (number INTEGER PRIMARY KEY, seconds REAL NOT NULL, result TEXT NOT NULL, "
    "sha256 TEXT NOT NULL) STRICT",
)
_PATIENCE = 30.0
"""Seconds that another process may keep the database busy."""
_Layout = tuple[int, int, list[Any]]


@final
class JournalDatabase:
    """A database with the tables of a journal; one process writes it, others may read meanwhile.

    A file that has anything else in it, such as a trigger or a view, is refused before anything is written to it.
    Where a second process has written, the next transaction of the first one fails, so that what is there always is
    what one process has done.

    Args:
        path: The file; made if it is missing.
        read_only: Only look; the file has to be there.

    Raises:
        ConfigError: If there is none to look at.
        StateError: If it is damaged, or of another kind.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        if read_only and not path.is_file():
            raise self._missing()
        address = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        with self._refused(), ExitStack() as undo:
            self._connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE)
            undo.callback(self.close)
            self._connection.text_factory = _text_of
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            is_new = _layout(self._connection) == _layout_of(made=False)
            if is_new and read_only:
                raise self._missing()
            if not is_new:
                self._require_own()
            if not read_only:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
            self._seen = self._version()
            if is_new:
                with self.transaction("make") as connection:
                    _make(connection)
            undo.pop_all()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    @contextmanager
    def transaction(self, name: str) -> Iterator[sqlite3.Connection]:
        """All of what is done inside is on the disk when it is over; nothing of it if it fails.

        Args:
            name: What it is for.

        Raises:
            ConfigError: If another process has written since ``snapshot``.
            OrderError: If something is entered that is there already.
            StateError: If the database is damaged.
            EverlearnError: If it cannot be written.
        """
        with self._refused():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._version() != self._seen:
                    raise ConfigError(f"{self._path}: another process has written it. Leave the population to one.")
                yield self._connection
                operation(f"journal:{name}", self._path)
                self._connection.execute("COMMIT")
            finally:
                self._roll_back()
        operation(f"journal:{name} done", self._path)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Inside, what is read is of one moment, and what is no data of a population is an error of the file.

        Raises:
            StateError: If something in it is damaged, or no such data.
        """
        with self._refused(), expected_content(self._path):
            self._connection.execute("BEGIN")
            try:
                yield
                self._seen = self._version()
            finally:
                self._roll_back()

    def rows(self, query: str, *parameters: Any) -> Iterator[list[Any]]:
        """Rows without the fingerprint in their last column, which is looked at."""
        for *values, sha256 in self._connection.execute(query, parameters):
            if sealed(*values)[-1] != sha256:
                raise self._damaged(f"a row is not what was written: {values!s:.100}")
            yield values

    def _require_own(self) -> None:
        """Refuse a file of another kind, one with anything besides, and one whose pages do not fit together."""
        found, own = _layout(self._connection), _layout_of(made=True)
        if found[0] == own[0] and found[1] != own[1]:
            raise StateError(
                f"{self._path}: it has the format {found[1]}, and this version of everlearn reads {own[1]}. Use the "
                "version that has written it."
            )
        if found != own:
            raise StateError(f"{self._path}: it is something else than a population's journal. Name another directory.")
        ((state,),) = self._connection.execute("PRAGMA integrity_check(1)")
        if state != "ok":
            raise self._damaged(state)

    def _version(self) -> int:
        """A number that changes when another connection has written."""
        ((version,),) = self._connection.execute("PRAGMA data_version")
        return int(version)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Inside, what the database refuses becomes an error that names the file."""
        try:
            yield
        except sqlite3.ProgrammingError:  # it is closed, or another thread's: a mistake of the caller's
            raise
        except sqlite3.OperationalError as error:
            raise EverlearnError(
                f"{self._path}: the journal cannot be used ({error}). See to free space and to the permissions of its "
                "directory; what was committed before is safe."
            ) from error
        except sqlite3.IntegrityError as error:
            raise OrderError(
                f"{self._path}: this is there already ({error}). Go on from what the journal has."
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter from a message about strange names
            raise self._damaged(error) from error

    def _missing(self) -> ConfigError:
        return ConfigError(f"{self._path}: there is no population. Name the directory that 'everlearn pbt' has made.")

    def _damaged(self, problem: object) -> StateError:
        return StateError(
            f"{self._path}: the journal is damaged ({problem}). Restore it from a copy; the members' files are whole "
            "agents of their own."
        )


@contextmanager
def expected_content(where: object) -> Iterator[None]:
    """Inside, what is raised by data that no population has written becomes an error that names the place."""
    try:
        yield
    except EverlearnError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StateError(
            f"{where}: it holds what no population has written ({error!r}). Restore it from a copy."
        ) from error


def sealed(*values: Any) -> tuple[Any, ...]:
    """The values of a row, and their fingerprint."""
    return (*values, hashlib.sha256(json.dumps(values).encode()).hexdigest())


def _make(connection: sqlite3.Connection) -> None:
    for statement in (f"PRAGMA application_id = {_APPLICATION}", f"PRAGMA user_version = {_FORMAT}", *_SCHEMA):
        connection.execute(statement)


def _layout(connection: sqlite3.Connection) -> _Layout:
    """Kind and form of the file, and everything that it defines."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    return application, version, connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()


@cache
def _layout_of(*, made: bool) -> _Layout:
    """Of an empty file, or of one with the tables."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        if made:
            _make(connection)
        return _layout(connection)


def _text_of(content: bytes) -> str:
    """The text in a file, whatever bytes these are: by its fingerprint one sees that it was not written so."""
    return content.decode("utf-8", "replace")
