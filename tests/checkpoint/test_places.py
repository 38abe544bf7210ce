"""Stable-Baselines3's rules for names, and open files."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.places import source_at, write_to, written_path
from everlearn.core.errors import ArgumentError


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("model", "model.zip"),
        ("model.zip", "model.zip"),
        ("model.best", "model.best"),
        ("new/deep/model", "new/deep/model.zip"),
    ],
)
def test_the_suffix_is_added_where_there_is_none_and_folders_are_made(given: str, written: str, tmp_path: Path) -> None:
    for place in (tmp_path / given, str(tmp_path / given)):
        write_to(place, [b"a", bytearray(b"b"), memoryview(b"c")])
        assert (tmp_path / written).read_bytes() == b"abc"
        assert source_at(place) == tmp_path / written


def test_a_file_without_suffix_goes_before_the_one_with(tmp_path: Path) -> None:
    for name in ("model", "model.zip"):
        (tmp_path / name).write_bytes(b"")
    assert source_at(tmp_path / "model") == tmp_path / "model"
    assert source_at(tmp_path / "nothing") == tmp_path / "nothing"


def test_a_folder_gets_a_neighbour_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "model.zip").mkdir()
    with pytest.warns(UserWarning, match=r"is a folder; the file becomes .*model\.zip_2"):
        write_to(tmp_path / "model", [b"a"])
    assert (tmp_path / "model.zip_2.zip").read_bytes() == b"a"


def test_open_files_are_written_from_where_they_stand_and_stay_open() -> None:
    stream = io.BytesIO(b"xx")
    stream.seek(2)
    write_to(stream, [b"a", b"b"])
    assert stream.getvalue() == b"xxab"
    assert source_at(stream) is stream


@pytest.mark.parametrize("place", [3, None, b"path", object()])
def test_what_is_no_place_is_a_type_error(place: Any) -> None:
    for use in (source_at, lambda place: write_to(place, [])):
        with pytest.raises(TypeError, match="neither a path nor an open binary file"):
            use(place)


def test_files_that_are_closed_or_not_for_the_purpose_are_refused(tmp_path: Path) -> None:
    closed = io.BytesIO()
    closed.close()
    with (tmp_path / "a").open("wb") as writing, pytest.raises(ValueError, match="not readable"):
        source_at(writing)
    with (tmp_path / "a").open("rb") as reading, pytest.raises(ValueError, match="not writable"):
        write_to(reading, [])
    with pytest.raises(ValueError, match="closed"):
        source_at(closed)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "model.zip").symlink_to(tmp_path / "real.zip")
    write_to(tmp_path / "model", [b"a"])
    assert (tmp_path / "model.zip").is_symlink()
    assert (tmp_path / "real.zip").read_bytes() == b"a"


@pytest.mark.parametrize("place", ["", ".", "..", "/", "a/.."])
def test_a_directory_without_a_name_of_its_own_gets_no_suffix_and_no_neighbour(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file ``..zip`` would be found by nobody."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert written_path(Path(place)) == Path(place)
    with pytest.raises(ArgumentError, match="is a folder, and a file needs a name"):
        write_to(place, [b"a"])
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("name", ["a" * 300, "a" * 252, "a" * 300 + "/model"])
def test_a_name_that_is_too_long_is_told_as_every_failure_to_write(name: str, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=os.strerror(errno.ENAMETOOLONG)):
        write_to(tmp_path / name, [b"a"])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_no_file_to_read(tmp_path: Path) -> None:
    for name in ("a" * 300, "a" * 252):
        assert source_at(tmp_path / name) == tmp_path / name


def test_links_in_a_circle_are_told_and_stay(tmp_path: Path) -> None:
    loop, other = tmp_path / "loop.zip", tmp_path / "other.zip"
    loop.symlink_to(other)
    other.symlink_to(loop)
    with pytest.raises(SaveError, match=os.strerror(errno.ELOOP)):
        write_to(tmp_path / "loop", [b"a"])
    assert loop.is_symlink()
    assert other.is_symlink()
