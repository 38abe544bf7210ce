"""One writer per directory, which is named to whoever comes second; nobody has to clear up after a dead one."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import observed
from everlearn.checkpoint.lock import HOLDER, RunLock
from everlearn.core.errors import ConfigError
from tests.checkpoint.failing import FailsAt, open_descriptors, operations_of

PROGRAM = """
import sys
from pathlib import Path
from everlearn.checkpoint.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_is_in(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Row 17 of the failure modes: the holder's process and host, and the remedy."""
    named = (
        rf"being written by process {holder.pid} on {re.escape(socket.gethostname())} \(since .*\)\. Wait for it, or"
    )
    with pytest.raises(ConfigError, match=named), RunLock(tmp_path):
        pass


def test_a_killed_holder_is_taken_over_silently(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Row 17 of the failure modes: a stale lock is no lock."""
    holder.kill()
    holder.wait()
    assert (tmp_path / HOLDER).exists()
    with RunLock(tmp_path):
        assert str(os.getpid()) in (tmp_path / HOLDER).read_text()


FORKING = """
import os, sys, time
from pathlib import Path
from everlearn.checkpoint.lock import RunLock
RunLock(Path(sys.argv[1])).__enter__()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_what_a_killed_holder_has_forked_does_not_keep_others_out(tmp_path: Path) -> None:
    """Row 17 of the failure modes, with workers that live on."""
    command = [sys.executable, "-c", FORKING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            with RunLock(tmp_path):
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", bytes(5000), None])
def test_a_damaged_word_about_the_holder_does_not_let_anybody_in(
    tmp_path: Path, holder: subprocess.Popen[str], content: bytes | None
) -> None:
    if content is None:
        (tmp_path / HOLDER).unlink()
    else:
        (tmp_path / HOLDER).write_bytes(content)
    with pytest.raises(ConfigError, match="being written by another process"), RunLock(tmp_path):
        pass


def test_a_second_lock_in_this_process_is_refused(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with lock:
        for second in (lock, RunLock(tmp_path)):
            with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
                second.__enter__()
    with lock:
        pass


def test_a_second_thread_is_refused(tmp_path: Path) -> None:
    refusals: list[str] = []

    def enter() -> None:
        try:
            with RunLock(tmp_path):
                pass
        except ConfigError as error:
            refusals.append(str(error))

    with RunLock(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(refusals) == 1


def test_leaving_removes_the_word_about_the_holder(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        pass
    assert not (tmp_path / HOLDER).exists()


def test_a_failing_entry_leaves_the_lock_free(tmp_path: Path) -> None:
    """Row 14 of the failure modes, for each operation on files."""

    def enter() -> None:
        with RunLock(tmp_path):
            pass

    names = operations_of(enter)
    opened = open_descriptors()
    for number in range(len(names) - 1):
        with observed(FailsAt(number, errno.ENOSPC)), pytest.raises(SaveError, match="No space left"):
            enter()
        assert open_descriptors() == opened
        enter()


def test_a_word_about_the_holder_that_resists_leaves_the_lock_free(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.__enter__()
    with observed(FailsAt(0, errno.EACCES)), pytest.warns(UserWarning, match="cannot be deleted"):
        lock.__exit__(None, None, None)
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_there_are_no_locks_nobody_enters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Row 37 of the failure modes: a lock of another kind would outlive a killed holder."""
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    opened = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with pytest.raises(ConfigError, match=r"file system without locks .*Choose a directory"), RunLock(tmp_path):
            pass
    assert open_descriptors() == opened
    with RunLock(tmp_path):
        pass


def test_a_directory_that_cannot_be_written_is_an_error_of_saving(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(SaveError, match="cannot be written"), RunLock(tmp_path / "x"):
        pass
