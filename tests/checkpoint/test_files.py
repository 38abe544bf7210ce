"""Whole files are written so that no failure and no kill loses the one before."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everlearn.checkpoint import files
from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import DRAFT, NotDurable, observed, remove, set_aside, sweep, write_file
from tests.checkpoint.failing import ERRORS, FailsAt, open_descriptors, operations_of

CHUNKS = [b"a" * 1000, bytearray(b"b" * 1000), memoryview(b"c" * 1000), b""]
WHOLE = b"".join(bytes(chunk) for chunk in CHUNKS)
SAVE = ["create", "write", "write", "write", "write", "write", "write", "fsync", "close", "replace", "directory"]
DEAD = 2**22 + 1
"""More than any process of Linux can have for a number."""


def left_over(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if path.name.startswith(DRAFT)]


def test_a_file_is_written_then_synced_then_put_in_place_then_its_name_is_synced(tmp_path: Path) -> None:
    assert operations_of(lambda: write_file(tmp_path / "x.zip", CHUNKS)) == [f"save:{name}" for name in SAVE]
    assert (tmp_path / "x.zip").read_bytes() == WHOLE


class Disk:
    """What of a disk would be there after a power failure: what was synced, under the names that were synced.

    Args:
        monkeypatch: With it the calls of the system are listened to.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.events: list[str] = []
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self._heard(name, getattr(os, name)))

    def _heard(self, name: str, call: Callable[..., None]) -> Callable[..., None]:
        def listen(*arguments: Any) -> None:
            call(*arguments)
            status = os.fstat(arguments[0]) if name == "fsync" else os.stat(arguments[1])
            if name == "replace":
                assert status.st_ino in self.synced, "put in place before its content would survive"
            self.synced.add(status.st_ino)
            self.events.append("directory" if stat.S_ISDIR(status.st_mode) else f"{name} {status.st_size}")

        return listen


@pytest.mark.skipif(os.name == "nt", reason="directories cannot be synced there")
def test_after_a_power_failure_a_file_that_was_saved_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 15 of the failure modes: what a kill does not show, for the system's memory survives it."""
    disk = Disk(monkeypatch)
    write_file(tmp_path / "a" / "x.zip", CHUNKS)
    assert disk.events == ["directory", "fsync 3000", "replace 3000", "directory"]
    assert {(tmp_path / place).stat().st_ino for place in ("", "a", "a/x.zip")} == disk.synced


def test_a_missing_directory_is_made_and_its_name_is_synced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.zip"
    made = operations_of(lambda: write_file(path, CHUNKS))
    assert made == ["save:mkdir", "save:directory"] * 2 + [f"save:{name}" for name in SAVE]
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("number", range(len(SAVE)))
@pytest.mark.parametrize("before", [None, b"before"], ids=["first save", "overwrite"])
def test_a_failing_operation_keeps_the_file_before(
    tmp_path: Path, before: bytes | None, number: int, code: int
) -> None:
    """Row 14 of the failure modes: whatever fails is reported, the old file is there, nothing is left over."""
    path = tmp_path / "x.zip"
    if before is not None:
        path.write_bytes(before)
    opened = open_descriptors()
    with observed(FailsAt(number, code)), pytest.raises(SaveError, match=os.strerror(code)) as caught:
        write_file(path, CHUNKS)
    in_place = SAVE[number] == "directory"
    assert (path.read_bytes() if path.exists() else None) == (WHOLE if in_place else before)
    assert isinstance(caught.value, NotDurable) is in_place
    assert ("untouched" in str(caught.value)) is not in_place
    assert str(path) in str(caught.value)
    assert left_over(tmp_path) == []
    assert open_descriptors() == opened


class FailingSystem:
    """The n-th call of the system fails, whichever it is; what it is asked to close is closed all the same.

    Args:
        monkeypatch: With it the calls are replaced.
        number: Which fails, from 0 on.
        code: With what.
    """

    CALLS = ("open", "write", "fsync", "close", "replace", "mkdir", "unlink")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
        self.left, self.code, self.failed = number, code, ""
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == -1:
                self.failed = name
                if name == "close":
                    call(*arguments)
                raise OSError(self.code, os.strerror(self.code))
            return call(*arguments, **options)

        return act


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("place", ["x.zip", "new/x.zip"])
def test_whichever_call_of_the_system_fails_the_file_is_the_one_before_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, code: int
) -> None:
    """Row 14 of the failure modes: the n-th call fails, for every n."""
    opened, failed = open_descriptors(), []
    for number in range(99):
        path = tmp_path / str(number) / place
        path.parents[place.count("/")].mkdir()
        if place == "x.zip":
            path.write_bytes(b"before")
        with monkeypatch.context() as patch:
            system = FailingSystem(patch, number, code)
            error = None
            try:
                write_file(path, CHUNKS)
            except SaveError as caught:
                error = caught
        if not system.failed:
            break
        failed.append(system.failed)
        there = path.read_bytes() if path.exists() else b"before"
        assert (there == WHOLE) is (error is None or isinstance(error, NotDurable))
        assert there in (WHOLE, b"before")
        assert (error is None) is (system.failed == "unlink")
        assert left_over(tmp_path) == []
        assert open_descriptors() == opened
    file, directory = ["open", "write", "write", "write", "fsync", "close"], ["open", "fsync", "close"]
    made = ["mkdir", *directory] if place != "x.zip" else []
    assert failed == [*made, *file, "replace", "unlink", *directory]


def test_a_draft_that_resists_does_not_hide_why_nothing_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.zip").write_bytes(b"before")

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch, observed(FailsAt(3, errno.ENOSPC)):
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(SaveError, match="No space left"):
            write_file(tmp_path / "x.zip", CHUNKS)
    assert (tmp_path / "x.zip").read_bytes() == b"before"
    assert len(sweep(tmp_path)) == 1


