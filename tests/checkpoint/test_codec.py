"""What goes into a file comes back to the bit; what no file can hold is refused by its path."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.codec import members_of, state_of
from everlearn.checkpoint.errors import Corrupt, TooLarge
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.core.digest import digest
from everlearn.core.errors import StateError


def through_a_file(state: Any) -> Any:
    archive = read_archive(io.BytesIO(b"".join(pack(members_of("part", state), {}))))
    return state_of(archive, "part", LIMITS)


def read(members: dict[str, Any], limits: Limits = LIMITS) -> Any:
    return state_of(read_archive(io.BytesIO(b"".join(pack(members, {})))), "part", limits)


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text())
leaves = st.one_of(
    plain,
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), arrays.array_shapes(min_side=0)
    ),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(states)
def test_any_state_comes_back_with_its_types_and_bits(state: Any) -> None:
    again = through_a_file(state)
    assert digest(again) == digest(state)
    assert kinds(again) == kinds(state)


def kinds(state: Any) -> Any:
    """The types of a state, where a digest does not tell them apart."""
    if isinstance(state, dict):
        return {key: kinds(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state), [kinds(item) for item in state]
    return type(state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)], ids=str)
def test_tensors_of_every_dtype_and_shape_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    again = through_a_file({"t": tensor})["t"]
    assert (again.dtype, again.shape) == (dtype, shape)
    assert torch.equal(again, tensor)


def test_views_that_are_not_contiguous_come_back_as_their_values() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    again = through_a_file({"t": base.t(), "row": base[1], "base": base})
    assert torch.equal(again["t"], base.t())
    assert torch.equal(again["row"], base[1])


def test_tensors_that_share_memory_are_written_once() -> None:
    tensor = torch.randn(1000)
    members = members_of("part", {"a": tensor, "b": tensor.detach(), "c": tensor.clone()})
    assert 8000 < len(members["part.safetensors"]) < 8400
    again = read(members)
    assert all(torch.equal(again[name], tensor) for name in "abc")


def test_arrays_that_die_during_encoding_are_not_taken_for_one_another() -> None:
    state = {str(i): np.full(1000, i, dtype=">f4") for i in range(20)}
    again = through_a_file(state)
    assert [float(again[str(i)][0]) for i in range(20)] == list(range(20))


def test_numbers_that_json_lacks_come_back() -> None:
    state = [2**53, 2**53 + 1, -(2**127), math.inf, -math.inf, -0.0, 5e-324, True, 1, 1.0]
    again = through_a_file(state)
    assert again == state
    assert [type(number) for number in again] == [type(number) for number in state]
    assert math.copysign(1, again[5]) == -1
    assert math.isnan(through_a_file(math.nan))


def test_keys_that_look_like_marks_are_keys() -> None:
    state = {"$tensor": 1, "$float": "nan", "plain": {3: "three", "3": "text"}}
    assert through_a_file(state) == state


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        (lambda: 0, "function"),
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
        (np.array(["text"]), "ndarray of <U4"),
        (np.array([None]), "ndarray of object"),
        (torch.zeros(2, dtype=torch.complex128), "Tensor of torch.complex128"),
        (torch.eye(2).to_sparse(), "Tensor of torch.float32"),
        ({(1, 2): 3}, "tuple"),
        (1j, "complex"),
    ],
)
def test_row_34_what_no_file_can_hold_is_refused_by_its_path(value: Any, kind: str) -> None:
    """Row 34 of the failure modes."""
    with pytest.raises(StateError, match=rf"has a {kind}.* at 'part.outer.1"):
        members_of("part", {"outer": [0, value]})


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"$tensor": "missing"}, "'missing' of '' is missing"),
        ({"$tensor": 3}, "is missing"),
        ({"$tensor": "a", "more": 1}, "has no meaning"),
        ({"$unknown": 1}, "'\\$unknown' at '' has no meaning"),
        ({"$float": "1e5"}, "no number"),
        ({"$float": ["nan"]}, "no number"),
        ({"$int": "9" * 101}, "no whole number"),
        ({"$int": 5}, "no whole number"),
        ({"$int": "0x5"}, "no whole number"),
        ({"$int": "--5"}, "no whole number"),
        ({"$tuple": 5}, "no list"),
        ({"$items": [[1]]}, "a pair at '' is none"),
        ({"$items": [[[1], 2]]}, "a pair at '' is none"),
        ({"$items": 7}, "no list"),
    ],
)
def test_a_document_that_makes_no_sense_is_corrupt(document: Any, complaint: str) -> None:
    members = members_of("part", {"a": torch.zeros(2)})
    with pytest.raises(Corrupt, match=complaint):
        read({**members, "part.json": strict_json.dumps(document)})


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}trailing", b"\x0a\0\0\0\0\0\0\0not json!!"],
)
def test_a_tensor_member_that_is_none_is_corrupt_or_too_large(content: bytes) -> None:
    with pytest.raises((Corrupt, TooLarge), match=r"part\.safetensors"):
        read({"part.json": b"{}", "part.safetensors": content})


def test_row_7_the_header_of_a_tensor_member_is_measured_before_it_is_parsed() -> None:
    """Row 7 of the failure modes."""
    members = members_of("part", {str(i): torch.zeros(1) for i in range(30)})
    with pytest.raises(TooLarge, match=r"it has 30 tensors, 20 are allowed.*limits=Limits\(tensors=...\)"):
        read(members, Limits(tensors=20))
    with pytest.raises(TooLarge, match=r"bytes, 100 are allowed.*limits=Limits\(header_bytes=...\)"):
        read(members, Limits(header_bytes=100))


def test_what_no_reader_would_take_is_not_written() -> None:
    deep: Any = 0
    for _ in range(40):
        deep = [deep]
    with pytest.raises(TooLarge, match=r"part\.json"):
        members_of("part", deep)
    with pytest.raises(TooLarge, match=r"part\.json"):
        members_of("part", ["x" * 100] * 20_000)
