"""Stable-Baselines3's rules for names, and open files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from everlearn.checkpoint.places import source_at, write_to


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
