"""The header of a tensor member: a function of names, dtypes and shapes, made anew by its reader.

The format is safetensors: eight bytes for the length of the header, the header (JSON: dtype, shape and place of each
tensor, padded to eight bytes), the values one after the other, those with the largest elements first. Whoever reads
takes names, dtypes and shapes from the header, makes it anew and compares it byte for byte. So no place is believed.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import Corrupt, TooLarge
from everlearn.checkpoint.limits import Limits

ITEM_BYTES = {
    **dict.fromkeys(("F64", "C64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL"), 1),
}
"""The words for dtypes, and how many bytes an element has."""
_LENGTH = 8  # bytes
_DEPTH = 3
_MOST_SIDES = 64
_MOST_ELEMENTS = 2**48
_ENTRY = b'"data_offsets"'
_REMEDY = "Restore the file from a copy."


class Form(NamedTuple):
    """What the header says of a tensor besides its place."""

    dtype: str
    shape: tuple[int, ...]


def layout(forms: Mapping[str, Form]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The header of tensors of these forms, and where among the values each begins and ends, in that order."""
    header: dict[str, Any] = {}
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, (dtype, shape) in sorted(forms.items(), key=lambda item: (-ITEM_BYTES[item[1].dtype], item[0])):
        begin, end = end, end + math.prod(shape) * ITEM_BYTES[dtype]
        places[name] = (begin, end)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    encoded = strict_json.dumps(header)
    encoded += b" " * (-len(encoded) % _LENGTH)
    return len(encoded).to_bytes(_LENGTH, "little") + encoded, places


def forms_of(content: memoryview, file: object, member: str, limits: Limits) -> dict[str, Form]:
    """The form of each tensor of a member, once the layout made of them is the member's own.

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
    expected, places = layout(forms)
    size = max((end for _, end in places.values()), default=0)
    if header != expected or len(content) != len(header) + size:
        raise Corrupt(file, "the header of its tensors is not the one of their dtypes and shapes.", _REMEDY, member)
    return forms


def _forms(entries: Any, file: object, member: str) -> dict[str, Form]:
    forms: dict[str, Form] = {}
    for name, entry in entries.items() if isinstance(entries, dict) else [("the header", None)]:
        fields = entry if isinstance(entry, dict) else {}
        dtype, shape = fields.get("dtype"), fields.get("shape")
        if not (isinstance(dtype, str) and dtype in ITEM_BYTES and _is_shape(shape)):
            raise Corrupt(file, f"'{name}' is {entry!r:.200}, which describes no tensor.", _REMEDY, member)
        forms[name] = Form(dtype, tuple(shape))
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
