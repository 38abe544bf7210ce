"""Log records and warnings beside a live display."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.text import Text


@contextmanager
def diverted(console: Console) -> Iterator[None]:
    """Inside, warnings and the root logger's lines for the terminal are printed by the console, above what is live.

    A live display moves the cursor: what others write to the same terminal would tear it, or be overwritten. Of
    ``sys.stderr`` rich's ``Live`` takes care; handlers and consoles that were made before have the stream itself.

    Args:
        console: That of the live display.
    """
    handlers = [each for each in logging.getLogger().handlers if _is_for_terminal(each)]
    streams = [(each, each.setStream(_Above(console))) for each in handlers if isinstance(each, logging.StreamHandler)]
    shown = warnings.showwarning
    warnings.showwarning = lambda message, *_: _above(console, str(message), "warning: ")
    try:
        yield
    finally:
        warnings.showwarning = shown
        for handler, stream in streams:
            if stream is not None:
                handler.setStream(stream)


class _Above:
    """A stream of text that is printed by a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> int:
        """Print it; a handler writes whole lines."""
        if text.strip():
            _above(self._console, text.rstrip("\n"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def _above(console: Console, text: str, kind: str = "") -> None:
    console.print(Text.assemble((kind, "yellow"), Text.from_ansi(text)), soft_wrap=True)


def _is_for_terminal(handler: logging.Handler) -> bool:
    """Whether it writes to one of the process's own streams, and not to a file or a test's."""
    if not isinstance(handler, logging.StreamHandler) or isinstance(handler, logging.FileHandler):
        return False
    stream: TextIO = handler.stream
    return stream in (sys.__stderr__, sys.__stdout__, *map(_original, (sys.stderr, sys.stdout)))


def _original(stream: TextIO) -> TextIO:
    """What rich has put a proxy in front of."""
    original: TextIO = getattr(stream, "rich_proxied_file", stream)
    return original
