"""The database under a journal: one form, one writer, nothing silently lost, nothing run; rows 1 to 4, 14 and 17."""

import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from everlearn.core.errors import ConfigError, EverlearnError, OrderError, StateError
from everlearn.population.segments import Checkpoint, Result
from everlearn.population.store import Generation, PopulationStore

ABOUT = {"seed": 1, "members": [[0, {"x": 1}], ["b", {"x": 2.5}]]}


def result(generation: int, member=0, performance: float | None = 1.0) -> Result:
    checkpoint = Checkpoint(f"member-{member}-generation-{generation}-0.zip", "ab", "cd", ("policy",))
    return Result(member, generation, generation, performance, (1.0, float("nan")), 3, 0.5, checkpoint)


def decided(number: int) -> Generation:
    return Generation(number, float(number), {"state": 2**127 + number}, [{"event": number}])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "population.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[PopulationStore]:
    with closing(PopulationStore(path)) as store:
        store.begin(ABOUT)
        yield store


def filled(path: Path, generations: int = 3) -> None:
    """A journal in one file, as a process leaves it that ends in order."""
    with closing(PopulationStore(path)) as store:
        store.begin(ABOUT)
        for number in range(generations):
            store.commit_results([result(number), result(number, "b")], float(number))
            store.commit_generation(decided(number))


def said(path: Path, statement: str) -> None:
    """Have somebody else do something to the database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(statement)


def journal_of(path: Path):
    with closing(PopulationStore(path, read_only=True)) as store:
        return store.read()


def test_what_was_committed_is_what_is_read(store: PopulationStore, path: Path) -> None:
    assert repr(store.read()) == repr(journal_of(path))
    first, second = result(0, performance=float("inf")), result(0, "b", performance=None)
    store.commit_results([first], 1.5)
    store.commit_results([second], 2.5)
    store.commit_generation(decided(0))
    journal = journal_of(path)
    assert (journal.about, repr(journal.results), journal.generations) == (
        ABOUT,
        repr({0: [first, second]}),
        [decided(0)],
    )
    assert journal.seconds == 2.5


def test_a_segment_counts_once_and_a_generation_is_decided_once(store: PopulationStore) -> None:
    """Idempotent by generation and member."""
    store.commit_results([result(0), result(0, "b")])
    store.commit_results([replace(result(0), performance=9.0), result(0, "c")])
    store.commit_generation(decided(0))
    with pytest.raises(OrderError, match="there already"):
        store.commit_generation(replace(decided(0), seconds=9.0))
    journal = store.read()
    assert [(each.member_id, each.performance) for each in journal.results[0]] == [(0, 1.0), ("b", 1.0), ("c", 1.0)]
    assert journal.generations == [decided(0)]


def test_row_26_failures_that_are_tried_again_stay_on_record(store: PopulationStore) -> None:
    for attempt in ("first", "second"):
        store.commit_results([replace(result(0, member), error=attempt) for member in ("b", 0)])
        store.forget_failures(0)
    store.commit_results([result(0)])
    journal = store.read()
    assert [(each.member_id, each.error) for each in journal.failures] == [
        ("b", "first"),
        (0, "first"),
        ("b", "second"),
        (0, "second"),
    ]
    assert repr(journal.results) == repr({0: [result(0)]})


# --- kinds of files ---------------------------------------------------------------------------------------------------


def test_there_is_no_population_where_there_is_no_file_or_nothing_in_it(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no population"):
        PopulationStore(path, read_only=True)
    path.touch()  # a process that was killed before its first transaction
    with pytest.raises(ConfigError, match="there is no population"):
        PopulationStore(path, read_only=True)
    assert path.read_bytes() == b""
    with closing(PopulationStore(path)) as store:
        assert store.read() is None


def foreign(path: Path) -> None:
    said(path, "CREATE TABLE mine (x); INSERT INTO mine VALUES (1)")


def without_a_table(path: Path) -> None:
    filled(path)
    said(path, "DROP TABLE failures")


def of_another_version(path: Path) -> None:
    filled(path)
    said(path, "PRAGMA user_version = 7")


def of_another_kind(path: Path) -> None:
    filled(path)
    said(path, "PRAGMA application_id = 7")


def with_more(statement: str):
    def make(path: Path) -> None:
        filled(path)
        said(path, statement)

    return make


def with_a_forged_name(path: Path) -> None:
    """A trigger with a name that SQLite keeps for itself."""
    filled(path)
    said(
        path,
        "CREATE TRIGGER forged AFTER INSERT ON segments BEGIN DELETE FROM about; END; PRAGMA writable_schema = ON; "
        "UPDATE sqlite_master SET name = 'sqlite_autoindex_x_1' WHERE name = 'forged'",
    )


OTHERS = {
    "a text": (lambda path: path.write_bytes(b"no database at all" * 300), "damaged"),
    "a foreign database": (foreign, "something else"),
    "missing tables": (without_a_table, "something else"),
    "another version": (of_another_version, "has the format 7, and this version of everlearn reads 1"),
    "another kind": (of_another_kind, "something else"),
    "a trigger": (
        with_more("CREATE TRIGGER evil AFTER INSERT ON segments BEGIN DELETE FROM about; END"),
        "something else",
    ),
    "a trigger with a name like SQLite's": (
        with_more("CREATE TRIGGER sqlitex AFTER INSERT ON segments BEGIN DELETE FROM about; END"),
        "something else",
    ),
    "a trigger with a name of SQLite's": (with_a_forged_name, "something else|damaged"),
    "a view": (with_more("CREATE VIEW evil AS SELECT load_extension('evil')"), "something else"),
    "a view in a table's place": (
        with_more(
            "DROP TABLE failures; CREATE VIEW failures AS SELECT 1 AS seconds, hex(random()) AS result, 1 AS sha256"
        ),
        "something else",
    ),
    "a virtual table": (with_more("CREATE VIRTUAL TABLE evil USING fts5(x)"), "something else"),
    "another table": (with_more("CREATE TABLE evil (x)"), "something else"),
    "an index over a function": (with_more("CREATE INDEX evil ON about (hex(value))"), "something else"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("read_only", [True, False])
def test_b34_a_file_of_another_kind_is_refused_and_stays_as_it_is(path: Path, kind: str, read_only: bool) -> None:
    make, message = OTHERS[kind]
    make(path)
    before = path.read_bytes()
    with pytest.raises(StateError, match=message) as caught:
        PopulationStore(path, read_only=read_only)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


PROGRAM = """
import sys
from pathlib import Path
from everlearn.core.errors import StateError
from everlearn.population.store import PopulationStore

