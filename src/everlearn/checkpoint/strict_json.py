"""JSON without room for interpretation: no NaN, no duplicate keys, measured before it is parsed."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from everlearn.checkpoint.errors import Corrupt, TooLarge

_DIGITS = 400
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_REMEDY = "Restore the file from a copy."


def dumps(value: Any) -> bytes:
    """The value as UTF-8, compact, keys in the given order.

    Raises:
        ValueError: For a NaN or an infinity.
        TypeError: For what JSON does not have.
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":")).encode("ascii")


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
    if _depth(text) > max_depth:
        raise TooLarge(file, f"it is nested deeper than {max_depth}.", "Raise limits=Limits(json_depth=...).", member)
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refused,
            parse_int=_whole,
            parse_float=_finite,
        )
    except ValueError as error:
        raise Corrupt(file, f"it is no strict JSON ({error}).", _REMEDY, member) from error


def _depth(text: bytes) -> int:
    """How deep brackets are nested, those in strings aside."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key stands twice")
    return mapping


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large a number")
    return number
