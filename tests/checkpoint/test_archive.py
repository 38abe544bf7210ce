"""Every bit of a file matters; other readers of zip archives read it; nothing that is not ours is taken."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.checkpoint import layout, strict_json
from everlearn.checkpoint.archive import MANIFEST, content_id, pack, read_archive, read_manifest
from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Truncated, Unsupported, Untrusted
from everlearn.checkpoint.files import NotAFile
from everlearn.checkpoint.foreign import recognise
from everlearn.checkpoint.limits import Limits
from everlearn.core.errors import ArgumentError
from tests.checkpoint.failing import open_descriptors
from tools.crash import damage

MEMBERS = {"config.json": b'{"n_steps":2048}', "policy.safetensors": bytes(range(200)), "empty": b""}
ABOUT = {"kind": "model", "step": 12288}


def packed(members: Mapping[str, bytes] = MEMBERS, **about: Any) -> bytes:
    return b"".join(pack(members, {**ABOUT, **about}))


def read(content: bytes, **options: Any) -> Any:
    return read_archive(io.BytesIO(content), **options)


def manifest_of(content: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read(MANIFEST))


def assembled(manifest: Any, members: Mapping[str, bytes]) -> bytes:
    """A file in our layout with any manifest."""
    contents = {MANIFEST: manifest if isinstance(manifest, bytes) else strict_json.dumps(manifest), **members}
    entries = [layout.Entry(name, len(content), zipfile.crc32(content)) for name, content in contents.items()]
    headers, directory = layout.headers_of(entries)
    return b"".join(part for pair in zip(headers, contents.values(), strict=True) for part in pair) + directory


def described(members: Mapping[str, bytes], **changes: Any) -> dict[str, Any]:
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
    }
    head = {"format": "everlearn_v3", "version": 3, "min_reader": 3, "content_id": content_id(files), "files": files}
    return {**head, **changes}


def test_what_is_packed_is_read() -> None:
    archive = read(packed())
    assert {name: bytes(content) for name, content in archive.members.items()} == MEMBERS
    assert archive.manifest["kind"] == "model"
    assert archive.manifest["step"] == 12288
    assert archive.json("config.json") == {"n_steps": 2048}
    assert archive.sha256 == hashlib.sha256(packed()).hexdigest()


def test_the_manifest_says_what_the_file_holds() -> None:
    assert manifest_of(packed()) == {**described(MEMBERS), **ABOUT}


def test_the_same_input_gives_the_same_bytes() -> None:
    assert packed() == packed()


def test_what_a_file_says_of_itself_cannot_change_its_format() -> None:
    assert manifest_of(packed(format="x", version=9, min_reader=9, files={}, content_id=""))["format"] == "everlearn_v3"
    read(packed(format="x", version=9, min_reader=9, files={}, content_id=""))


def test_other_readers_of_zip_archives_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(packed())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MANIFEST, *MEMBERS]
        assert {name: archive.read(name) for name in MEMBERS} == MEMBERS
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_large_members_are_the_same() -> None:
    members = {name: random.Random(name).randbytes(700_000) for name in ("a", "b", "c")}
    content = packed(members)
    assert dict(read(content).members) == members
    with pytest.raises(Corrupt, match="x, b: its SHA-256 is"):
        content = content.replace(members["b"][:50], bytes(50))
        named = io.BytesIO(content)
        named.name = "x"
        read_archive(named)


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", ".a", "a b", "é", "a\\b", "1", "a" * 65, MANIFEST])
def test_only_names_that_a_reader_takes_are_written(name: str) -> None:
    """Row 38 of the failure modes."""
    with pytest.raises(ArgumentError, match="is no name of a member"):
        pack({name: b""}, {})


def test_only_as_many_members_as_a_reader_takes_are_written() -> None:
    read(packed({f"a{number}": b"" for number in range(63)}))
    with pytest.raises(ArgumentError, match="64 members are too many"):
        pack({f"a{number}": b"" for number in range(64)}, {})


def test_what_is_larger_than_a_zip_archive_can_be_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "LARGEST", 500)
    with pytest.raises(TooLarge, match="500 are possible"):
        pack(MEMBERS, {})


# Damage


def test_a_file_cut_anywhere_is_truncated() -> None:
    """Row 1 of the failure modes."""
    whole = packed()
    for length in range(4, len(whole)):
        with pytest.raises(Truncated):
            read(whole[:length])


def test_a_cut_file_says_how_much_is_missing() -> None:
    """Row 1 of the failure modes: expected and actual bytes."""
    whole = packed()
    with pytest.raises(Truncated, match=f"it ends after {len(whole) - 1} of {len(whole)} bytes"):
        read(whole[:-1])


def test_no_bit_can_be_turned_unnoticed() -> None:
    """Row 2 of the failure modes: every bit of a file, each alone."""
    whole = packed()
    for bit in range(8 * len(whole)):
        assert damage.outcome_of(damage.turned(whole, bit)) in ("Corrupt", "Unsupported", "TooLarge", "Truncated"), bit


def test_a_turned_bit_is_reported_with_its_member_and_hashes() -> None:
    """Row 2 of the failure modes."""
    whole = packed()
    position = whole.index(MEMBERS["policy.safetensors"])
    sha = hashlib.sha256(MEMBERS["policy.safetensors"]).hexdigest()
    with pytest.raises(Corrupt, match=rf"policy\.safetensors: its SHA-256 is \w+, .*{sha}.* was written"):
        read(damage.turned(whole, 8 * position))


@pytest.mark.parametrize("junk", [b"\0", b"x" * 22, b"PK\5\6" + bytes(18), b"PK\5\6", packed()])
def test_nothing_may_follow(junk: bytes) -> None:
    with pytest.raises(Corrupt):
        read(packed() + junk)


@pytest.mark.parametrize("junk", [b"\0", b"MZ", packed()])
def test_nothing_may_stand_before(junk: bytes) -> None:
    with pytest.raises(CheckpointError):
        read(junk + packed())


def swapped(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return {**members, "config.json": members["policy.safetensors"], "policy.safetensors": members["config.json"]}


@pytest.mark.parametrize(
    "members",
    [
        swapped(MEMBERS),
        dict(reversed(MEMBERS.items())),
        {name: MEMBERS[name] for name in ("config.json", "empty")},
        {**MEMBERS, "more": b""},
        {("renamed" if name == "empty" else name): content for name, content in MEMBERS.items()},
    ],
    ids=["swapped", "reordered", "missing", "added", "renamed"],
)
def test_other_members_than_were_written_are_noticed(members: dict[str, bytes]) -> None:
    with pytest.raises(Corrupt):
        read(assembled(described(MEMBERS), members))


@pytest.mark.parametrize(
    "name", ["../config.json", "/config.json", "C:config.json", "config.JSON", "a/b", ".x", "a\0b"]
)
def test_no_name_of_a_member_leads_anywhere(name: str) -> None:
    """Row 38 of the failure modes."""
    with pytest.raises(Corrupt, match="names that ours never have"):
        read(assembled(described({name: b"1"}), {name: b"1"}))


def test_a_duplicate_member_is_refused() -> None:
    content = io.BytesIO(packed())
    with warnings.catch_warnings(), zipfile.ZipFile(content, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("config.json", b"{}")
    with pytest.raises(Corrupt):
        read(content.getvalue())


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
def test_archives_of_other_writers_are_refused(compression: int) -> None:
    """Row 7 of the failure modes: what is compressed is never unpacked."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in {MANIFEST: strict_json.dumps(described(MEMBERS)), **MEMBERS}.items():
            archive.writestr(name, member)
    with pytest.raises(Corrupt):
        read(content.getvalue())


