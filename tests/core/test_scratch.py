"""Scratch directories: private, gone with their process, and swept by the next where that was killed."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from everlearn.core.scratch import scratch_directory


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def dead() -> int:
    """The id of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_is_the_users_alone_and_goes_in_the_end(place: Path) -> None:
    with scratch_directory("trial") as name:
        assert Path(name).parent == place
        assert Path(name).name.startswith(f"everlearn-trial-{os.getpid()}-")
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o700
        Path(name, "file").touch()
    assert not Path(name).exists()


def test_those_of_processes_that_are_gone_are_removed(place: Path, dead: int) -> None:
    left = place / f"everlearn-trial-{dead}-abc"
    left.mkdir()
    (left / "member").write_text("content")
    with scratch_directory("trial"):
        assert not left.exists()


def test_all_others_stay(place: Path, dead: int) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    names = (
        *(f"everlearn-trial-{os.getpid()}-abc", f"everlearn-trial-{os.getppid()}-abc", "everlearn-trial-1-abc"),
        *(f"everlearn-other-{dead}-abc", f"everlearn-trial-{dead}", "everlearn-trial-mine-abc"),
    )
    for name in names:
        (place / name).mkdir()
    (place / f"everlearn-trial-{dead}-link").symlink_to(elsewhere)
    (place / f"everlearn-trial-{dead}-file").touch()
    with scratch_directory("trial"):
        assert {path.name for path in place.iterdir()} > {*names, "elsewhere"}
    assert (elsewhere / "file").exists()
    assert (place / f"everlearn-trial-{dead}-file").exists()


def test_those_of_other_users_stay(place: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = place / f"everlearn-trial-{dead}-abc"
    left.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    with scratch_directory("trial"):
        assert left.exists()