@pytest.mark.parametrize("call", ["write", "fsync", "close", "replace"])
def test_a_failing_call_of_the_system_keeps_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Row 14 of the failure modes; a failed fsync is not tried again on the same descriptor."""
    path = tmp_path / "x.zip"
    path.write_bytes(b"before")
    calls: list[object] = []
    system = getattr(os, call)

    def fail(*arguments: object) -> None:
        calls.append(arguments)
        if call == "close":
            system(*arguments)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    opened = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(SaveError, match=os.strerror(errno.EIO)):
            write_file(path, CHUNKS)
    assert len(calls) == 1
    assert path.read_bytes() == b"before"
    assert left_over(tmp_path) == []
    assert open_descriptors() == opened


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: system(descriptor, bytes(content)[:7]))
    write_file(tmp_path / "x.zip", CHUNKS)
    assert (tmp_path / "x.zip").read_bytes() == WHOLE


def test_a_system_that_writes_nothing_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, content: 0)
    with pytest.raises(SaveError, match="nothing was written"):
        write_file(tmp_path / "x.zip", CHUNKS)


def test_an_interrupted_save_leaves_nothing_over(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "x.zip", chunks())
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_written_in_pieces(tmp_path: Path) -> None:
    names: list[str] = []
    with observed(lambda name, path: names.append(name)):
        write_file(tmp_path / "x.zip", [bytes(20 * 2**20)])
    assert names.count("save:write") == 3


@pytest.mark.parametrize("name", ["n" * 251, "\N{ROCKET}" * 62, "n-1-2-" * 40])
def test_a_long_name_can_be_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.zip"
    write_file(path, CHUNKS)
    assert path.read_bytes() == WHOLE


def test_a_target_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaveError):
        write_file(tmp_path, CHUNKS)
    assert left_over(tmp_path.parent) == []


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(SaveError, match=r"y\.zip: it cannot be written"):
        write_file(tmp_path / "x" / "y.zip", CHUNKS)


def test_where_a_reader_forbids_renaming_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 37 of the failure modes: Windows does not rename over a file that somebody reads."""
    replace, refusals = os.replace, iter([True, True, False])

    def refuse_twice(source: Path, target: Path) -> None:
        if next(refusals):
            raise PermissionError(errno.EACCES, "in use")
        replace(source, target)

    (tmp_path / "draft").write_bytes(WHOLE)
    monkeypatch.setattr(files.os, "replace", refuse_twice)
    monkeypatch.setattr(files.os, "name", "nt")
    files._replace(tmp_path / "draft", tmp_path / "x.zip")
    monkeypatch.undo()
    assert (tmp_path / "x.zip").read_bytes() == WHOLE


def test_an_operation_beyond_the_observed_block_is_not_observed(tmp_path: Path) -> None:
    names: list[str] = []
    with observed(lambda name, path: names.append(name)):
        pass
    write_file(tmp_path / "x.zip", CHUNKS)
    assert names == []


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    remove(tmp_path / "x.zip", "prune:remove")


def test_setting_aside_never_replaces_an_earlier_one(tmp_path: Path) -> None:
    for content in (b"1", b"2", b"3"):
        (tmp_path / "x.zip").write_bytes(content)
        set_aside(tmp_path / "x.zip")
    names = ["x.zip.corrupt", "x.zip.corrupt-1", "x.zip.corrupt-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [(tmp_path / name).read_bytes() for name in names] == [b"1", b"2", b"3"]


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path: Path) -> None:
    """Row 15 of the failure modes: what a killed process left is swept."""
    dead, own, alive = (tmp_path / f"{DRAFT}x-y.zip-{pid}-0a1b2c3d" for pid in (DEAD, os.getpid(), os.getppid()))
    other = tmp_path / "x.zip"
    for path in (dead, own, alive, other):
        path.write_bytes(b"")
    assert sorted(sweep(tmp_path)) == sorted([dead, own])
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])


def test_a_draft_that_resists_is_left_with_a_warning(tmp_path: Path) -> None:
    draft = tmp_path / f"{DRAFT}x.zip-{DEAD}-0a1b2c3d"
    draft.write_bytes(b"")
    with observed(FailsAt(0, errno.EACCES)), pytest.warns(UserWarning, match="cannot be deleted"):
        assert sweep(tmp_path) == []
    assert draft.exists()


PROGRAM = """
import resource, sys
from pathlib import Path
from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import write_file
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
path = Path(sys.argv[1]) / "x.zip"
write_file(path, [b"before"])
try:
    write_file(path, [bytes(3_000_000)])
except SaveError as error:
    print(error)
sys.exit(not (path.read_bytes() == b"before" and list(path.parent.iterdir()) == [path]))
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file sizes are Linux's")
def test_a_limit_of_file_sizes_keeps_the_file_before(tmp_path: Path) -> None:
    """Row 14 of the failure modes, with a limit that the system holds."""
    result = run(PROGRAM, tmp_path, "limit")
    assert (result.returncode, result.stderr) == (0, "")
    assert "File too large" in result.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "everlearn-test", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_keeps_the_file_before(small_disk: Path) -> None:
    """Row 14 of the failure modes, with a disk that is full."""
    result = run(PROGRAM, small_disk, "disk")
    assert (result.returncode, result.stderr) == (0, "")
    assert "No space left" in result.stdout


def test_the_bytes_of_checkpoints_need_neither_torch_nor_gymnasium() -> None:
    program = (
        "import everlearn.checkpoint.store, everlearn.checkpoint.lock, sys; "
        "sys.exit(bool({'torch', 'numpy', 'gymnasium', 'stable_baselines3'} & set(sys.modules)))"
    )
    assert run(program).returncode == 0
