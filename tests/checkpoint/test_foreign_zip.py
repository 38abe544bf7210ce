import io
import struct
import tracemalloc
import zipfile
from typing import Any

import pytest

from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Truncated, Unsupported
from everlearn.checkpoint.foreign_zip import ForeignZip, first_name
from everlearn.checkpoint.limits import LIMITS, Limits
from tests.checkpoint.foreign_files import zipped


def opened(content: bytes, limits: Limits = LIMITS, **options: Any) -> ForeignZip:
    return ForeignZip(io.BytesIO(content), "file.zip", "an archive", limits, **options)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_whole(compression: int) -> None:
    archive = opened(zipped({"a": b"first" * 50, "b": b""}, compression))
    assert archive.sizes == {"a": 250, "b": 0}
    assert (archive.read("a"), archive.read("b")) == (b"first" * 50, b"")
    assert archive.is_stored("a") is (compression == zipfile.ZIP_STORED)


def test_a_comment_belongs_to_the_archive() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"content")
        archive.comment = b"a comment of the user"
    assert opened(file.getvalue()).read("a") == b"content"


def test_an_end_within_the_comment_is_no_second_archive() -> None:
    """Zipfile would read the last end record: it must be the one that was checked."""
    with pytest.raises(Truncated):
        opened(zipped({"a": b"1"})[:-2] + b"\x16\x00PK\x05\x06" + b"\x00" * 18)


def test_the_first_name_is_read_from_the_first_header() -> None:
    assert first_name(io.BytesIO(zipped({"data": b"", "b": b""})[:34])) == "data"
    assert first_name(io.BytesIO(b"no archive, and long enough to be one")) is None


def test_row_7_a_zip_bomb_is_too_large_before_anything_is_decompressed() -> None:
    member = io.BytesIO()
    with zipfile.ZipFile(member, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w") as stream:
        for _ in range(5):
            stream.write(b"\x00" * 2**24)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="would become"):
            opened(member.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_row_7_a_bomb_that_lies_about_its_size_ends_at_what_it_says() -> None:
    content = bytearray(zipped({"bomb": b"\x00" * 2**24}, zipfile.ZIP_DEFLATED))
    for header, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(header) + offset, 1000)
    archive = opened(bytes(content))
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt):
            archive.read("bomb")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_the_directory_is_not_read_when_it_is_larger_than_its_members_need() -> None:
    with pytest.raises(TooLarge, match="its directory has"):
        opened(zipped({f"{index:04}" + "x" * 2000: b"" for index in range(3)}), members=2)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(file_bytes=100), "allowed are 100. .*file_bytes"),
        (Limits(members=1), "it has 2 members, allowed are 1. .*members"),
    ],
)
def test_row_7_limits_hold_and_are_named(limits: Limits, message: str) -> None:
    with pytest.raises(TooLarge, match=message):
        opened(zipped({"a": b"x" * 100, "b": b""}), limits)


def test_row_7_a_members_limit_holds_and_is_named() -> None:
    archive = opened(zipped({"a": b"x" * 100}), Limits(json_bytes=99))
    with pytest.raises(TooLarge, match="json_bytes"):
        archive.read("a", "json_bytes")
    assert opened(zipped({"a": b"x" * 100}), Limits(json_bytes=100)).read("a", "json_bytes") == b"x" * 100


def test_a_name_that_stands_there_twice_is_corrupt() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(Corrupt, match="one name"):
        opened(file.getvalue())


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_cannot_be_bounded_is_unsupported(compression: int) -> None:
    with pytest.raises(Unsupported, match="unusual"):
        opened(zipped({"a": b"x" * 100}, compression))


def test_an_encrypted_member_is_unsupported() -> None:
    content = bytearray(zipped({"a": b"x"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Unsupported, match="encrypted"):
        opened(bytes(content))


def test_members_that_overlap_are_corrupt() -> None:
    content = bytearray(zipped({"a": b"x" * 1000, "b": b""}))
    second = content.rindex(b"PK\x01\x02")
    struct.pack_into("<II", content, second + 20, 1000, 1000)
    with pytest.raises(Corrupt, match="overlap"):
        opened(bytes(content))


def test_a_missing_member_is_corrupt_and_named() -> None:
    with pytest.raises(Corrupt, match=r"file.zip, policy.pth: this member is missing"):
        opened(zipped({"a": b""})).read("policy.pth")


def test_rows_1_and_2_every_cut_and_every_flipped_bit_of_a_members_content_is_told() -> None:
    content = zipped({"a": bytes(range(100)), "b": b"y" * 50})
    for length in range(len(content)):
        with pytest.raises(Truncated):
            opened(content[:length])
    start = content.index(bytes(range(100)))
    for position in range(start, start + 100):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(Corrupt, match=r"file\.zip, a: the archive is damaged"):
            opened(bytes(damaged)).read("a")


def test_row_2_a_flipped_bit_anywhere_never_leaves_the_family_of_errors() -> None:
    content = zipped({"a": b"x" * 20, "b": b"y" * 20}, zipfile.ZIP_DEFLATED)
    for position in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        try:
            archive = opened(bytes(damaged))
            for name in archive.sizes:
                archive.read(name)
        except CheckpointError:
            continue
