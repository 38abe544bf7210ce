"""A fingerprint of a state: equal bits, equal digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from everlearn.core.errors import StateError


def digest(state: Any) -> str:
    """The SHA-256, in hexadecimal, of nested mappings and sequences of tensors, arrays and plain values.

    It depends on keys, types, dtypes, shapes and every bit of the values, and on neither device, strides nor the order
    of keys; a tuple counts as a list.

    Raises:
        StateError: For anything else, by its dotted path.
    """
    fingerprint = hashlib.sha256()
    for path, content in _leaves(state, ""):
        fingerprint.update(f"{path}\0{len(content)}\0".encode())
        fingerprint.update(content)
    return fingerprint.hexdigest()


def identical(state: Any, other: Any) -> bool:
    """Whether two states would have the same digest; much quicker than two digests.

    Raises:
        StateError: As ``digest`` does.
    """
    if isinstance(state, Mapping) and isinstance(other, Mapping):
        return state.keys() == other.keys() and all(identical(state[key], other[key]) for key in state)
    if isinstance(state, list | tuple) and isinstance(other, list | tuple):
        return len(state) == len(other) and all(map(identical, state, other))
    if isinstance(state, torch.Tensor) and isinstance(other, torch.Tensor):
        same_form = (state.dtype, state.shape) == (other.dtype, other.shape)
        return same_form and torch.equal(_words(state), _words(other))
    return digest(state) == digest(other)


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's values as whole numbers: equal where all bits are, and quick to compare."""
    return _plain(tensor).view(_WORDS[tensor.element_size()])


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's values as bytes, (numel * itemsize,), in the processor's memory; a view where they are there."""
    return _plain(tensor).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The values side by side in the processor's memory, (numel,)."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)


def _leaves(state: Any, path: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(state, Mapping):
        yield path, f"mapping of {len(state)}".encode()
        for key in sorted(state, key=str):
            yield from _leaves(state[key], f"{path}.{key}")
    elif isinstance(state, list | tuple):
        yield path, f"sequence of {len(state)}".encode()
        for index, item in enumerate(state):
            yield from _leaves(item, f"{path}.{index}")
    else:
        yield path, _content(state, path)


def _content(value: Any, path: str) -> bytes:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} ".encode() + bits(value).numpy().tobytes()
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        return f"{value.dtype} {value.shape} ".encode() + value.tobytes()
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return f"{type(value).__name__} {value!r}".encode()
    raise StateError(
        f"The state has a {type(value).__name__} at '{path.removeprefix('.')}', which is no plain data. Keep tensors, "
        "arrays, numbers, strings, lists and dictionaries in a state."
    )
