"""JSON without room for interpretation, and without room for a file that wants much of its reader."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge

MEGABYTE = 2**20


def loads(content: bytes, max_bytes: int = 8 * MEGABYTE, max_depth: int = 8) -> object:
    return strict_json.loads(content, "x.zip", "config.json", max_bytes=max_bytes, max_depth=max_depth)


texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(plain | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


@given(values)
def test_what_is_written_is_read(value: object) -> None:
    content = strict_json.dumps(value)
    assert strict_json.loads(content, "", "", max_bytes=len(content), max_depth=100) == value


def test_keys_keep_their_order_and_nothing_is_written_between() -> None:
    assert strict_json.dumps({"b": 1, "a": [1.5, "é"]}) == b'{"b":1,"a":[1.5,"\\u00e9"]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dumps([value])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[1] 2", "Extra data"),
        (b"NaN", "NaN is no number"),
        (b"[Infinity]", "Infinity is no number"),
        (b"-Infinity", "-Infinity is no number"),
        (b"1e999", "1e999 is too large"),
        (b'{"a":1,"a":1}', "a key stands twice"),
        (b'{"b":{"a":1,"a":2}}', "a key stands twice"),
        (b'"\xff"', "can't decode byte"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"\\uDC00":1}', "surrogates not allowed"),
        (b"1" * 401, "more than 400 digits"),
        (b"[0." + b"1" * 401 + b"]", "more than 400 digits"),
        (b'"a\nb"', "Invalid control character"),
        (b"]" * 20, "Expecting value"),
        (b"\xef\xbb\xbf[]", "BOM"),
    ],
)
def test_what_is_no_strict_json_is_corrupt(content: bytes, reason: str) -> None:
    with pytest.raises(Corrupt, match=reason) as caught:
        loads(content)
    assert str(caught.value).startswith("x.zip, config.json: it is no strict JSON (")


@pytest.mark.parametrize("content", [b'"' + b"1" * 500 + b'"', b'["\\ud83d\\ude00"]', b"1" * 400, b'"[[[[[[[[[["'])
def test_digits_brackets_and_characters_in_texts_are_just_texts(content: bytes) -> None:
    loads(content)


def test_a_size_beyond_the_limit_is_refused_before_it_is_read() -> None:
    """Row 7 of the failure modes."""
    with pytest.raises(TooLarge, match="11 bytes, 10 are allowed"):
        loads(b"[" * 11, max_bytes=10)
    loads(b"[" + b" " * 8 + b"]", max_bytes=10)


def test_depth_is_counted_to_the_bracket() -> None:
    """Row 7 of the failure modes."""
    assert loads(b"[" * 8 + b"]" * 8)
    assert loads(b'{"a":' * 8 + b"1" + b"}" * 8)
    with pytest.raises(TooLarge, match="nested deeper than 8"):
        loads(b"[" * 9 + b"]" * 9)
    with pytest.raises(TooLarge, match="nested deeper than 8"):
        loads(b'{"a":' * 9 + b"1" + b"}" * 9)
    assert loads(b"[" + b"[]," * 20 + b"[]]")


@pytest.mark.parametrize("start", [b'["]",', b'["\\"",', b'["\\\\",'])
def test_quotes_do_not_hide_depth(start: bytes) -> None:
    with pytest.raises(TooLarge):
        loads(start + b"[" * 9 + b"]" * 10)


@pytest.mark.parametrize(
    "content",
    [
        b'"' + b'\\"' * (MEGABYTE // 2),
        b'\\"' * (MEGABYTE // 2),
        b'"a' * (MEGABYTE // 2),
        b"[" * MEGABYTE,
        b"[" + b"[]," * (MEGABYTE // 3) + b"[]]",
        b"1" * MEGABYTE,
        b"[" + (b"1" * 400 + b",") * (MEGABYTE // 401) + b"1]",
        b"\\" * MEGABYTE,
    ],
    ids=["escaped quotes", "quotes in nothing", "open texts", "brackets", "pairs", "digits", "numbers", "backslashes"],
)
def test_a_megabyte_of_anything_takes_a_moment(content: bytes) -> None:
    """Row 7 of the failure modes: the work grows with the size and no faster."""
    start = time.process_time()
    with contextlib.suppress(CheckpointError):
        loads(content)
    assert time.process_time() - start < 1.0


@given(st.binary(max_size=60) | st.text('[]{}":,\\u0dn1e.-+ ', max_size=60).map(str.encode))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    try:
        loads(content)
    except CheckpointError as error:
        assert isinstance(error, (Corrupt, TooLarge))
