"""Tensors as the bytes of a safetensors file, in the one form in which everlearn writes them.

The format: eight bytes for the length of the header, the header (JSON: dtype, shape and place of each tensor, padded to
eight bytes), the values one after the other, those with the largest elements first. The header is a function of names,
dtypes and shapes; a reader takes these from it, makes it anew and compares it byte for byte. So no place is believed.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import Corrupt, TooLarge
from everlearn.checkpoint.limits import Limits
from everlearn.core.digest import bits

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What a tensor may be, and the word for it."""
_DTYPE_OF = {word: dtype for dtype, word in DTYPES.items()}
_LENGTH = 8  # bytes
_DEPTH = 3
_MOST_SIDES = 64
_MOST_ELEMENTS = 2**48
_ENTRY = b'"data_offsets"'
_REMEDY = "Restore the file from a copy."
Form = tuple[torch.dtype, tuple[int, ...]]


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of some tensors, each of a dtype in ``DTYPES``."""
    header, places = _layout({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()})
    return b"".join([header, *(bits(tensors[name]).numpy().data for name in places)])


def unpacked(content: memoryview, file: object, member: str, limits: Limits) -> dict[str, Tensor]:
    """The tensors that ``packed`` has made bytes of.

    Raises:
        Corrupt: If it has not.
        TooLarge: If they are more than the limits allow, or their header is longer.
    """
    forms = forms_of(content, file, member, limits)
    header, places = _layout(forms)
    values = content[len(header) :]
    return {name: _tensor(values[begin:end], *forms[name]) for name, (begin, end) in places.items()}


def forms_of(content: memoryview, file: object, member: str, limits: Limits) -> dict[str, Form]:
    """Dtype and shape of each tensor, once the layout made of them is the content's.

    Raises:
        Corrupt: If it is not.
        TooLarge: If they are more than the limits allow, or their header is longer.
    """
    length = int.from_bytes(content[:_LENGTH], "little")
    if length > limits.header_bytes:
        raise _excess(file, member, f"the header of its tensors has {length} bytes", "header_bytes", limits)
    header = bytes(content[: _LENGTH + length])
    count = header.count(_ENTRY)
    if count > limits.tensors:
        raise _excess(file, member, f"it has {count} tensors", "tensors", limits)
    entries = strict_json.loads(header[_LENGTH:], file, member, max_bytes=limits.header_bytes, max_depth=_DEPTH)
    forms = _forms(entries, file, member)
    expected, places = _layout(forms)
    size = max((end for _, end in places.values()), default=0)
    if header != expected or len(content) != len(header) + size:
        raise Corrupt(file, "the header of its tensors is not the one of their dtypes and shapes.", _REMEDY, member)
    return forms


def _tensor(values: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor with memory of its own."""
    if not values:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.frombuffer(values, np.uint8).copy()).view(dtype).reshape(shape)


def _layout(forms: Mapping[str, Form]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The header of tensors of these forms, and where the values of each begin and end."""
    header: dict[str, Any] = {}
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, (dtype, shape) in sorted(forms.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        places[name] = (begin, end)
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    encoded = strict_json.dumps(header)
    encoded += b" " * (-len(encoded) % _LENGTH)
    return len(encoded).to_bytes(_LENGTH, "little") + encoded, places


def _forms(entries: Any, file: object, member: str) -> dict[str, Form]:
    forms: dict[str, Form] = {}
    for name, entry in entries.items() if isinstance(entries, dict) else [("the header", None)]:
        form = entry if isinstance(entry, dict) else {}
        dtype = _DTYPE_OF.get(str(form.get("dtype")))
        shape = form.get("shape")
        if dtype is None or not _is_shape(shape):
            raise Corrupt(file, f"'{name}' is {entry!r}, which describes no tensor.", _REMEDY, member)
        forms[name] = (dtype, tuple(shape))
    return forms


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    """Whether it is a shape, and one that torch can have: sides beside an empty one count too."""
    if not (isinstance(shape, list) and len(shape) <= _MOST_SIDES):
        return False
    whole = all(type(side) is int and 0 <= side <= _MOST_ELEMENTS for side in shape)
    return whole and math.prod(max(side, 1) for side in shape) <= _MOST_ELEMENTS


def _excess(file: object, member: str, problem: str, limit: str, limits: Limits) -> TooLarge:
    remedy = f"If you trust the file, raise limits=Limits({limit}=...)."
    return TooLarge(file, f"{problem}, {getattr(limits, limit)} are allowed.", remedy, member)
