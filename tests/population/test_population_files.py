"""The files of a trained population's members; rows 23, 27 and 29 of the failure-mode table."""

import hashlib
import os
from pathlib import Path

import pytest

from everlearn.checkpoint import files
from everlearn.population.files import drop_all_but, file_problem
from everlearn.population.segments import Checkpoint

NAME = "member-%2E%2E%2Fx-generation-000003-0123456789abcdef.zip"
OTHERS = ("model.zip", "member-notes.txt", "member-1-step-000000000005-0123456789abcdef.zip", "population.sqlite")


def put(directory: Path, name: str, content: bytes = b"state") -> Checkpoint:
    (directory / name).write_bytes(content)
    return Checkpoint(name, hashlib.sha256(content).hexdigest(), "")


def test_row_27_a_whole_file_has_no_problem(tmp_path: Path) -> None:
    assert file_problem(tmp_path, put(tmp_path, NAME, os.urandom(3_000_000))) is None


@pytest.mark.parametrize("content", [b"", b"statf", b"state and more"])
def test_row_27_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    checkpoint = put(tmp_path, NAME)
    (tmp_path / NAME).write_bytes(content)
    assert f"{NAME} is damaged" in str(file_problem(tmp_path, checkpoint))


def test_row_27_a_missing_file_and_what_is_none_are_told(tmp_path: Path) -> None:
    checkpoint = put(tmp_path, NAME)
    (tmp_path / NAME).unlink()
    assert "No such file" in str(file_problem(tmp_path, checkpoint))
    os.mkfifo(tmp_path / NAME)  # which nobody writes: to open it would be to wait for ever
    assert "a pipe or a device" in str(file_problem(tmp_path, checkpoint))
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    assert "a directory" in str(file_problem(tmp_path, checkpoint))


def test_row_29_what_nobody_refers_to_goes_and_everything_else_stays(tmp_path: Path) -> None:
    needed = {put(tmp_path, f"member-{number}-generation-1-{number:016x}.zip").name for number in range(3)}
    for name in (NAME, "member-1-generation-0-0123456789abcdef.json", f"{files.DRAFT}member-1-999999999-ab", *OTHERS):
        put(tmp_path, name)
    (tmp_path / "member-5-generation-1-0123456789abcdef.zip").mkdir()
    drop_all_but(tmp_path, needed)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*needed, *OTHERS, "member-5-generation-1-0123456789abcdef.zip"}


def test_a_draft_goes_whatever_process_has_its_number_now(tmp_path: Path) -> None:
    """Row 15: a worker that is dead and not buried, one of another machine, another process with the same number."""
    (tmp_path / f"{files.DRAFT}{NAME}-{os.getppid()}-0a1b2c3d").write_bytes(b"sta")
    drop_all_but(tmp_path, ())
    assert [*tmp_path.iterdir()] == []


def test_what_is_needed_and_is_not_there_is_not_missed(tmp_path: Path) -> None:
    drop_all_but(tmp_path, {NAME})
    drop_all_but(tmp_path / "none", {NAME})


def test_a_file_that_cannot_be_deleted_stays_with_a_warning(tmp_path: Path) -> None:
    put(tmp_path, NAME)
    put(tmp_path, "member-5-generation-1-0123456789abcdef.zip")

    def refuse(name: str, path: Path) -> None:
        if path.name == NAME:
            raise PermissionError(13, "Permission denied")

    with files.observed(refuse), pytest.warns(UserWarning, match=r"cannot be deleted \(Permission denied\)"):
        drop_all_but(tmp_path, ())
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
