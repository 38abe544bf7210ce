"""How the commands report: results on stdout, complaints on stderr, and the exit code."""

from __future__ import annotations

import json
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from everlearn.core.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    EverlearnError,
    MissingExtraError,
    NonFiniteError,
    StateError,
)

_EXIT_CODES: tuple[tuple[type[EverlearnError], int], ...] = (
    (ConfigError, 2),
    (ArgumentError, 2),
    (MissingExtraError, 2),
    (StateError, 3),
    (DataError, 3),
    (NonFiniteError, 4),
)


def print_json(result: dict[str, Any]) -> None:
    """Print one strict JSON object on one line."""
    typer.echo(json.dumps(result, allow_nan=False))


@contextmanager
def reported_errors(verbose: bool) -> Iterator[None]:
    """Errors made on purpose become one message and an exit code; warnings become one line each.

    All other errors, those of environments and plug-ins among them, keep their traceback.

    Args:
        verbose: Show informational logs, and the traceback of an error.
    """
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: _complain(console, "warning", "yellow", str(message))
        try:
            yield
        except EverlearnError as error:
            if verbose:
                traceback.print_exc()
            for message in _told(error):
                _complain(console, "error", "bold red", message)
            raise typer.Exit(_exit_code(error)) from error
        except (EOFError, BrokenPipeError) as error:
            # The library of the command takes these for its own input and output and would end without a word.
            traceback.print_exc()
            raise typer.Exit(1) from error


def _told(error: EverlearnError) -> list[str]:
    """The lines of an error, with those of earlier ones before them; none twice."""
    chain = reversed(list(_chain(error)))
    texts = [text for each in chain for text in (str(each), *getattr(each, "__notes__", []))]
    return "\n".join(dict.fromkeys(texts)).split("\n")


def _chain(error: EverlearnError) -> Iterator[EverlearnError]:
    """The error, and those during whose handling it arose, so that no failure hides an earlier one.

    An error of ours that was made from another of ours says all that is to be said.
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, EverlearnError):
            yield current
            if isinstance(current.__cause__, EverlearnError):
                return
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _complain(console: Console, kind: str, style: str, message: str) -> None:
    console.print(Text.assemble((f"{kind}: ", style), Text.from_ansi(message)), soft_wrap=True)


def _exit_code(error: EverlearnError) -> int:
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)
