"""rl_zoo3's commands with everlearn's algorithms, as docs/how-to/rl_zoo3.md shows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / ".cache" / "zoo"
REQUIREMENTS = Path(__file__).parent / "zoo_requirements.txt"
COMMANDS = ROOT / "examples" / "zoo_commands.py"
CONFIGURATION = ROOT / "examples" / "zoo.yml"


@dataclass(frozen=True)
class Case:
    """What is trained.

    Args:
        algorithm: Its name in the zoo.
        env: Id of an environment of the configuration file.
        n_steps: Steps of every environment per rollout.
        steps: Environment steps of each training.
    """

    algorithm: str
    env: str
    n_steps: int
    steps: int


CASES = (Case("everlearn_ppo", "CartPole-v1", 32, 512), Case("distributional_ppo", "Pendulum-v1", 64, 512))


def run() -> None:
    """Train, enjoy and train on with each case; ends with 1 and the output of a command that failed."""
    environment = {**os.environ, "PYTHONPATH": str(installed(SITE)), "OMP_NUM_THREADS": "1"}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            try_case(case, Path(folder), environment)
        print(f"{case.algorithm} on {case.env}: trained, enjoyed, trained on")


def installed(site: Path) -> Path:
    """A directory with rl_zoo3 and what it needs beside this project's own environment; filled once.

    Its requirements contradict the versions of constraints.txt in one place (python-dateutil), so that they stand
    beside the environment and not in it.

    Raises:
        SystemExit: If pip cannot install them.
    """
    wanted, stamp = REQUIREMENTS.read_text(encoding="utf-8"), site / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(site, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*command, "--no-deps", "--target", str(site), "-r", str(REQUIREMENTS)], check=False)
        if done.returncode:
            sys.exit(f"pip could not install what {REQUIREMENTS} lists.")
        stamp.write_text(wanted, encoding="utf-8")
    return site


def try_case(case: Case, folder: Path, environment: dict[str, str]) -> None:
    """The commands of one case, and what they must leave.

    Raises:
        SystemExit: If a command fails or leaves something else.
    """
    first, second = (folder / "logs" / case.algorithm / f"{case.env}_{number}" for number in (1, 2))
    which = ["--algo", case.algorithm, "--env", case.env, "-f", "logs"]
    steps, evaluation = ["-n", str(case.steps)], ["--eval-freq", str(case.steps // 2), "--eval-episodes", "1"]
    train = ["train", *which, "-conf", str(CONFIGURATION), "--seed", "1", "-params", f"n_steps:{case.n_steps}", *steps]
    trained = first / f"{case.env}.zip"
    command(folder, environment, *train, *evaluation, "--save-freq", str(case.steps // 2))
    enjoy = ["enjoy", *which, "--exp-id", "1", "--no-render", "-n", "400"]
    for choice in ([], ["--load-best"], ["--load-last-checkpoint"]):
        said = command(folder, environment, *enjoy, *choice)
        if "Mean reward" not in said:
            sys.exit(f"enjoy played no episode:\n{said}")
    command(folder, environment, *train, "-i", str(trained), "--eval-freq", "-1")
    before, after = (updates(path) for path in (trained, second / f"{case.env}.zip"))
    if after != 2 * before:
        sys.exit(f"Training on went from {before} to {after} updates; {2 * before} were expected.")


def command(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """The output of one of the zoo's commands, run in a folder.

    Raises:
        SystemExit: If it fails.
    """
    done = subprocess.run(
        [sys.executable, str(COMMANDS), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{COMMANDS.name} {' '.join(arguments)} failed:\n{done.stdout}")
    return done.stdout


def updates(path: Path) -> int:
    """How many updates a saved model has had; read from its file, so that the zoo's classes are not needed."""
    with zipfile.ZipFile(path) as archive:
        count: int = json.loads(archive.read("counters.json"))["_n_updates"]
    return count
