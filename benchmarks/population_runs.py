"""Whole trainings of populations, each a process on cores of its own: how they are started, and what they leave."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.population_task import GENERATIONS, SPACE, Population
from benchmarks.workers import ROOT, environment
from everlearn.config.document import plain_yaml

_LIMIT = 3600.0  # seconds, after which a run hangs
_LOOK = 0.1  # seconds between two looks at a run
_QUIET_RAY = {
    "PYTHONPATH": str(ROOT),
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it listens on the loopback interface
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": str(_LIMIT),
}


@dataclass(frozen=True)
class PopulationRun:
    """What was found in a run.

    Attributes:
        speed: Environment steps per second, of all members together, from the end of the first generation on.
        start: Seconds of everything else: the process, compilation, the first generation.
        cores: That were busy on average while steps were counted; None where the system does not say.
        exploits: How many members have copied another.
    """

    speed: float
    start: float
    cores: float | None
    exploits: int


@dataclass
class Watched:
    """A run under way: seconds and processor seconds when it was seen that another generation was over."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def cores(self) -> float | None:
        """Processor time through time, from the first look to the last."""
        if len(self.seconds) < 2:
            return None
        return (self.processor[-1] - self.processor[0]) / (self.seconds[-1] - self.seconds[0]) or None


def configuration(population: Population) -> dict[str, Any]:
    """What a file for ``everlearn pbt`` says, but for the executor."""
    space = {
        name: {"min_value": bounds.low, "max_value": bounds.high, "is_log_scale": bounds.log}
        for name, bounds in SPACE.items()
    }
    return {
        "env": {"id": population.env_id, "n_envs": population.n_envs, "normalize": False},
        "algorithm": {
            "name": "PPO",
            "n_steps": population.n_steps,
            "batch_size": population.batch_size,
            "n_epochs": population.n_epochs,
            "compile": population.compiled,
        },
        "population": {
            "population_size": population.members,
            "perturbation_interval": population.interval,
            "truncation_ratio": population.truncation,
            "hyperparams": space,
            "workers": population.cores,
        },
        "total_timesteps": population.member_steps,
        "seed": population.seed,
        "logging": {"tensorboard": False},
    }


def own_run(population: Population, executor: str, caches: Path) -> PopulationRun:
    """``everlearn pbt`` from its start to its end.

    Args:
        population: What is trained.
        executor: By which.
        caches: Directory for compiled code.

    Raises:
        RuntimeError: If it fails.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file, out = Path(folder) / "population.yaml", Path(folder) / "run"
        plain_yaml().dump(configuration(population), file)
        command = [sys.executable, "-m", "everlearn", "pbt", str(file), "--out", str(out), "--quiet"]
        command += ["--set", f"population.executor={executor}"]
        return watched_run(command, environment(1, caches), out / GENERATIONS, population.cores)


def tune_run(population: Population, python: Path, member: str, caches: Path | None = None) -> PopulationRun:
    """``benchmarks.ray_tune`` from its start to its end.

    Args:
        population: What is trained.
        python: An interpreter that has Ray.
        member: What a member is, by its name there.
        caches: Directory for compiled code; None for one that is empty.

    Raises:
        RuntimeError: If it fails.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [str(python), "-m", "benchmarks.ray_tune", json.dumps(asdict(population)), folder, member]
        variables = environment(1, caches or Path(folder)) | _QUIET_RAY | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        return watched_run(command, variables, Path(folder) / GENERATIONS, population.cores)


def watched_run(command: Sequence[str], variables: Mapping[str, str], generations: Path, cores: int) -> PopulationRun:
    """Run a command to its end, on so many cores, and read what it has written about its generations.

    Raises:
        RuntimeError: If it fails, or has written about fewer than two.
    """
    begin, watched = time.monotonic(), Watched()
    with tempfile.TemporaryFile("w+") as words, _process(command, variables, words, cores) as process:
        while process.poll() is None:
            if time.monotonic() - begin > _LIMIT:
                raise RuntimeError(f"{command} has run for {_LIMIT:.0f} seconds.")
            if len(_lines(generations)) > len(watched.seconds):
                watched.seconds.append(time.monotonic())
                watched.processor.append(processor_seconds(process.pid))
            time.sleep(_LOOK)
        seconds, records = time.monotonic() - begin, [json.loads(line) for line in _lines(generations)]
        if process.returncode != 0 or len(records) < 2:
            words.seek(0)
            said = "".join(words.readlines()[-30:])
            raise RuntimeError(f"{command} ended with {process.returncode}, after {len(records)} generations:\n{said}")
    return _found(records, seconds, watched.cores)


def _found(records: Sequence[Mapping[str, float]], seconds: float, cores: float | None) -> PopulationRun:
    first, last = records[0], records[-1]
    counted = last["seconds"] - first["seconds"]
    return PopulationRun(
        speed=(last["env_steps"] - first["env_steps"]) / counted,
        start=seconds - counted,
        cores=cores,
        exploits=sum(int(record["exploits"]) for record in records),
    )


def _lines(file: Path) -> list[str]:
    """The whole lines of a file, none if there is no file."""
    if not file.exists():
        return []
    return [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def _process(
    command: Sequence[str], variables: Mapping[str, str], words: IO[str], cores: int
) -> Iterator[subprocess.Popen[str]]:
    """A process on the last of the cores that there are; if it is left too early, it ends with all below it."""
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=words, stderr=words, text=True)
    try:
        if hasattr(os, "sched_setaffinity"):  # at once: threads and processes that it makes inherit it
            with suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[-cores:])
        yield process
    finally:
        if process.poll() is None:
            for pid in _tree(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()  # where nothing is known of what is below it
            process.wait()


def processor_seconds(pid: int) -> float:
    """Processor time of a process and all below it, those included that have ended and been waited for.

    It is 0 where the system has no ``/proc``.
    """
    ticks = sum(sum(map(int, fields[11:15])) for fields in _tree(pid).values())
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def _tree(root: int) -> dict[int, list[str]]:
    """A process and all below it: what ``/proc/PID/stat`` says of each behind its name."""
    known = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            known[int(file.parent.name)] = file.read_text().rpartition(")")[2].split()
    tree, size = {root}, 0
    while len(tree) > size:
        size = len(tree)
        tree |= {pid for pid, fields in known.items() if int(fields[1]) in tree}
    return {pid: known[pid] for pid in tree if pid in known}
