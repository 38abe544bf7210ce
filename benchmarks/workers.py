"""The other side of ``peer_worker``: contestants that take turns, in processes of their own or all in this one."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import Contestant, parameters
from benchmarks.peer_worker import Agent, versions

ROOT = Path(__file__).parents[1]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Iteration:
    """Seconds of one iteration: in all, of processor time, in the rollout, in the update; was that compiled?"""

    seconds: float
    processor: float
    collect: float
    update: float
    compiled: bool

    @property
    def cores(self) -> float:
        """How many cores were busy on average."""
        return self.processor / self.seconds


class Runner(ABC):
    """A contestant that does an iteration whenever it is told to.

    Attributes:
        first: The iteration that compiles and warms up; None before it.
        versions: Of the packages in its environment.
        parameters: That its agent learns.
    """

    first: Iteration | None = None
    versions: dict[str, str]
    parameters: int

    def iterate(self) -> Iteration:
        """The next iteration."""
        iteration = Iteration(**self._ask("iterate"))
        self.first = self.first or iteration
        return iteration

    def profile(self) -> dict[str, float]:
        """Seconds of every part of one more iteration."""
        return self._ask("profile")

    def limits(self) -> dict[str, float]:
        """Seconds that its parts could take."""
        return self._ask("limits")

    @abstractmethod
    def _ask(self, question: object) -> dict[str, Any]:
        """What a contestant answers."""


class Here(Runner):
    """A contestant in this process, for short forms.

    Args:
        contestant: What it runs.
        threads: Of torch.
    """

    def __init__(self, contestant: Contestant, threads: int) -> None:
        self._agent = Agent(contestant, threads)
        self.versions, self.parameters = versions(), parameters(self._agent.model)

    def _ask(self, question: object) -> dict[str, Any]:
        return self._agent.answer(str(question))


class Worker(Runner):
    """A contestant's process.

    Args:
        python: The interpreter of its environment.
        contestant: What it runs.
        threads: It may use, and cores.
        caches: Empty directory for what it compiles, so that its first iteration shows what that costs.

    Attributes:
        cores: It is bound to.

    Raises:
        RuntimeError: If it does not start; also from the other methods, if it ends.
    """

    def __init__(self, python: Path, contestant: Contestant, threads: int, caches: Path) -> None:
        self._contestant = contestant
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peer_worker"],
            cwd=ROOT,
            env=environment(threads, caches),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            opening = self._ask({"contestant": asdict(contestant), "threads": threads})
        except BaseException:
            self.close()
            raise
        self.versions, self.parameters = opening["versions"], opening["parameters"]
        self.cores: list[int] = opening["cores"]

    def close(self) -> None:
        """End the process: it stops when nothing more can come, or is stopped."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, question: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended then, and there is no answer either
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"The process of {self._contestant} ended:\n{self._last_words()}")
        return json.loads(answer)

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return "".join(self._errors.readlines()[-30:])


def environment(threads: int, caches: Path) -> dict[str, str]:
    """This process's environment, with so many threads for every library, and compiled code in a directory."""
    return {
        **os.environ,
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        "TORCHINDUCTOR_CACHE_DIR": str(caches),
        "JAX_PLATFORMS": "cpu",
        "PYTHONWARNINGS": "ignore",
    }


@contextmanager
def started(
    contestants: Mapping[str, tuple[Path, Contestant]], threads: int, *, processes: bool
) -> Iterator[dict[str, Runner]]:
    """All contestants, ``name: (interpreter, contestant)``, until the block ends: each in a process, or all in this."""
    if not processes:
        yield {name: Here(contestant, threads) for name, (_, contestant) in contestants.items()}
        return
    with ExitStack() as stack:
        workers: dict[str, Runner] = {}
        for name, (python, contestant) in contestants.items():
            caches = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            workers[name] = worker = Worker(python, contestant, threads, caches)
            stack.callback(worker.close)
        yield workers
