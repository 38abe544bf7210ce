"""Kill trainings at random moments, resume them in new processes, and compare every bit with uninterrupted ones.

``python -m tools.resume_table`` writes ``docs/resume-table.md`` and ``tools/resume_table.json``; ``--cells WORDS``
takes those whose name has these words.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from everlearn.checkpoint.store import CheckpointStore
from everlearn.core.digest import digest
from everlearn.ppo.model_file import LEARNED, read_model_file
from everlearn.runs.verifying import COMPARED

ENVIRONMENTS = ("CartPole-v1", "Pendulum-v1", "HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5")
PARTS = (*LEARNED, *COMPARED)
"""Of a checkpoint, what must be equal."""
TIMES = ("time/fps", "time/time_elapsed")
RESULTS, PAGE = Path(__file__).with_suffix(".json"), Path("docs/resume-table.md")
STEPS, N_ENVS = 128, 2


@dataclass(frozen=True)
class Cell:
    """One training, to be killed and resumed."""

    env_id: str
    normalize: bool
    engine: str
    algorithm: str
    compiled: bool
    iterations: int = 6

    @property
    def name(self) -> str:
        """For tables and directories."""
        normalised = "normalised" if self.normalize else "plain"
        mode = "compiled" if self.compiled else "eager"
        return " ".join([self.env_id, normalised, self.engine, self.algorithm, mode])

    def settings(self) -> dict[str, Any]:
        """Of the run."""
        return {
            "env.id": self.env_id,
            "env.n_envs": N_ENVS,
            "env.normalize": self.normalize,
            "env.engine": self.engine,
            "algorithm.name": self.algorithm,
            "algorithm.n_steps": STEPS,
            "algorithm.n_epochs": 2,
            "algorithm.learning_rate": "lin_3e-4",
            "algorithm.compile": self.compiled,
            "total_timesteps": self.iterations * STEPS * N_ENVS,
            "checkpoint.every": STEPS * N_ENVS,
            "checkpoint.keep_last": 20,
            "logging.tensorboard": False,
            "logging.baseline_episodes": 0,
            "logging.evaluation_episodes": 0,
            "seed": 3,
        }


@dataclass(frozen=True)
class Result:
    """What came of a cell: whether all is equal, which parts are not, how often and after which step it was killed."""

    name: str
    equal: bool
    different: list[str]
    kills: list[int]
    seconds: float


def cells() -> Iterator[Cell]:
    """All of them."""
    engines, algorithms = ("synchronous", "subprocess"), ("PPO", "DistributionalPPO")
    for combination in itertools.product(ENVIRONMENTS, (False, True), engines, algorithms, (False, True)):
        yield Cell(*combination)


def run_cell(cell: Cell, directory: Path, kills: int = 1, seed: int = 0) -> Result:
    """Train without interruption, and with; compare.

    Args:
        cell: What to train.
        directory: Where both runs go.
        kills: How often the second is killed, each time after another checkpoint or a while after it.
        seed: Of the moments.
    """
    start, moments = time.monotonic(), random.Random(f"{cell.name} {seed}")
    straight, killed = directory / "straight", directory / "killed"
    wait_for(train(cell, straight))
    first_iterations = sorted(moments.sample(range(1, cell.iterations), kills))
    steps = []
    for number, iteration in enumerate(first_iterations):
        process = train(cell, killed) if number == 0 else resume(killed)
        steps.append(kill_after(process, killed, iteration * STEPS * N_ENVS, moments.uniform(0, 0.3)))
    wait_for(resume(killed))
    different = differences(straight, killed)
    return Result(cell.name, not different, different, steps, round(time.monotonic() - start, 1))


def train(cell: Cell, out: Path) -> subprocess.Popen[bytes]:
    """Begin a training in a process of its own."""
    program = "import json, sys, everlearn; everlearn.train(settings=json.loads(sys.argv[1]), out=sys.argv[2])"
    return started(program, json.dumps(cell.settings()), str(out))


def resume(run: Path) -> subprocess.Popen[bytes]:
    """Go on in a new process."""
    return started("import sys, everlearn; everlearn.resume(sys.argv[1], require='exact')", str(run))


def started(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A process, and a group of its own: environments in processes die with it."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)


def wait_for(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended well."""
    _, report = process.communicate()
    if process.returncode:
        raise RuntimeError(report.decode())


def kill_after(process: subprocess.Popen[bytes], run: Path, step: int, pause: float) -> int:
    """SIGKILL a while after the checkpoint of a step is there; returns the last step that was saved."""
    wanted = run / "checkpoints" / f"step-{step:012d}.zip"
    while not wanted.is_file():
        if process.poll() is not None:
            raise RuntimeError(f"{run} ended before step {step}: {process.communicate()[1].decode()}")
        time.sleep(0.002)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return CheckpointStore(run / "checkpoints").checkpoints()[-1].step


def differences(straight: Path, killed: Path) -> list[str]:
    """What is not the same in two runs."""
    ends = [
        read_model_file(CheckpointStore(run / "checkpoints").latest().checkpoint.path) for run in (straight, killed)
    ]
    parts = [{part: digest(without_start(end.state(part))) for part in PARTS if part in end} for end in ends]
    logs = [{"episode log": episodes(run), "metric log": metrics(run)} for run in (straight, killed)]
    one, other = ({**part, **log} for part, log in zip(parts, logs, strict=True))
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def without_start(state: dict[str, Any]) -> dict[str, Any]:
    """A part's state without the step from which this process reckons how fast it is."""
    return {name: value for name, value in state.items() if name != "_num_timesteps_at_start"}


def episodes(run: Path) -> str:
    """The digest of the episode log without its times."""
    with (run / "episodes.csv").open(newline="") as lines:
        rows = [[value for name, value in row.items() if name != "seconds"] for row in csv.DictReader(lines)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def metrics(run: Path) -> str:
    """The digest of the metric log without its times."""
    records = [json.loads(line) for line in (run / "progress.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in record.items() if key not in TIMES} for record in records]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def page(results: Sequence[Result]) -> str:
    """The table as a page."""
    equal = sum(result.equal for result in results)
    lines = [
        "# Resume table",
        "",
        "Every training was run twice: once to its end, once killed with SIGKILL at a random moment and resumed in a",
        "new process. Parameters, optimizer, statistics, counters, generators, and the episode and metric logs",
        f"(without times) must be equal to the bit. **{equal} of {len(results)} are.** `make resume-table` repeats it.",
        "",
        "| environment | observations | engine | algorithm | update | killed after step | equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        verdict = "yes" if result.equal else f"no: {', '.join(result.different)}"
        kills = ", ".join(f"{step:,}" for step in result.kills)
        lines.append(f"| {' | '.join(result.name.split())} | {kills} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cells and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="", help="only those whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [cell for cell in cells() if all(word in cell.name.split() for word in arguments.cells.split())]

    def one(cell: Cell) -> Result:
        with tempfile.TemporaryDirectory() as directory:
            result = run_cell(cell, Path(directory))
        print(f"{cell.name}: {'equal' if result.equal else result.different} ({result.seconds} s)", flush=True)
        return result

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(one, chosen))
    if not arguments.cells:
        RESULTS.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
        PAGE.write_text(page(results))
    if not all(result.equal for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
