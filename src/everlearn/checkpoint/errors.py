"""Why a file is refused: one family, each naming the file, the place in it, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from everlearn.core.errors import EverlearnError, NonFiniteError, StateError


class CheckpointError(StateError):
    """A file cannot be loaded.

    Args:
        file: The file, as the caller named it.
        problem: What is wrong, with what was found and what was expected.
        remedy: What to do about it.
        member: The place in the file, None for the file as a whole.
    """

    def __init__(self, file: object, problem: str, remedy: str, member: str | None = None) -> None:
        self.file, self.member, self.problem, self.remedy = file, member, problem, remedy
        place = f"{file}" if member is None else f"{file}, {member}"
        super().__init__(f"{place}: {problem} {remedy}")


class Corrupt(CheckpointError):  # noqa: N818 - the family's names are the words for what happened
    """The content differs from what was written."""


class Truncated(CheckpointError):  # noqa: N818
    """The end is missing."""


class Unsupported(CheckpointError):  # noqa: N818
    """It is no file of everlearn, or one of a version that this one does not read."""


class Mismatch(CheckpointError):  # noqa: N818
    """It is whole, and does not fit the object that should take it."""


class Untrusted(CheckpointError):  # noqa: N818
    """Reading it would run code that the file brings along."""


class TooLarge(CheckpointError):  # noqa: N818
    """It asks for more than the limits allow; nothing was allocated."""


class NonFinite(CheckpointError, NonFiniteError):  # noqa: N818
    """It holds a NaN or an infinity where training cannot go on with one."""


class NoValidCheckpoint(CheckpointError):  # noqa: N818
    """No file in a directory can be loaded.

    Args:
        directory: Which.
        reasons: Why each of its files cannot.
    """

    def __init__(self, directory: object, reasons: Sequence[str]) -> None:
        self.reasons = list(reasons)
        listed = "".join(f"\n  {reason}" for reason in reasons)
        problem = f"there is no checkpoint that can be loaded{':' if reasons else '.'}{listed}"
        remedy = "\nTrain again, or restore one from a copy." if reasons else "Train first."
        super().__init__(directory, problem, remedy)


_DATA_OF_A_FILE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What constructors and ``load_state_dict`` of torch, SB3 and users raise for data that do not fit."""


@contextmanager
def refused(file: object, member: str) -> Iterator[None]:
    """Inside, data of a file meet the objects that should take them: what these raise becomes the file's error."""
    try:
        yield
    except CheckpointError:
        raise
    except NonFiniteError as error:
        raise NonFinite(file, str(error), "Load an earlier file.", member) from error
    except _DATA_OF_A_FILE as error:
        raise Mismatch(
            file, f"it does not fit ({type(error).__name__}: {error}).", "Load it as it was saved.", member
        ) from error


class SaveError(EverlearnError):
    """A file could not be written; the one that was there before is untouched.

    Args:
        file: The file that should have been written.
        reason: What the system said.
    """

    def __init__(self, file: object, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(
            f"{file}: it cannot be written ({reason}); what was there before is untouched. "
            "See to its name, to free space, and to the permissions of its directory."
        )
