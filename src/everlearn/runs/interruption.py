"""Ctrl-C and SIGTERM as polite requests to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Abandoned(BaseException):
    """A signal has come while the environments were at work; what they do need not be waited for."""


class Interruption:
    """While entered, the first SIGINT or SIGTERM only sets ``signal``; one that comes twice acts as it always does.

    Where ``may_abandon`` says so, it also raises ``Abandoned``.

    So a SIGTERM soon after a SIGINT, as whoever ends services sends it, does not keep the work from being saved.

    Python allows handlers in the main thread only; in another thread this does nothing. A handler that was not
    set from Python could not be put back, so it stays.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.may_abandon: Callable[[], bool] = lambda: False
        self._previous: dict[signal.Signals, Any] = {}

    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not None:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Another signal may come in between: each step leaves what that needs."""
        which = signal.Signals(number)
        self.signal = self.signal or which
        if which in self._previous:
            signal.signal(which, self._previous.pop(which))
        if self.may_abandon():
            raise Abandoned
