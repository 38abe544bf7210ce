"""One input, tried: the law is a whole object or an error of the family, quickly and without much memory."""

from __future__ import annotations

import base64
import io
import resource
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from everlearn.checkpoint.errors import CheckpointError
from tools.fuzz.seeds import Reader, Seed, readers, seeds
from tools.fuzz.strategies import made

MOST_SECONDS = 1.0
MOST_BYTES = 200 * 10**6
WHOLE = "whole"
_OUT_OF_MEMORY = ("MemoryError", "t allocate memory", "not enough memory", "bad_alloc", "Unable to allocate")
"""Words by which an error says that the system refused memory, though it may wear another error's name by then."""
_LONGEST_INPUT = 2**17


@dataclass(frozen=True)
class Outcome:
    """What an input has led to.

    Args:
        index: Of the input.
        strategy: That made it.
        verdict: ``whole``, the name of an error of the family, or what is wrong, beginning with ``!``.
        seconds: Of processor time.
        grown: Bytes by which the peak of resident memory has grown.
        finding: What is needed to look at it again, where something is wrong.
    """

    index: int
    strategy: str
    verdict: str
    seconds: float
    grown: int
    finding: dict[str, object] | None = None


class Trials:
    """Tries inputs in this process, once everything that loading needs has been imported."""

    def __init__(self) -> None:
        self._seeds: Sequence[Seed] = seeds()
        self._readers = readers()
        for seed in self._seeds:
            (verdict, text), *_ = [_verdict(reader, seed.content) for reader in self._readers[seed.name]]
            if verdict != WHOLE:
                raise RuntimeError(f"The good file '{seed.name}' is not read: {verdict} {text}")

    def run(self, index: int) -> Outcome:
        """Make and try the input of a number."""
        strategy, seed, content = made(index, self._seeds)
        choices = self._readers[seed.name]
        return tried(index, strategy, seed, content, choices[index % len(choices)])

    def strategy(self, index: int) -> str:
        """What makes the input of a number."""
        return made(index, self._seeds)[0]


def tried(index: int, strategy: str, seed: Seed, content: bytes, reader: Reader) -> Outcome:
    """Have an input read, and see what comes of it."""
    before, start = _peak(), time.process_time()
    verdict, text = _verdict(reader, content)
    seconds, grown = time.process_time() - start, _peak() - before
    if seconds > MOST_SECONDS:
        verdict = "!slow"
    if grown > MOST_BYTES:
        verdict = "!memory"
    finding = _finding(seed, content, text) if verdict.startswith("!") else None
    return Outcome(index, strategy, verdict, seconds, grown, finding)


def _verdict(reader: Reader, content: bytes) -> tuple[str, str]:
    """The verdict on an input, and the text of an error that is none of the family."""
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            reader(content)
    except CheckpointError as error:
        text = "".join(traceback.format_exception(error))
        refused = any(words in text for words in _OUT_OF_MEMORY)
        return ("!memory", text) if refused else (type(error).__name__, "")
    except Exception as error:  # whatever it is, it is a finding
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        return f"!{name.removeprefix('builtins.')}", traceback.format_exc()
    return WHOLE, ""


def _finding(seed: Seed, content: bytes, text: str) -> dict[str, object]:
    root = str(Path(__file__).parents[2])
    lines = text.replace(f"{root}/", "").splitlines()
    return {
        "good_file": seed.name,
        "input": base64.b64encode(content).decode() if len(content) <= _LONGEST_INPUT else "",
        "trace": lines[-12:],
    }


def _peak() -> int:
    """Of resident memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(extra: int = 2 * MOST_BYTES) -> None:
    """Let this process take only so much more memory, so that an input that asks for all of it hurts nobody."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
