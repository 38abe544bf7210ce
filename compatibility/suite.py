"""Running SB3's test files, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from compatibility.substitution import SB3
from compatibility.verdict import Outcome

ROOT = Path(__file__).parents[1]
BASELINE = Path(__file__).parent / "baseline.json"
LIMIT_SECONDS = 600
_NOTHING_SELECTED = 5
_PPO = re.compile(r"\bPPO\b")


@dataclass(frozen=True)
class Work:
    """One file with one class.

    Args:
        algorithm: Dotted name of the class that stands for SB3's PPO.
        file: Name of the test file.
        seconds: How long it is expected to take; the longest comes first.
    """

    algorithm: str
    file: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """How the tests of a file ended, by name, and how long they took."""

    outcomes: Mapping[str, Outcome]
    seconds: float
    log: str


@dataclass(frozen=True)
class Baseline:
    """What SB3's own PPO passes.

    Args:
        version: Of SB3.
        by_name: By file, the tests that ``-k "PPO or ppo"`` selects.
        by_use: By file, further tests whose code uses the class.
        seconds: By file, how long they take.
    """

    version: str
    by_name: dict[str, list[str]]
    by_use: dict[str, list[str]]
    seconds: dict[str, float]

    @classmethod
    def read(cls, path: Path = BASELINE) -> Baseline:
        """As it was written."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path = BASELINE) -> None:
        """Keep it."""
        path.write_text(json.dumps(vars(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @property
    def files(self) -> list[str]:
        """The files with something to pass, in order."""
        return sorted(self.by_name.keys() | self.by_use.keys())

    def expected(self, file: str) -> set[str]:
        """The tests of a file that SB3's PPO passes."""
        return {*self.by_name.get(file, ()), *self.by_use.get(file, ())}

    def count(self) -> tuple[int, int]:
        """How many tests are selected by name, and how many more by use."""
        by_name, by_use = (sum(map(len, part.values())) for part in (self.by_name, self.by_use))
        return by_name, by_use


def measure_baseline(suite: Path, version: str, jobs: int) -> Baseline:
    """Run SB3's own PPO through every file that mentions it."""
    files = [path.name for path in (suite / "tests").glob("test_*.py") if _PPO.search(path.read_text("utf-8"))]
    results = run_all(suite, [Work(SB3, file) for file in sorted(files)], jobs)
    parts: dict[str, dict[str, list[str]]] = {"name": {}, "use": {}}
    for work, result in results.items():
        for name, outcome in result.outcomes.items():
            if outcome.get("outcome") == "passed":
                parts[outcome["selected_by"]].setdefault(work.file, []).append(name)
    kept = {**parts["name"], **parts["use"]}
    seconds = {work.file: round(result.seconds, 1) for work, result in results.items() if work.file in kept}
    return Baseline(version, parts["name"], parts["use"], seconds)


def run_all(suite: Path, work: Sequence[Work], jobs: int) -> dict[Work, Result]:
    """Run all, the longest first, so many at a time."""
    in_order = sorted(work, key=lambda each: -each.seconds)
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(in_order, pool.map(lambda each: run_one(suite, each), in_order), strict=True))


def run_one(suite: Path, work: Work) -> Result:
    """Run one file with SB3's own options for pytest.

    Raises:
        SystemExit: If pytest could not run the file.
    """
    name = f"{work.algorithm}.{work.file}"
    scratch = (suite / "runs").resolve()
    scratch.mkdir(exist_ok=True)
    outcomes = scratch / f"{name}.json"
    outcomes.unlink(missing_ok=True)
    plugins = ["-p", "compatibility.substitution", "-p", "no:cacheprovider"]
    options = ["--substitute", work.algorithm, "--outcomes", str(outcomes), "--basetemp", str(scratch / f"{name}.tmp")]
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"tests/{work.file}", "-q", *plugins, *options],
        cwd=suite,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if not outcomes.exists() or done.returncode not in (0, 1, _NOTHING_SELECTED):
        sys.exit(f"pytest could not run {work.file} with {work.algorithm}:\n{done.stdout}")
    return Result(json.loads(outcomes.read_text(encoding="utf-8")), time.monotonic() - begin, done.stdout)


def _environment() -> dict[str, str]:
    """One thread each, no GPU, and none of this project's options for pytest."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTEST_ADDOPTS", "PYTHONWARNINGS")}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
