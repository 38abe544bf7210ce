"""Tensors as bytes: what the library of the format reads and writes, and no other form."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from everlearn.checkpoint.errors import Corrupt, TooLarge
from everlearn.checkpoint.limits import LIMITS
from everlearn.checkpoint.tensors import DTYPES, packed, unpacked


def read(content: bytes) -> dict[str, Tensor]:
    return unpacked(memoryview(content), "a.zip", "policy.safetensors", LIMITS)


TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "bias": torch.zeros(3),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False]),
}
EVERY = {f"{index}": torch.ones(index).to(dtype) for index, dtype in enumerate(DTYPES)}


@pytest.mark.parametrize("tensors", [TENSORS, EVERY, {}], ids=["some", "every dtype", "none"])
def test_the_library_of_the_format_reads_what_is_written(tensors: dict[str, Tensor]) -> None:
    for found in (load(packed(tensors)), read(packed(tensors))):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        assert all(found[name].dtype is tensor.dtype for name, tensor in tensors.items())


def test_what_the_library_writes_is_the_same() -> None:
    assert packed(TENSORS) == save(TENSORS)


def test_each_tensor_has_memory_of_its_own() -> None:
    content = bytearray(packed(TENSORS))
    found = read(content)
    content[:] = bytes(len(content))
    assert torch.equal(found["weight"], TENSORS["weight"])
    assert all(tensor.storage_offset() == 0 for tensor in found.values())


def with_header(change: Any, content: bytes = packed(TENSORS)) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + content[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["weight"].update(shape=[3, 3]),
        lambda header: header["weight"].update(shape=[-2, -3]),
        lambda header: header["weight"].update(shape=[2.0, 3]),
        lambda header: header["weight"].update(shape=[2**62, 2**62]),
        lambda header: header["weight"].update(shape="23"),
        lambda header: header["empty"].update(shape=[0, 2**40, 2**40]),
        lambda header: header["empty"].update(shape=[0] * 100),
        lambda header: header["weight"].update(dtype="F64"),
        lambda header: header["weight"].update(dtype="F8_E4M3"),
        lambda header: header["weight"].update(dtype=["F32"]),
        lambda header: header["weight"].update(data_offsets=[0, 24]),
        lambda header: header["weight"].update(data_offsets=[8, 10**15]),
        lambda header: header["weight"].update(more=1),
        lambda header: header.update(weight=5),
        lambda header: header.pop("weight"),
        lambda header: header.update(__metadata__={"a": "b"}),
        lambda header: header.update({"new": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
    ],
)
def test_a_header_that_is_not_its_tensors_own_is_corrupt(change: Any) -> None:
    with pytest.raises(Corrupt, match=r"a\.zip, policy\.safetensors: "):
        read(with_header(change))


@pytest.mark.parametrize("length", range(len(packed(TENSORS))))
def test_row_1_a_member_that_is_cut_anywhere_is_refused(length: int) -> None:
    """Row 1 of the failure modes."""
    with pytest.raises((Corrupt, TooLarge)):
        read(packed(TENSORS)[:length])


def test_trailing_bytes_and_another_order_are_corrupt() -> None:
    content = packed(TENSORS)
    with pytest.raises(Corrupt):
        read(content + b"\0")
    with pytest.raises(Corrupt):
        read(with_header(lambda header: [header.update({name: header.pop(name)}) for name in sorted(header)]))
    with pytest.raises(Corrupt):
        read(b"\x04\0\0\0\0\0\0\0[1] ")
