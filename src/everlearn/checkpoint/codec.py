"""States as members of an archive: JSON for structure and numbers, safetensors for tensors and arrays.

A state is nested mappings, lists and tuples of tensors, arrays, numbers, strings, booleans and None. Anything else is
refused by its dotted path. In the JSON document an object with one key that begins with ``$`` stands for what JSON
lacks: ``$tensor`` and ``$array`` name an entry of the tensor member, ``$scalar`` one that was a number of numpy's,
``$tuple`` holds a list, ``$items`` the pairs of a mapping whose keys are not plain strings, ``$float`` and ``$int`` the
digits of a number that JSON cannot hold exactly. Tensors that share memory are written once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.archive import Archive
from everlearn.checkpoint.errors import Corrupt
from everlearn.checkpoint.files import Buffer
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.tensors import DTYPES, packed, unpacked
from everlearn.core.errors import StateError

JSON, TENSORS = ".json", ".safetensors"
_EXACT = 2**53
"""Up to here every reader of JSON keeps a whole number exactly."""
_KEY_TYPES = (str, int)
_LARGEST_ITEM = 8  # bytes: of a number of numpy's


def members_of(name: str, state: Any) -> dict[str, Buffer]:
    """The members that hold a state: ``name.json``, and ``name.safetensors`` if there are tensors.

    Raises:
        StateError: For a value that no file can hold, by its dotted path.
        TooLarge: If no reader would take it.
    """
    encoder = _Encoder(name)
    document = strict_json.dumps(encoder.document(state, ""))
    strict_json.loads(document, "the model", name + JSON, max_bytes=LIMITS.json_bytes, max_depth=LIMITS.json_depth)
    members: dict[str, Buffer] = {name + JSON: document}
    if encoder.tensors:
        members[name + TENSORS] = packed(encoder.tensors)
    return members


def state_of(archive: Archive, name: str, limits: Limits) -> Any:
    """The state that the members of ``name`` hold.

    Raises:
        Corrupt: If they are damaged or do not belong together.
        TooLarge: If they ask for more than the limits allow.
    """
    return _Decoder(archive, name, limits).state(archive.json(name + JSON), "")


@final
class _Encoder:
    """Puts a state into a document, its tensors into ``tensors``."""

    def __init__(self, name: str) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._name = name
        self._written: dict[tuple[Any, ...], str] = {}

    def document(self, value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            return {"$tensor": self._entered(value.detach(), path)}
        if isinstance(value, np.ndarray | np.generic):
            kind = "$array" if isinstance(value, np.ndarray) else "$scalar"
            return {kind: self._named(self._from_numpy(value, path), path)}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, list | tuple):
            items = [self.document(item, _joined(path, index)) for index, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if type(value) is int and abs(value) > _EXACT:
            return {"$int": str(value)}
        if type(value) is float and not math.isfinite(value):
            return {"$float": str(value)}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise self._refusal(value, path)

    def _mapping(self, mapping: Mapping[Any, Any], path: str) -> Any:
        if not all(type(key) in _KEY_TYPES for key in mapping):
            raise self._refusal(next(key for key in mapping if type(key) not in _KEY_TYPES), f"{path} (a key)")
        items = [(key, self.document(value, _joined(path, key))) for key, value in mapping.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key in mapping):
            return dict(items)
        return {"$items": [[key, item] for key, item in items]}

    def _entered(self, tensor: Tensor, path: str) -> str:
        """The name under which a tensor is written; one that was written already has the name of then."""
        if tensor.layout is not torch.strided or tensor.dtype not in DTYPES:
            raise self._refusal(tensor, path)
        identity = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        if not tensor.numel() or identity not in self._written:
            self._written[identity] = self._named(tensor, path)
        return self._written[identity]

    def _named(self, tensor: Tensor, path: str) -> str:
        """The name under which a tensor of the encoder's own is written."""
        key = path or self._name
        while key in self.tensors:
            key += "'"
        self.tensors[key] = tensor
        return key

    def _from_numpy(self, value: np.ndarray | np.generic, path: str) -> Tensor:
        array = np.array(value, dtype=value.dtype.newbyteorder("="))
        if array.dtype.kind not in "biufc" or array.dtype.itemsize > _LARGEST_ITEM:
            raise self._refusal(value, path)
        return torch.from_numpy(array)

    def _refusal(self, value: Any, path: str) -> StateError:
        kind = f"{type(value).__name__}{f' of {value.dtype}' if hasattr(value, 'dtype') else ''}"
        return StateError(
            f"The state has a {kind} at '{_joined(self._name, path) if path else self._name}', which no file can hold. "
            "Keep tensors, arrays of numbers, numbers, strings, lists and dictionaries in a state."
        )


@final
class _Decoder:
    """Rebuilds a state from its document and its tensors."""

    def __init__(self, archive: Archive, name: str, limits: Limits) -> None:
        self._archive, self._name = archive, name
        content = archive.members.get(name + TENSORS)
        self._tensors = {} if content is None else unpacked(content, archive.file, name + TENSORS, limits)
        self._marks: dict[str, Callable[[Any, str], Any]] = {
            "$tensor": self._tensor,
            "$array": lambda key, path: self._tensor(key, path).numpy(),
            "$scalar": lambda key, path: self._tensor(key, path).numpy()[()],
            "$tuple": lambda items, path: tuple(self._list(items, path)),
            "$items": self._items,
            "$float": self._float,
            "$int": self._int,
        }

    def state(self, document: Any, path: str) -> Any:
        if isinstance(document, list):
            return self._list(document, path)
        if not isinstance(document, dict):
            return document
        mark = next((key for key in document if key.startswith("$")), None)
        if mark is None:
            return {key: self.state(value, _joined(path, key)) for key, value in document.items()}
        if len(document) > 1 or mark not in self._marks:
            raise self._damaged(f"'{mark}' at '{path}' has no meaning.")
        return self._marks[mark](document[mark], path)

    def _list(self, items: Any, path: str) -> list[Any]:
        if not isinstance(items, list):
            raise self._damaged(f"there is no list at '{path}'.")
        return [self.state(item, _joined(path, index)) for index, item in enumerate(items)]

    def _items(self, pairs: Any, path: str) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for pair in self._list(pairs, path):
            if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in _KEY_TYPES):
                raise self._damaged(f"a pair at '{path}' is none.")
            mapping[pair[0]] = pair[1]
        return mapping

    def _tensor(self, key: Any, path: str) -> Tensor:
        if not isinstance(key, str) or key not in self._tensors:
            raise self._damaged(f"the tensor {key!r} of '{path}' is missing.")
        return self._tensors[key]

    def _float(self, text: Any, path: str) -> float:
        if text not in ("nan", "inf", "-inf"):
            raise self._damaged(f"{text!r} at '{path}' is no number.")
        return float(text)

    def _int(self, text: Any, path: str) -> int:
        if not (isinstance(text, str) and len(text) <= _DIGITS and text.removeprefix("-").isdecimal()):
            raise self._damaged(f"{text!r} at '{path}' is no whole number.")
        return int(text)

    def _damaged(self, problem: str) -> Corrupt:
        return Corrupt(self._archive.file, problem, "Restore the file from a copy.", self._name + JSON)


_DIGITS = 100
"""Of a whole number: more than any counter or generator has."""


def _joined(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