class Pipe(io.BytesIO):
    """Bytes that cannot be sought in, to which zipfile writes data descriptors."""

    def seekable(self) -> bool:
        return False

    def seek(self, *place: int) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def test_sizes_that_stand_behind_the_content_are_refused() -> None:
    content = Pipe()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in {MANIFEST: strict_json.dumps(described(MEMBERS)), **MEMBERS}.items():
            archive.writestr(name, member)
    with pytest.raises(Corrupt):
        read(content.getvalue())


def test_a_comment_is_refused() -> None:
    content = io.BytesIO(packed())
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(Corrupt):
        read(content.getvalue())


def test_the_extension_for_large_archives_is_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive, archive.open(MANIFEST, "w", force_zip64=True) as member:
        member.write(strict_json.dumps(described({})))
    with pytest.raises(Corrupt):
        read(content.getvalue())


# Manifests


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"format": "other"}, Unsupported, "none of everlearn's"),
        ({"min_reader": 4, "version": 5, "libraries": {"everlearn": "9.1"}}, Unsupported, "by everlearn '9.1'"),
        ({"min_reader": 4, "version": 5}, Unsupported, "Upgrade everlearn"),
        ({"min_reader": True}, Corrupt, "which version can read it"),
        ({"version": None}, Corrupt, "which version can read it"),
        ({"files": []}, Corrupt, "other members than there are"),
        ({"files": {name: {} for name in MEMBERS}}, Corrupt, "its SHA-256 is"),
        ({"content_id": ""}, Corrupt, "content_id"),
    ],
)
def test_what_a_manifest_says_is_checked(changes: dict[str, Any], error: type[CheckpointError], reason: str) -> None:
    """Row 6 of the failure modes: a later format is refused with the version that wrote it, and the remedy."""
    with pytest.raises(error, match=reason):
        read(assembled(described(MEMBERS, **changes), MEMBERS))


