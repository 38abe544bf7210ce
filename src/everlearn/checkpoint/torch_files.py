"""Files of ``torch.save``: tensors and plain data are taken, and nothing else; no code of the file runs.

Before torch's own restricted reader sees a file, its pickle is read as a list of operations and compared with those
that plain tensors need. So neither a weakness of that reader nor what was added to its list in this process matters.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch._weights_only_unpickler import UnpicklingError  # type: ignore[attr-defined]  # torch's, for its own reader
from torch.serialization import safe_globals

from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Unsupported, Untrusted
from everlearn.checkpoint.foreign import Kind, recognise, refusal
from everlearn.checkpoint.foreign_zip import ForeignZip
from everlearn.checkpoint.limits import Limits
from everlearn.checkpoint.plain_pickle import require_plain

LOWEST_TORCH = (2, 10)
"""Before it, ``weights_only`` could be made to write outside of its memory (CVE-2026-24747)."""

_PICKLE = "data.pkl"
_BESIDE = (_PICKLE, "version", "byteorder", ".format_version")
_STORAGE = "data/"
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_NAMES = frozenset(
    {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}
    | {f"torch.{kind}Storage" for kind in _STORAGES}
)
_BYTES = "_codecs.encode"  # of which pickles make bytes, as numpy's numbers have them
_OPERATIONS_PER_TENSOR = 30
_DAMAGE = (
    UnpicklingError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    EOFError,
    OverflowError,
)
"""What torch's reader raises for a file that is not as it should be."""
_MADE_ANEW = "Get it from where it was made."
_UNTRUSTED = "Nothing of it was run. Save plain tensors: torch.save(module.state_dict(), file)."


def load_plain(
    content: bytes,
    file: object,
    member: str | None,
    limits: Limits,
    substitutes: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
    """The content of a ``.pth`` file: dictionaries, lists, numbers, texts, and tensors on the CPU.

    Args:
        content: The file.
        file: Its name, for messages.
        member: Its name in the archive it comes from, for messages.
        limits: How much it may ask for.
        substitutes: Functions of ours that stand in for further names, while this file is read and no longer.

    Raises:
        Untrusted: If it needs more than plain tensors do.
        CheckpointError: If it is cut, damaged, too large or of another kind.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < LOWEST_TORCH:
        lowest = ".".join(map(str, LOWEST_TORCH))
        problem = f"torch {torch.__version__} does not read such files safely."
        raise Unsupported(file, problem, f"Install torch {lowest} or a later one.")
    names = _NAMES | {_BYTES, *substitutes} if substitutes else _NAMES
    try:
        members = _members(content, file, limits)
        require_plain(members[_PICKLE], file, names, _OPERATIONS_PER_TENSOR * limits.tensors)
        return _Plain(file, limits).copy(_loaded(members, file, substitutes or {}), limits.json_depth)
    except CheckpointError as error:
        error_in_member = type(error)(file, error.problem, error.remedy, member or error.member)
        raise error_in_member from error.__cause__


def _members(content: bytes, file: object, limits: Limits) -> dict[str, bytes]:
    """The members by their names within the one folder that holds them all, compared with their checksums."""
    if recognise(io.BytesIO(content)) is not Kind.TORCH:
        raise refusal(io.BytesIO(content), file)
    archive = ForeignZip(io.BytesIO(content), file, Kind.TORCH, limits, members=limits.tensors)
    folders = [name.removesuffix(_PICKLE) for name in archive.sizes if name.endswith(f"/{_PICKLE}")]
    names = {name: name.removeprefix(folders[0]) for name in archive.sizes} if len(folders) == 1 else {}
    if not names or any(name == short for name, short in names.items()) or "constants.pkl" in names.values():
        raise Unsupported(file, "it is no file of torch.save with tensors.", "Save a state_dict() with torch.save.")
    if not all(archive.is_stored(name) for name in names):
        raise Corrupt(file, "it is compressed inside, as torch never does.", _MADE_ANEW)
    return {
        short: archive.read(name, "header_bytes" if short == _PICKLE else None)
        for name, short in names.items()
        if short in _BESIDE or short.startswith(_STORAGE)
    }


def _loaded(members: Mapping[str, bytes], file: object, substitutes: Mapping[str, Callable[..., Any]]) -> Any:
    entries: list[Any] = [(stand_in, name) for name, stand_in in substitutes.items()]
    allowed: AbstractContextManager[None] = safe_globals(entries) if entries else nullcontext()
    try:
        with allowed:
            return torch.load(_packed(members), map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise Corrupt(file, f"torch cannot read it: {_first_line(error)}.", _MADE_ANEW) from error


def _packed(members: Mapping[str, bytes]) -> io.BytesIO:
    """The members as an archive of our own making: torch's reader then finds the very bytes that were checked."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    file.seek(0)
    return file


class _Plain:
    """Copies what was read into plain dictionaries and lists, and refuses whatever is neither data nor a tensor.

    Args:
        file: Its name, for messages.
        limits: How much it may ask for.
    """

    def __init__(self, file: object, limits: Limits) -> None:
        self._file = file
        self._left = _OPERATIONS_PER_TENSOR * limits.tensors

    def copy(self, value: Any, depth: int) -> Any:
        """A value and all in it, to a depth; the same object in many places counts as often."""
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise TooLarge(self._file, "it is nested without end.", _MADE_ANEW)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            return {self._key(key): self.copy(part, depth - 1) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.copy(part, depth - 1) for part in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise Untrusted(self._file, f"it holds a {type(value).__name__}, which is no plain data.", _UNTRUSTED)

    def _key(self, key: Any) -> Any:
        if isinstance(key, str | int):
            return key
        raise Corrupt(self._file, f"it has {type(key).__name__} for a key.", _MADE_ANEW)

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, unless it claims more elements than the file holds, as a broadcast one would."""
        plain = tensor.detach()
        if plain.numel() * plain.element_size() > plain.untyped_storage().nbytes():
            problem = f"a tensor claims the shape {tuple(plain.shape)}, for which the file holds too little."
            raise Corrupt(self._file, problem, "Get it from where it was made, or save contiguous tensors.")
        return plain


def _first_line(error: Exception) -> str:
    return f"{str(error).partition(chr(10))[0]:.200}"
