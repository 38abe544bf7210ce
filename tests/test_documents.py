"""The code in README and docs runs as it stands, and the commands it shows are accepted."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def blocks(language: str) -> list[pytest.param]:
    """Every fenced block of a language in the pages, with a name that says where it stands."""
    found = []
    for page in PAGES:
        for index, text in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ):
            found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}-{index}"))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs_without_warnings(code, tmp_path):
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("console") for line in block.values[0].splitlines()]
    return [line for line in lines if line.startswith("everlearn train")]


@pytest.mark.parametrize("command", commands())
def test_train_command_runs(command, tmp_path):
    arguments = [str(ROOT / word) if word.startswith("examples/") else word for word in shlex.split(command)[1:]]
    short = ["--steps", "64", "--set", "n_steps=16", "--set", "env.n_envs=2", "--set", "batch_size=16", "-q"]
    program = [sys.executable, "-c", "from everlearn.cli import main; main()", *arguments, *short]
    result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.rglob("model.zip"))