def test_a_later_version_that_this_reader_may_read_is_read() -> None:
    read(assembled(described(MEMBERS, version=4), MEMBERS))


@pytest.mark.parametrize("manifest", [b"[]", b"1", b"null", b"{}", b'"x"', b"{", b"\xff", b'{"a":1,"a":1}', b"[" * 99])
def test_a_manifest_that_is_none_is_refused(manifest: bytes) -> None:
    for content in (assembled(manifest, {}), assembled(manifest, {})[:-1]):
        with pytest.raises(CheckpointError):
            read(content)


sizes = st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**399) | st.text()


@given(st.dictionaries(st.text(max_size=5), st.dictionaries(st.just("bytes"), sizes) | sizes), st.integers(1, 60))
def test_a_hostile_manifest_in_a_cut_file_is_refused(files: dict[str, Any], missing: int) -> None:
    manifest = json.dumps({"files": files}).encode()
    with pytest.raises(CheckpointError):
        read(assembled(manifest, {"config.json": b"{}"})[:-missing])


@pytest.mark.parametrize(
    "unreadable",
    [
        {"far": json.loads("[" * 33 + "]" * 33)},
        {"long": "x" * 2**20},
        {"half a character": "\ud800"},
        {"twice": {1: "a", "1": "b"}},
        {"number": 10**400},
        {"number": float("nan")},
    ],
    ids=lambda unreadable: next(iter(unreadable)),
)
def test_nothing_is_written_that_no_reader_takes(unreadable: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="Give "):
        packed(**unreadable)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(max_size=9), st.binary(max_size=9)))
def test_what_can_be_packed_can_be_read(about: dict[str, Any], members: dict[str, bytes]) -> None:
    try:
        content = b"".join(pack(members, about))
    except ArgumentError:
        return
    assert dict(read(content).members) == members


# What lies about sizes


def lying(*sizes: int) -> bytes:
    """A file whose directory lists members that are not there."""
    entries = [layout.Entry(MANIFEST, 0, 0), *(layout.Entry(f"a{i}", size, 0) for i, size in enumerate(sizes))]
    central = struct.Struct("<4s6H3L5H2L")
    head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0x21, 0, 0, 0, len(MANIFEST), 0) + MANIFEST.encode()
    directory = b"".join(
        central.pack(b"PK\1\2", 20, 20, 0, 0, 0, 0x21, 0, size, size, len(name), 0, 0, 0, 0, 0, 0) + name.encode()
        for name, size, _ in entries
    )
    count = len(entries)
    return head + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(head), 0)


@pytest.mark.parametrize("sizes", [[1], [2**32 - 1], [2**32 - 1] * 3, [2**31] * 60])
def test_a_directory_that_promises_more_than_there_is_is_refused(sizes: list[int]) -> None:
    """Row 7 of the failure modes."""
    with pytest.raises(Corrupt, match="do not fill the place"):
        read(lying(*sizes))


def test_a_cut_file_says_how_much_is_missing_whatever_it_promises() -> None:
    manifest = json.dumps({"files": {name: {"bytes": 2**32 - 2**20} for name in "abc"}}).encode()
    whole = assembled(manifest, {})
    with pytest.raises(Truncated, match=f"it ends after {len(whole) - 22} of 128[0-9]{{8}} bytes"):
        read(whole[:-22])


def test_a_cut_file_that_promises_thousands_of_members_takes_a_moment() -> None:
    """Row 7 of the failure modes."""
    files = {f"a{number}": {"bytes": 1} for number in range(45_000)}
    content = assembled(strict_json.dumps({"files": files}), {})[:-22]
    start = time.process_time()
    with pytest.raises(Truncated):
        read(content)
    assert time.process_time() - start < 1.0


# Limits


@pytest.mark.parametrize(
    ("limit", "value", "place"),
    [
        ("file_bytes", 400, "bytes"),
        ("members", 3, "members"),
        ("manifest_bytes", 100, MANIFEST),
        ("json_depth", 1, "nested deeper"),
    ],
)
def test_what_asks_for_more_than_the_limits_is_refused(limit: str, value: int, place: str) -> None:
    """Row 7 of the failure modes."""
    with pytest.raises(TooLarge, match=place) as caught:
        read(packed(), limits=Limits(**{limit: value}))
    assert "imits=Limits(" in str(caught.value)


def test_a_member_that_is_too_large_to_be_json_is_refused() -> None:
    archive = read(packed(), limits=Limits(json_bytes=10))
    with pytest.raises(TooLarge, match=r"config\.json: it has 16 bytes, 10 are allowed"):
        archive.json("config.json")


