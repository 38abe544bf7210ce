"""The corpus of hostile files, and the pickles in them, which would leave a file, the canary, if they were read.

A pickle is written here and never read. Files of ours have right hashes and checksums, unless lying about them is the
attack.
"""

from __future__ import annotations

import builtins
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALL = ("PPO.load", "DistributionalPPO.load", "PPO.set_parameters", "policy.load", "Normaliser.load", "import_weights")
"""Who reads every file."""

Content = bytes
Make = Callable[[Path], Content]


@dataclass(frozen=True)
class Attack:
    """A hostile file.

    Args:
        make: Makes it; the path is the canary's.
        error: The errors of the family by which it is refused, any of them; empty if it is read without harm.
        by: Who has to refuse it; all others may also find nothing in it that concerns them.
    """

    make: Make
    error: tuple[str, ...]
    by: tuple[str, ...]


ATTACKS: dict[str, Attack] = {}


def attack(*error: str, by: tuple[str, ...] = ("DistributionalPPO.load",)) -> Callable[[Make], Make]:
    """Enter a function into the corpus."""

    def enter(make: Make) -> Make:
        ATTACKS[make.__name__.replace("_", " ")] = Attack(make, error, by)
        return make

    return enter


def family(name: str, make: Callable[..., Content], cases: Mapping[str, Any], *error: str, **options: Any) -> None:
    """Enter a function for each of some arguments."""
    for case, argument in cases.items():

        def made(canary: Path, argument: Any = argument) -> Content:
            return make(canary, argument)

        ATTACKS[f"{name}: {case}"] = Attack(made, error, options.get("by", ("DistributionalPPO.load",)))


class Runs:
    """What unpickling it does."""

    def __init__(self, function: Callable[..., Any], argument: str) -> None:
        self._call = (function, (argument,))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return self._call


def command(canary: Path, protocol: int = 4) -> bytes:
    """A pickle that runs a command."""
    return pickle.dumps(Runs(os.system, f"touch '{canary}'"), protocol)


def program(canary: Path, protocol: int = 4) -> bytes:
    """A pickle that runs a line of python."""
    return pickle.dumps(Runs(builtins.exec, f"open({str(canary)!r}, 'w')"), protocol)
