"""The formats of earlier systems, brought to the present one in steps; row 5 of the failure-mode table.

Each migration is a pure function from a format to the next one: v1a, a bare ``state_dict`` of a policy; v1b, the same
with a name for its format; v2, all parameters; and last, the parts that a model takes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from everlearn.checkpoint.errors import Corrupt, Unsupported
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.torch_files import load_plain

Document = Mapping[str, Any]
"""What was read from a file."""

V1A, V1B, V2 = "v1_state_dict", "v1_policy_only", "v2_full_parameters"
PARTS = {
    "policy.optimizer": "the optimizer's state",
    "vgs_state": "the statistics of variance gradient scaling",
    "kl_penalty_state": "the state of the KL control",
    "normaliser": "the normaliser's statistics",
}
"""What a complete state has beside the policy, and the words for it."""

_MADE_ANEW = "Get it from where it was made."
_FORMAT = "format_version"


@dataclass(frozen=True)
class Parts:
    """What a migrated file gives.

    Args:
        parameters: The state of each part by its name; ``policy`` is always there.
        missing: Names of ``PARTS`` that it does not have.
        step: The step it was saved at, in the unit of whoever saved it; None where it does not say.
        performance: The score it was saved with.
        version: The format that the file had.
    """

    parameters: dict[str, dict[str, Any]]
    missing: tuple[str, ...]
    step: int | None
    performance: float | None
    version: str


def read_old(content: bytes, file: object, limits: Limits = LIMITS) -> Parts:
    """The parts of a v1 or v2 file; nothing that it brings along is run.

    Args:
        content: The file.
        file: Its name, for messages.
        limits: How much it may ask for.

    Raises:
        Unsupported: If it has none of these formats.
        CheckpointError: If it is cut, damaged, too large, or holds anything but plain data.
    """
    document = load_plain(content, file, None, limits, _NUMBERS_OF_NUMPY)
    found = version = version_of(document, file)
    while version in MIGRATIONS:
        version, migrate = MIGRATIONS[version]
        document = migrate(document)
    return parts_of(document, file, found)


def version_of(document: Any, file: object) -> str:
    """Which format a file has.

    Raises:
        Unsupported: If none of those known.
    """
    if isinstance(document, Mapping):
        version = document.get(_FORMAT)
        if version in (V1B, V2) and isinstance(document.get("data"), Mapping):
            return str(version)
        if version is not None:
            known = f"Known are {V1B} and {V2}, and a bare state_dict."
            raise Unsupported(file, f"its format is {version!r:.100}. {known}", "Convert it where it was made.")
        if document and all(isinstance(value, Tensor) for value in document.values()):
            return V1A
    raise Unsupported(
        file, "it holds tensors, and in no known order.", "Save policy.state_dict(), or what get_parameters() returns."
    )


def named_from_bare(document: Document) -> Document:
    """v1a to v1b: the bare ``state_dict`` gets a name for its format."""
    return {_FORMAT: V1B, "data": document, "step": None, "performance": None}


def full_from_policy(document: Document) -> Document:
    """v1b to v2: the policy's state is the only one of all the parameters."""
    return {**document, _FORMAT: V2, "data": {"policy": document["data"]}, "has_optimizer_state": False}


MIGRATIONS: dict[str, tuple[str, Callable[[Document], Document]]] = {
    V1A: (V1B, named_from_bare),
    V1B: (V2, full_from_policy),
}
"""By format: the next one, and how it is made."""


def parts_of(document: Document, file: object, version: str = V2) -> Parts:
    """v2 to parts; an optimizer's state that stands there twice is taken from its place among the parameters.

    Args:
        document: In format v2.
        file: Its name, for messages.
        version: The format that the file had.

    Raises:
        Corrupt: If a part is not what it should be, or there is no policy.
    """
    given = dict(document["data"])
    second = given.pop("optimizer_state", None)
    if second is not None:
        given.setdefault("policy.optimizer", second)
    strange = [name for name, state in given.items() if not isinstance(state, Mapping)]
    if strange or "policy" not in given:
        problem = f"{strange} are no states of parts." if strange else "it has no policy among its parameters."
        raise Corrupt(file, problem, _MADE_ANEW, "data")
    missing = tuple(name for name in PARTS if name not in given)
    step, performance = (_number(document.get(name), name, file) for name in ("step", "performance"))
    return Parts(given, missing, None if step is None else int(step), performance, version)


def _number(value: Any, name: str, file: object) -> float | None:
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if number is None or (isinstance(number, int | float) and not isinstance(number, bool)):
        return number
    raise Corrupt(file, f"it is {number!r:.100}, no number.", _MADE_ANEW, name)


class _NumberType:
    """Stands in for ``numpy.dtype`` where a score is a number of numpy; it knows two floating-point types."""

    _FORMATS = {"f8": "<d", "f4": "<f"}  # noqa: RUF012 - a constant

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        self.format = self._FORMATS[name]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] != "<":
            raise ValueError(f"numbers in the byte order {state[1]!r} are not read")


def _number_of(kind: _NumberType, content: bytes) -> float:
    """Stands in for numpy's function that makes a scalar of bytes."""
    (number,) = struct.unpack(kind.format, content)
    return float(number)


_NUMBERS_OF_NUMPY: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _NumberType,
    "numpy._core.multiarray.scalar": _number_of,
    "numpy.core.multiarray.scalar": _number_of,  # before numpy 2
}
"""What a score that is a number of numpy asks for, and what it gets: numpy itself is not called."""
