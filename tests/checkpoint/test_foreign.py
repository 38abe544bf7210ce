"""Rows 3, 4 and 5 of the failure-mode table: what a foreign file looks like is said, and nothing in it runs."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from everlearn.checkpoint.errors import Corrupt, Truncated, Unsupported, Untrusted
from everlearn.checkpoint.foreign import Kind, recognise, refusal
from tests.checkpoint.foreign_files import (
    PAYLOAD,
    SB3_ZIP,
    payload_ran,
    pickled_value,
    saved,
    sb3_data,
    sb3_zip,
    torch_zip,
    zipped,
)

NO_ZIPS = {
    Kind.EMPTY: b"",
    Kind.OLD_TORCH: saved({"a": torch.zeros(2)}, _use_new_zipfile_serialization=False),
    Kind.PICKLE: PAYLOAD,
    Kind.NUMPY: b"\x93NUMPY\x01\x00v\x00",
    Kind.HDF5: b"\x89HDF\r\n\x1a\n\x00\x00",
    Kind.SAFETENSORS: (2).to_bytes(8, "little") + b"{}",
    Kind.GIT_LFS: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    Kind.TEXT: "learning_rate: 1e-4  # größer\n".encode(),
    Kind.UNKNOWN: b"\x00\x01\xfe\xff",
}
WHOLE_ZIPS = {
    Kind.SB3: SB3_ZIP.read_bytes(),
    Kind.TORCH: saved({"a": torch.zeros(2)}),
    Kind.KERAS: zipped({"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b""}),
    Kind.NUMPY: zipped({"a.npy": b"", "b.npy": b""}),
    Kind.EVERLEARN: zipped({"manifest.json": b"{}"}),
    Kind.ZIP: zipped({"readme.txt": b"", "data": b""}),
}
PICKLES = {
    "protocol 0": b"cbuiltins\nexec\n(S'1'\ntR.",
    "a dictionary, protocol 0": b"(dp0\nS'a'\np1\nI1\ns.",
    "a dictionary, protocol 1": b"}q\x00(U\x01aq\x01K\x01u.",
    "an instance": b"(ios\nsystem\n(lp0\ntp1\n.",
    "protocol 2": b"\x80\x02}q\x00.",
    "protocol 5": b"\x80\x05N.",
}


@pytest.mark.parametrize(("kind", "content"), [*NO_ZIPS.items(), *WHOLE_ZIPS.items()])
def test_a_file_is_recognised_by_its_content_under_any_name(kind: Kind, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    assert recognise(path) is kind
    file = io.BytesIO(content)
    file.seek(3)
    assert recognise(file) is kind


def test_a_directory_is_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path) is Kind.DIRECTORY


@pytest.mark.parametrize("pickle", PICKLES.values(), ids=PICKLES)
def test_pickles_of_every_protocol_are_untrusted(pickle: bytes) -> None:
    assert recognise(io.BytesIO(pickle)) is Kind.PICKLE
    assert isinstance(refusal(io.BytesIO(pickle), "m.pkl"), Untrusted)


@pytest.mark.parametrize(("kind", "content"), NO_ZIPS.items())
def test_row_3_what_is_no_zip_is_refused_with_what_it_looks_like(kind: Kind, content: bytes) -> None:
    error = refusal(io.BytesIO(content), "some.zip")
    assert isinstance(error, Untrusted if kind in (Kind.PICKLE, Kind.OLD_TORCH) else Unsupported)
    assert "wasn't a zip-file" in str(error)
    assert str(error).startswith("some.zip: ")
    assert kind.value in str(error)


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (Kind.SB3, Untrusted),
        (Kind.TORCH, Untrusted),
        (Kind.KERAS, Unsupported),
        (Kind.NUMPY, Unsupported),
        (Kind.ZIP, Unsupported),
        (Kind.EVERLEARN, Corrupt),
    ],
)
def test_row_5_zips_of_others_are_refused_with_what_they_look_like(kind: Kind, refused: type[Exception]) -> None:
    error = refusal(io.BytesIO(WHOLE_ZIPS[kind]), "some.zip")
    assert type(error) is refused
    assert "wasn't a zip-file" not in str(error)
    assert kind is Kind.EVERLEARN or kind.value in str(error)


def test_row_5_the_refusal_of_an_sb3_zip_reports_what_is_in_it_and_the_ways_in() -> None:
    message = str(refusal(io.BytesIO(SB3_ZIP.read_bytes()), "ppo.zip"))
    for expected in (
        "Stable-Baselines3 2.9.2",
        "observation_space: Box, dtype float32, shape [4], low [-4.8",
        "action_space: Discrete, dtype int64, shape [], n 2, start 0",
        "tensors: pytorch_variables.pth, policy.pth, policy.optimizer.pth",
        "observation_space, action_space, rollout_buffer_class, clip_range, lr_schedule",
        "PPO.import_weights(file, env)",
        "everlearn convert",
        "trust=True",
    ):
        assert expected in message


def test_an_sb3_zip_whose_data_cannot_be_read_is_refused_for_the_same_reason() -> None:
    error = refusal(io.BytesIO(sb3_zip({"data": b"[" * 100_000})), "ppo.zip")
    assert isinstance(error, Untrusted)
    assert "No report: it is nested too deeply" in str(error)


@pytest.mark.parametrize("kind", [Kind.SB3, Kind.TORCH, Kind.EVERLEARN])
def test_a_cut_archive_is_recognised_as_what_it_was_and_truncated(kind: Kind) -> None:
    """Row 1: the archives within an archive have ends of their own, which a cut file may end with."""
    content = WHOLE_ZIPS[kind]
    lengths = [*range(50, len(content), 61), *range(len(content) - 30, len(content))]
    for length in lengths:
        cut = io.BytesIO(content[:length])
        assert recognise(cut) is kind, length
        assert type(refusal(cut, "cut.zip")) is Truncated, length


def test_a_cut_within_the_first_header_is_truncated_too() -> None:
    for length in range(4, 50):
        assert type(refusal(io.BytesIO(SB3_ZIP.read_bytes()[:length]), "cut.zip")) is Truncated, length


def test_bytes_behind_the_end_are_corrupt() -> None:
    error = refusal(io.BytesIO(SB3_ZIP.read_bytes() + b"\x00" * 7), "ppo.zip")
    assert type(error) is Corrupt
    assert "7 bytes follow the end" in str(error)


def test_an_sb3_zip_that_was_packed_anew_with_compression_is_recognised() -> None:
    content = io.BytesIO(sb3_zip(compression=zipfile.ZIP_DEFLATED))
    assert recognise(content) is Kind.SB3
    assert "Stable-Baselines3 2.9.2" in str(refusal(content, "ppo.zip"))


def test_a_message_shows_nothing_that_a_terminal_would_obey() -> None:
    space = {":type:": "<class 'Box'>", ":serialized:": "", "low": "\x1b[2J" + "x" * 1000}
    message = str(refusal(io.BytesIO(sb3_zip(sb3_data(observation_space=space))), "ppo.zip"))
    assert "\x1b" not in message
    assert "x" * 200 not in message


@pytest.mark.parametrize(
    "content",
    [
        PAYLOAD,
        torch_zip(PAYLOAD),
        sb3_zip({"policy.pth": torch_zip(PAYLOAD)}),
        sb3_zip({"policy.pth": PAYLOAD}),
        sb3_zip(sb3_data(clip_range=pickled_value(), unknown=pickled_value())),
    ],
    ids=["top level", "torch", "in policy.pth", "as policy.pth", "in data"],
)
def test_row_4_nothing_runs_when_a_file_is_recognised_and_refused(content: bytes) -> None:
    assert isinstance(refusal(io.BytesIO(content), "attack.zip"), Untrusted)
    assert not payload_ran()


def test_no_torch_is_needed_to_refuse_a_file() -> None:
    program = f"""
import sys
from everlearn.checkpoint.foreign import refusal
with open({str(SB3_ZIP)!r}, "rb") as file:
    print(refusal(file, "ppo.zip"))
sys.exit("torch" in sys.modules or "numpy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