def refused(path):
    try:
        PopulationStore(Path(path))
    except StateError:
        return True

refused(sys.argv[1])  # what refusing imports is there now
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
paths = sys.argv[2:]
were_refused = [refused(path) for path in paths]
strange = {event for event in seen if not event.startswith(("sqlite3.connect", "object.__getattr__"))}
print(were_refused == [True] * len(paths), sorted(strange))
"""


def test_b34_a_hostile_database_runs_nothing(tmp_path: Path) -> None:
    paths = []
    for number, (make, _) in enumerate(OTHERS.values()):
        paths.append(tmp_path / f"{number}.sqlite")
        make(paths[-1])
    program = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "[]"]


# --- damage -----------------------------------------------------------------------------------------------------------


def is_noticed(content: bytes, expected: str, path: Path) -> bool:
    """Whether a damaged journal is refused; if not, it has to say what it said."""
    path.write_bytes(content)
    try:
        found = repr(journal_of(path))
    except EverlearnError:
        return True
    assert found == expected
    return False


def test_row_2_a_bit_that_has_flipped_is_noticed_or_means_nothing(path: Path, tmp_path: Path) -> None:
    filled(path)
    whole, expected, luck = path.read_bytes(), repr(journal_of(path)), random.Random(0)
    noticed = 0
    counts = [8 * page + bit for page in range(0, len(whole), 4096) for bit in range(24, 40)]  # how many rows there are
    for place in [*luck.sample(range(8 * len(whole)), 300), *counts]:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        noticed += is_noticed(content, expected, tmp_path / "damaged.sqlite")
    assert noticed > 20  # most of a small database is unused


def test_row_1_a_journal_that_was_cut_off_is_refused_unless_what_is_missing_is_unused(
    path: Path, tmp_path: Path
) -> None:
    filled(path)
    whole, expected = path.read_bytes(), repr(journal_of(path))
    noticed = [is_noticed(whole[:size], expected, tmp_path / "cut.sqlite") for size in range(2, len(whole), 509)]
    assert sum(noticed) > 0.8 * len(noticed)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE segments SET result = replace(result, '1.0', '9.0')",
        "UPDATE segments SET seconds = 1e9",
        "UPDATE generations SET decisions = '[]'",
        "UPDATE generations SET generation = generation + 10",
        "UPDATE about SET value = '2' WHERE name = 'seed'",
        "UPDATE about SET sha256 = CAST(x'ff00fe' AS TEXT)",
    ],
)
def test_a_row_that_is_not_what_was_written_is_noticed(path: Path, statement: str) -> None:
    filled(path)
    said(path, statement)
    with pytest.raises(StateError, match="damaged"):
        journal_of(path)


# --- several processes, full disks ------------------------------------------------------------------------------------


def test_row_17_of_two_processes_that_write_the_second_stops_the_first(store: PopulationStore, path: Path) -> None:
    store.commit_results([result(0)])
    with closing(PopulationStore(path)) as other:
        other.read()
        other.commit_results([result(0, "b")])
        for act in (
            lambda: store.commit_results([result(0, "b", 9.0)]),
            lambda: store.commit_generation(decided(0)),
            lambda: store.forget_failures(0),
        ):
            with pytest.raises(ConfigError, match="another process has written it"):
                act()
        store.read()  # from here on it knows, and the other one does not
        store.commit_generation(decided(0))
        with pytest.raises(ConfigError, match="another process has written it"):
            other.commit_generation(replace(decided(0), seconds=9.0))
    journal = store.read()
    assert repr(journal.results) == repr({0: [result(0), result(0, "b")]})
    assert journal.generations == [decided(0)]


def test_of_two_processes_that_begin_one_does(path: Path) -> None:
    with closing(PopulationStore(path)) as first, closing(PopulationStore(path)) as second:
        assert (first.read(), second.read()) == (None, None)
        second.begin(ABOUT)
        with pytest.raises(ConfigError, match="another process"):
            first.begin({**ABOUT, "seed": 2})
        assert first.read().about == ABOUT


def test_whoever_looks_sees_one_moment(store: PopulationStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody writes."""
    store.commit_results([result(0)])
    with closing(PopulationStore(path, read_only=True)) as reader:
        own, written = reader._value, []

        def slow(text: str):
            if not written:
                written.append(store.commit_results([result(0, "b")]))
                written.append(store.commit_generation(decided(0)))
            return own(text)

        monkeypatch.setattr(reader, "_value", slow)
        journal = reader.read()
        assert (repr(journal.results), journal.generations) == (repr({0: [result(0)]}), [])
        assert reader.read().generations == [decided(0)]
        with pytest.raises(EverlearnError, match="readonly"):
            reader.commit_results([result(1)])


