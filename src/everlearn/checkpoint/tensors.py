"""Tensors as the bytes of a member, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from everlearn.checkpoint.limits import Limits
from everlearn.checkpoint.tensor_header import Form, forms_of, layout
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


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of some tensors, each of a dtype in ``DTYPES``."""
    header, places = layout({name: Form(DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()})
    return b"".join([header, *(bits(tensors[name]).numpy().data for name in places)])


def unpacked(content: memoryview, file: object, member: str, limits: Limits) -> dict[str, Tensor]:
    """The tensors that ``packed`` has made bytes of, each with memory of its own.

    Raises:
        Corrupt: If it has not.
        TooLarge: If they are more than the limits allow, or their header is longer.
    """
    forms = forms_of(content, file, member, limits)
    header, places = layout(forms)
    values = content[len(header) :]
    return {name: _tensor(values[begin:end], forms[name]) for name, (begin, end) in places.items()}


def _tensor(values: memoryview, form: Form) -> Tensor:
    dtype = _DTYPE_OF[form.dtype]
    if not values:
        return torch.empty(form.shape, dtype=dtype)
    return torch.from_numpy(np.frombuffer(values, np.uint8).copy()).view(dtype).reshape(form.shape)
