"""The exception family. Each message says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any


class EverlearnError(Exception):
    """Base of every error that everlearn raises on purpose; each can be sent to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Made again of its message and attributes, whatever its constructor takes."""
        return _made_again, (type(self), self.args), vars(self)


def _made_again(kind: type[EverlearnError], arguments: tuple[Any, ...]) -> EverlearnError:
    return kind.__new__(kind, *arguments)


class ArgumentError(EverlearnError, ValueError):
    """An argument given in Python is outside its range or contradicts another one."""


class ConfigError(EverlearnError, ValueError):
    """A configuration (file, command line or mapping) cannot be used as it stands."""


class StateError(EverlearnError, ValueError):
    """A state does not fit the object that should take it."""


class DataError(EverlearnError, ValueError):
    """A table of data cannot be used as it stands."""


class OrderError(EverlearnError, RuntimeError):
    """Methods were called in an order that has no meaning."""


class NonFiniteError(EverlearnError, ValueError):
    """A NaN or an infinity appeared where training must not go on with it."""


class MissingExtraError(EverlearnError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'everlearn[{extra}]'"
        )


class Noted:
    """Inside, any error gets a note; the error itself goes on unchanged.

    Args:
        note: Says what to add once there is an error; None for nothing.
    """

    def __init__(self, note: Callable[[], str | None]) -> None:
        self._note = note

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        note = self._note() if isinstance(error, Exception) else None
        if error is not None and note is not None:
            error.add_note(note)


def suggestion(word: str, known: Iterable[str]) -> str:
    """A ready-made ' Did you mean ...?' for a misspelt word, or the list of what is known."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(choices)}."


def require_in_range(
    name: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raise unless ``low <= value <= high``, strictly where a side is open; NaN and infinity never pass.

    Raises:
        ArgumentError: If the value is outside, naming it and the range.
    """
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below and math.isfinite(value)):
        left, right = "(" if open_low else "[", ")" if open_high or high == math.inf else "]"
        interval = f"{left}{low:g}, {high:g}{right}"
        raise ArgumentError(f"{name}={value!r} is outside {interval}. Choose a value inside this range.")