def test_row_14_a_full_disk_costs_what_was_not_committed(store: PopulationStore, path: Path) -> None:
    store.commit_results([result(0)])
    size = max(each.stat().st_size for each in path.parent.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for much in (0, 100, 5000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + much, hard))
        try:
            with pytest.raises(EverlearnError, match="what was committed before is safe"):
                store.commit_results([replace(result(0, "b"), error="long" * 5000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert repr(journal_of(path).results) == repr({0: [result(0)]})
    store.commit_results([result(0, "c")])
    assert repr(journal_of(path).results) == repr({0: [result(0), result(0, "c")]})


def test_what_is_raised_inside_takes_the_transaction_back(store: PopulationStore) -> None:
    database = store._database
    with pytest.raises(KeyboardInterrupt), database.transaction("results") as connection:
        connection.execute("DELETE FROM about")
        raise KeyboardInterrupt
    assert store.read().about == ABOUT


def test_a_copy_of_a_journal_that_is_being_written_is_one(store: PopulationStore, path: Path, tmp_path: Path) -> None:
    """A killed process leaves the latest transactions in a file beside the database."""
    store.commit_results([result(0)])
    for name in (path.name, f"{path.name}-wal"):
        (tmp_path / "copy").mkdir(exist_ok=True)
        shutil.copy(path.with_name(name), tmp_path / "copy" / name)
    assert repr(journal_of(tmp_path / "copy" / path.name).results) == repr({0: [result(0)]})
