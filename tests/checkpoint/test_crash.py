"""Fifty kills of the crash test, and that it notices a writer that loses files. ``make test-crash`` does a thousand."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, which this system does not do")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def crash(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        places = ["--state", str(tmp_path / "state.json"), "--results", str(tmp_path / "results.json")]
        program = [sys.executable, "-m", "tools.crash", *arguments, *places]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    return run


def test_fifty_kills_lose_nothing_that_was_acknowledged(
    crash: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Row 15 of the failure modes: a kill while saving costs at most what was not acknowledged, and drafts go."""
    run = crash("--kills", "50", "--flips", "0", "--control", "0")
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    result = json.loads((tmp_path / "results.json").read_text())
    assert (result["kills"], result["lost"]) == (50, 0)
    assert result["acknowledged"] > 0
    assert sum(result["at_points"].values()) == 25


def test_a_stopped_crash_test_goes_on(crash: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    crash("--kills", "4", "--flips", "0", "--control", "0")
    run = crash("--kills", "6", "--flips", "0", "--control", "0")
    assert run.stdout.splitlines()[0] == "6 of 6 kills, 0 losses"
    result = json.loads((tmp_path / "results.json").read_text())
    assert (result["at_random"], sum(result["at_points"].values())) == (3, 3)


def test_the_crash_test_notices_files_that_are_overwritten_in_place(tmp_path: Path) -> None:
    program = (
        "import random, sys, tempfile; from pathlib import Path\n"
        "from tools.crash.kills import Victims; from tools.crash.writer import overwrite_in_place_forever\n"
        "victims = Victims(Path(sys.argv[1]), overwrite_in_place_forever)\n"
        "sys.exit(7 if any(victims.kill_one(random.Random(kill)) for kill in range(300)) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, check=False).returncode == 7


def test_the_crash_test_reaches_every_operation() -> None:
    from tools.crash.points import all_points

    reached = {point.operation for point in all_points()}
    saving = {f"save:{operation}" for operation in ("create", "write", "fsync", "close", "replace", "directory")}
    assert reached == saving | {"prune:remove", "quarantine:rename", "quarantine:directory", "lock:remove"}


def test_the_committed_result_is_of_a_thousand_kills_and_no_loss() -> None:
    result = json.loads((ROOT / "tools" / "crash" / "results.json").read_text())
    assert result["kills"] >= 1000
    assert result["lost"] == 0
    assert result["overwriting_in_place"]["lost"] > 0
    assert result["bit_flips"]["files"] >= 10_000
    assert set(result["truncations"]["outcomes"]) <= {"Truncated", "Unsupported"}
    assert not {"silent load"} & set(result["bit_flips"]["outcomes"])
