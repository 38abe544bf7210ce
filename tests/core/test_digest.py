"""A digest tells states apart to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from everlearn.core.digest import digest, identical
from everlearn.core.errors import StateError

STATE = {"a": torch.tensor([1.0, 2.0]), "b": {"c": [1, 2.5, "x", None, True]}, "d": np.arange(3)}


def test_equal_states_have_equal_digests_whatever_the_order_of_keys_and_the_strides() -> None:
    again = {
        "d": np.arange(3),
        "b": {"c": (1, 2.5, "x", None, True)},
        "a": torch.tensor([[1.0, 9.0], [2.0, 9.0]])[:, 0],
    }
    assert digest(again) == digest(STATE)
    assert identical(again, STATE)


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "a": torch.tensor([1.0, np.nextafter(np.float32(2), np.float32(3)).item()])},
        {**STATE, "a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {**STATE, "a": torch.tensor([[1.0, 2.0]])},
        {**STATE, "e": None},
        {**STATE, "b": {"c": [1, 2.5, "x", None, 1]}},
        {**STATE, "b": {"c": [1.0, 2.5, "x", None, True]}},
        {**STATE, "b": {"C": [1, 2.5, "x", None, True]}},
        {**STATE, "d": np.arange(3, dtype=np.int32)},
        {key: STATE[key] for key in "ab"},
    ],
    ids=[
        "one bit",
        "dtype",
        "shape",
        "a further key",
        "bool or int",
        "int or float",
        "name",
        "dtype of array",
        "fewer",
    ],
)
def test_a_difference_in_anything_changes_it(other: object) -> None:
    assert digest(other) != digest(STATE)
    assert not identical(other, STATE)


def test_minus_zero_and_half_precision_count_by_their_bits() -> None:
    assert digest(torch.tensor(0.0)) != digest(torch.tensor(-0.0))
    assert digest(torch.ones(2, dtype=torch.bfloat16)) == digest(torch.ones(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128]
)
def test_identical_looks_at_every_bit_of_tensors_of_all_sizes_and_strides(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 4).to(dtype)
    for same in (tensor.t().contiguous().t(), tensor.clone(), torch.ones(1).to(dtype).expand(3, 4)):
        assert identical({"a": same}, {"a": tensor})
    for index in range(tensor.nbytes):
        other = tensor.clone()
        other.view(torch.uint8).view(-1)[index] ^= 1
        assert not identical({"a": other}, {"a": tensor})
    assert identical(tensor[:0], tensor[:0].clone())
    assert not identical(tensor[:0], tensor)


def test_identical_tells_zeros_apart_and_no_nan() -> None:
    assert not identical(torch.tensor(0.0), torch.tensor(-0.0))
    assert identical(torch.tensor(float("nan")), torch.tensor(float("nan")))


def test_what_is_no_plain_data_is_refused_by_its_path() -> None:
    with pytest.raises(StateError, match=r"a object at 'a\.1', which is no plain data"):
        digest({"a": [1, object()]})
