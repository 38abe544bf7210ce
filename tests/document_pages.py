"""The blocks of a page, run in order as a reader would type them.

All python blocks of a page share one namespace, and all blocks one directory, which has a link to ``examples``.
A block whose first line is ``# file: NAME`` is written to that file; of the others

* ``python`` is executed,
* ``yaml`` is checked as a configuration, and where it names an environment trained for a moment,
* ``console`` is run line by line, shortened where it trains or plays; NOT_RUN says which programs are left out.

Any other language (``text``, ``toml``, ...) is for reading only.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
NOT_RUN = ("git", "make", "pip", "tensorboard", ".venv/bin/pip")
MOMENT = ["--steps", "64", "--set", "n_steps=16", "--set", "batch_size=16", "--set", "env.n_envs=2", "-q"]
NO_EPISODES = ["--set", "logging.baseline_episodes=0", "--set", "logging.evaluation_episodes=0"]
TWO_MEMBERS = ["population_size=2", "perturbation_interval=1", "vgs_warmup_steps=9", "population.ray=null"]
FEW_MEMBERS = [*MOMENT, "--executor", "inline", *(word for each in TWO_MEMBERS for word in ("--set", each))]
ONE_FOLD = ["--folds", "1", "--seeds", "2", *MOMENT[2:], "--set", "total_timesteps=64"]
STAND_IN = "Pendulum-v1"  # for configurations that leave the environment to the command line
_BLOCK = re.compile(r"^```(python|yaml|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# file: (\S+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if it says so."""
        name = _FILE.match(self.text)
        return name[1] if name else None


def blocks(page: Path) -> list[Block]:
    """What there is to run on a page."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2]) for match in _BLOCK.finditer(text)]


def pages_with_blocks() -> list[Path]:
    """The pages that have something to run."""
    return [page for page in PAGES if "_build" not in page.parts and blocks(page)]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a console block; comments, prompts and continued lines are understood."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words:
            yield words


def run_page(page: Path, directory: Path, log: Path) -> None:
    """Run a page in a directory, in a process of its own; what it prints goes to a file.

    The process ends with 1 where a block fails, after writing why.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(directory)
    (directory / "examples").symlink_to(ROOT / "examples")
    sys.path.insert(0, str(directory))
    warnings.simplefilter("error")
    torch.set_num_threads(1)  # the workers of pytest-xdist share the cores
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        print(f"--- {block.page.name}, line {block.line}, {block.language}", flush=True)
        try:
            _run(block, namespace)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    sys.stdout.flush()


def _run(block: Block, namespace: dict[str, Any]) -> None:
    if block.file:
        Path(block.file).write_text(block.text, encoding="utf-8")
    if block.language == "yaml":
        _check_configuration(block)
    elif block.language == "console":
        for words in commands(block):
            _command(words)
    elif not block.file:
        lines = "\n" * (block.line - 1)  # so that tracebacks name the page's lines
        exec(compile(lines + block.text, str(block.page), "exec"), namespace)


def _check_configuration(block: Block) -> None:
    from everlearn.config import load

    path = Path(block.file or "block.yaml")
    path.write_text(block.text, encoding="utf-8")
    if re.search(r"^env:", block.text, re.MULTILINE):
        is_population = load(path).population is not None
        command, short = ("pbt", FEW_MEMBERS) if is_population else ("train", [*MOMENT, *NO_EPISODES])
        _everlearn([command, str(path), "--out", f"runs/line-{block.line}", *short])
    else:
        load(path, {"env.id": STAND_IN})


def _command(words: list[str]) -> None:
    program, *arguments = words
    if program in NOT_RUN:
        return
    if program == "everlearn":
        single = [*MOMENT, *NO_EPISODES]
        short = {"train": single, "evaluate": ["--episodes", "1"], "backtest": ONE_FOLD, "pbt": FEW_MEMBERS}
        short |= {"pbt status": [], "pbt replay": ["-q", *NO_EPISODES]}
        name = " ".join(arguments[:2])
        _everlearn([*arguments, *short.get(name, short.get(arguments[0], []))])
    elif program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
    elif program == "pytest":
        import pytest

        assert pytest.main([*arguments, "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]) == 0
    else:
        raise AssertionError(f"{words}: this page shows a program that its test does not know")


def _everlearn(arguments: list[str]) -> None:
    from everlearn.cli import main

    sys.argv = ["everlearn", *arguments]
    try:
        main()
    except SystemExit as finished:
        assert not finished.code, f"{shlex.join(sys.argv)} ended with {finished.code}"