def test_a_missing_member_is_named() -> None:
    with pytest.raises(Corrupt, match=r"spaces\.json: it is missing"):
        read(packed()).json("spaces.json")


# Where files come from


def test_a_path_is_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed())
    assert read_archive(path).file == str(path)
    path.write_bytes(packed()[:-1])
    with pytest.raises(Truncated, match=str(path)):
        read_archive(path)


def test_a_missing_path_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "x.zip")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """Row 3 of the failure modes."""
    with pytest.raises(Unsupported, match="this is a directory"):
        read_archive(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", bytes(100)])
def test_another_file_is_refused(content: bytes) -> None:
    """Row 3 of the failure modes."""
    with pytest.raises(Unsupported):
        read(content)


@pytest.mark.parametrize("read_file", [read_archive, read_manifest, recognise])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read_file: Callable[[Path], object]) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(NotAFile, match="this is a pipe or a device"):
        read_file(tmp_path / "x.zip")


class Counted(io.BytesIO):
    """An open file that counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        self.count += len(content)
        return content


@pytest.mark.parametrize("head", [b"", b"hello ", b"\x80\x04", b"\x93NUMPY"])
def test_of_another_file_only_the_beginning_is_read(head: bytes) -> None:
    """Row 7 of the failure modes: a file of gigabytes that is none of ours costs nothing."""
    file = Counted(head + bytes(10**6))
    with pytest.raises(CheckpointError):
        read_archive(file)
    assert file.count < 10_000


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    opened = open_descriptors()
    for content in (b"", b"hello", packed()[:-1], damage.turned(packed(), 9)):
        path.write_bytes(content)
        for read_file in (read_archive, read_manifest):
            with contextlib.suppress(CheckpointError):
                read_file(path)
    assert open_descriptors() == opened


class Short(io.BytesIO):
    """An open file that gives fewer bytes than it is asked for, in a type of its own, as unbuffered files may."""

    def read(self, size: int | None = -1) -> Any:
        return bytearray(super().read(min(size or 0, 100)))


def test_an_open_file_that_gives_few_bytes_at_a_time_is_read_whole() -> None:
    assert read_archive(Short(packed())).sha256 == hashlib.sha256(packed()).hexdigest()


def test_an_open_file_is_read_from_its_beginning() -> None:
    file = io.BytesIO(packed())
    file.seek(100)
    assert read_archive(file).manifest["step"] == 12288


def test_an_open_file_that_cannot_be_sought_in_is_refused() -> None:
    with pytest.raises(ArgumentError, match="cannot be read from its end"):
        read_archive(Pipe(packed()))


def test_a_file_that_is_open_as_text_is_refused() -> None:
    with pytest.raises(ArgumentError, match="binary mode"):
        read_archive(io.StringIO("PK"))


# Pins


def test_the_file_that_was_pinned_is_read() -> None:
    sha = hashlib.sha256(packed()).hexdigest()
    assert read(packed(), sha256=sha).sha256 == read(packed(), sha256=sha.upper()).sha256 == sha


def test_another_file_than_was_pinned_is_refused_with_both_hashes() -> None:
    found, pinned = hashlib.sha256(packed()).hexdigest(), "0" * 64
    with pytest.raises(Untrusted, match=f"{found}, not {pinned}"):
        read(packed(), sha256=pinned)


@pytest.mark.parametrize("pin", ["", "0" * 63, "0" * 65, "g" * 64, b"0" * 64])
def test_a_pin_that_is_none_is_refused(pin: Any) -> None:
    with pytest.raises(ArgumentError, match="64 hexadecimal digits"):
        read(packed(), sha256=pin)


# Manifests alone


def test_a_manifest_is_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(packed()[:-100])
    assert read_manifest(path)["step"] == 12288


@pytest.mark.parametrize("content", [b"", b"PK\3\4", packed()[:100], damage.turned(packed(), 8 * 60), bytes(500)])
def test_a_damaged_manifest_is_refused_when_read_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_manifest(path)


def test_a_manifest_that_lies_about_its_size_allocates_nothing(tmp_path: Path) -> None:
    """Row 7 of the failure modes."""
    whole = bytearray(packed())
    struct.pack_into("<2L", whole, 18, 2**32 - 1, 2**32 - 1)
    path = tmp_path / "x.zip"
    path.write_bytes(whole)
    with pytest.raises(CheckpointError):
        read_manifest(path)
    with pytest.raises(CheckpointError):
        read_archive(path)


@given(st.binary(max_size=200), st.integers(0, 1200), st.integers(0, 60))
def test_no_change_of_bytes_raises_anything_else(junk: bytes, start: int, removed: int) -> None:
    whole = packed()
    changed = whole[:start] + junk + whole[start + removed :]
    if changed != whole:
        assert damage.outcome_of(changed) != damage.SILENT
