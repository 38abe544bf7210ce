"""A file cut at every length, and with single bits turned over: nothing of it may load, and nothing crash."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Iterator

from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.errors import CheckpointError

SILENT = "silent load"
"""The outcome that may never be."""


def small_file() -> bytes:
    """A whole file with several members, of some two thousand bytes."""
    members = {"config.json": b'{"n_steps":2048}', "policy.safetensors": random.Random(0).randbytes(900), "empty": b""}
    return b"".join(pack(members, {"kind": "model", "step": 12288, "performance": 0.5}))


def outcome_of(content: bytes) -> str:
    """The class of the error that a reader raises."""
    try:
        read_archive(io.BytesIO(content))
    except CheckpointError as error:
        return type(error).__name__
    return SILENT


def truncations(whole: bytes) -> Iterator[bytes]:
    """The file cut at every length."""
    return (whole[:length] for length in range(len(whole)))


def turned(whole: bytes, bit: int) -> bytes:
    """The file with one bit turned over."""
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def bit_flips(whole: bytes, number: int) -> Iterator[bytes]:
    """The file with one bit turned over, each time another one, drawn from all."""
    bits = random.Random(1).sample(range(8 * len(whole)), min(number, 8 * len(whole)))
    return (turned(whole, bit) for bit in bits)


def outcomes(files: Iterator[bytes]) -> Counter[str]:
    """How often which error was raised; one that is none of the family is not caught."""
    return Counter(map(outcome_of, files))
