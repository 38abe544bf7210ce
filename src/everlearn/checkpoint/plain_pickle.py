"""Pickles read as lists of operations, without doing any of them: do they need more than plain data and tensors?"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Collection, Iterator

from everlearn.checkpoint.errors import Corrupt, TooLarge, Untrusted

_MADE_ANEW = "Get it from where it was made."
_UNTRUSTED = "Nothing of it was run. Save plain tensors: torch.save(module.state_dict(), file)."

_SIZES = {
    **dict.fromkeys(b"(.N\x88\x89)]}aesut\x85\x86\x87RbQ", 0),  # containers, constants, calls, tensors' storages
    **{ord("K"): 1, ord("M"): 2, ord("J"): 4, ord("G"): 8, 0x80: 1},  # numbers, protocol
    **{ord("h"): 1, ord("j"): 4, ord("q"): 1, ord("r"): 4},  # memo
}
"""By operation: how many bytes its argument has."""
_LENGTHS = {ord("X"): "<I", ord("U"): "<B", 0x8A: "<B"}
"""By operation with a text or a long number: how the length of that is written."""
_GLOBAL, _STOP = ord("c"), ord(".")
_LONGEST_NAME = 200
_KNOWN = {ord(operation.code): operation.name for operation in pickletools.opcodes}


def require_plain(pickle: bytes, file: object, names: Collection[str], most: int) -> None:
    """Refuse a pickle that does anything but build containers, numbers and texts, and call what has one of the names.

    Args:
        pickle: Its bytes.
        file: Its name, for messages.
        names: Of what it may call, as ``module.name``.
        most: The number of operations that it may have.

    Raises:
        Untrusted: If it names anything else, or makes objects in another way.
        TooLarge: If it has more operations.
        Corrupt: If it is no pickle.
    """
    for count, name in enumerate(_operations(pickle, file)):
        if name is not None and name not in names:
            raise Untrusted(file, f"its pickle asks for {name!r}.", _UNTRUSTED)
        if count > most:
            raise TooLarge(file, f"its pickle has over {most} operations.", "Allow it with limits=Limits(tensors=...).")


def _operations(pickle: bytes, file: object) -> Iterator[str | None]:
    """For each operation the name that it asks for, None where it asks for none."""
    position, end = 0, len(pickle)
    while position < end:
        operation = pickle[position]
        position += 1
        if operation == _STOP:
            yield None
            return
        if operation == _GLOBAL:
            name, position = _name(pickle, position, file)
            yield name
            continue
        position += _size(pickle, operation, position, file)
        yield None
    raise Corrupt(file, "its pickle has no end.", _MADE_ANEW)


def _name(pickle: bytes, position: int, file: object) -> tuple[str, int]:
    """Module and name, each of which ends with its line; and where the next operation begins."""
    middle = pickle.find(b"\n", position, position + _LONGEST_NAME)
    last = pickle.find(b"\n", middle + 1, middle + 1 + _LONGEST_NAME) if middle >= 0 else -1
    if last < 0:
        raise Corrupt(file, "its pickle has a name without end.", _MADE_ANEW)
    module, name = (
        part.decode("ascii", "backslashreplace") for part in (pickle[position:middle], pickle[middle + 1 : last])
    )
    return f"{module}.{name}", last + 1


def _size(pickle: bytes, operation: int, position: int, file: object) -> int:
    """How many bytes the argument of an operation has, with the length that is written before it."""
    if operation in _SIZES:
        return _SIZES[operation]
    layout = _LENGTHS.get(operation)
    if layout is not None and position + struct.calcsize(layout) <= len(pickle):
        (length,) = struct.unpack_from(layout, pickle, position)
        return struct.calcsize(layout) + int(length)
    known = _KNOWN.get(operation)
    if layout is None and known is not None:
        raise Untrusted(file, f"its pickle asks for {known}.", _UNTRUSTED)
    raise Corrupt(file, f"its pickle cannot be read: {operation:#x} is no operation.", _MADE_ANEW)
