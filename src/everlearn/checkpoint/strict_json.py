"""JSON without room for interpretation: no NaN, no duplicate keys, measured before it is parsed."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

from everlearn.checkpoint.errors import Corrupt, TooLarge
from everlearn.core.errors import ArgumentError

_DIGITS = 400
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # an open one goes to the end: each byte is looked at once
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_RUNS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_REMEDY = "Restore the file from a copy."
_WRITABLE = "Give finite numbers of ordinary length, whole characters, and keys that differ as texts."


def dumps(value: Any) -> bytes:
    """The value as UTF-8, compact, keys in the given order.

    Raises:
        ArgumentError: For what ``loads`` would refuse: a NaN, an infinity, half a character, keys equal as texts.
        TypeError: For what JSON does not have.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":")).encode("ascii")
        _parsed(text, _STRING.sub(b"", text))
    except ValueError as error:
        raise ArgumentError(f"This cannot be written as strict JSON: {error}. {_WRITABLE}") from error
    return text


def loads(content: bytes | bytearray | memoryview, file: object, member: str, *, max_bytes: int, max_depth: int) -> Any:
    """The value of a member.

    Args:
        content: The member.
        file: For messages.
        member: For messages.
        max_bytes: Largest size.
        max_depth: Deepest nesting of lists and objects.

    Raises:
        TooLarge: If it is larger or deeper.
        Corrupt: If it is no strict JSON.
    """
    if len(content) > max_bytes:
        raise TooLarge(
            file, f"it has {len(content)} bytes, {max_bytes} are allowed.", "Raise limits=Limits(...).", member
        )
    text = bytes(content)
    bare = _STRING.sub(b"", text)
    if _depth(bare) > max_depth:
        raise TooLarge(file, f"it is nested deeper than {max_depth}.", "Raise limits=Limits(json_depth=...).", member)
    try:
        return _parsed(text, bare)
    except ValueError as error:
        raise Corrupt(file, f"it is no strict JSON ({error}).", _REMEDY, member) from error


def _parsed(text: bytes, bare: bytes) -> Any:
    """The value; ``bare`` is the text without its strings."""
    if b"0" * (_DIGITS + 1) in bare.translate(_RUNS):
        raise ValueError(f"a number has more than {_DIGITS} digits")
    value = json.loads(
        text.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refused, parse_float=_finite
    )
    if b"\\ud" in text.lower():  # an escape that may be half a character, which no text can hold
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _depth(bare: bytes) -> int:
    """How deep brackets are nested."""
    steps = map(_STEPS.__getitem__, bare.translate(None, _NO_BRACKETS))
    return max(accumulate(steps), default=0)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key stands twice")
    return mapping


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large a number")
    return number
