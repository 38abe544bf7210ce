"""Controllers of populations of agents are killed, and what comes of it is what would have come of it anyway."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from everlearn.pbt import PopulationRun, resume_population
from tests.pbt.small import SETTINGS, history_of, small_population

LONGEST = 120.0  # seconds that a segment may take on a busy machine


def started(run: Path, **settings: object) -> subprocess.Popen[bytes]:
    """A controller in a process of its own: a new population's, or the next one of one that is there."""
    if (run / "population.sqlite").exists():
        arguments = ["--resume", str(run)]
    else:
        values = {**SETTINGS, **settings}
        arguments = [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        arguments += ["--out", str(run), "--overwrite"]
    return subprocess.Popen([sys.executable, "-m", "everlearn", "pbt", *arguments, "-q"], stdout=subprocess.DEVNULL)


def segments(run: Path) -> int:
    """How many the journal has."""
    try:
        with closing(sqlite3.connect(f"{(run / 'population.sqlite').as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM segments").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def kill_after(process: subprocess.Popen[bytes], run: Path, wanted: int, moment: float) -> None:
    """SIGKILL, a moment after the journal has so many segments."""
    end = time.monotonic() + LONGEST
    while segments(run) < wanted and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()


def workers_of(run: Path) -> list[int]:
    """Processes that are at work for a population; two of Ray's own try for a minute to report that it has ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            is_ours = f"EVERLEARN_TEST_RUN={run}".encode() in entry.read_bytes()
            if is_ours and b"Agent" not in (entry.parent / "cmdline").read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 5])
@pytest.mark.parametrize("executor", ["processes", "vectorised", "ray"])
def test_row_29_a_killed_controller_changes_nothing(tmp_path: Path, executor: str, kills: int, monkeypatch) -> None:
    total = 6 * 64 * (1 + kills // 5)
    if executor == "ray":
        pytest.importorskip("ray")
    reference = executor if executor == "vectorised" else "inline"
    expected = small_population(tmp_path / "expected", total_timesteps=total, population__executor=reference)
    run, draws = tmp_path / "run", random.Random(kills)
    monkeypatch.setenv("EVERLEARN_TEST_RUN", str(run))
    for _ in range(kills):
        process = started(run, **{"population.executor": executor, "total_timesteps": total})
        kill_after(process, run, segments(run) + draws.randint(1, 4), draws.uniform(0.0, 0.2))
    end = time.monotonic() + 30.0
    while workers_of(run) and time.monotonic() < end:
        time.sleep(0.1)
    assert not workers_of(run)
    resume_population(run)
    assert history_of(PopulationRun(run)) == history_of(expected)


def test_a_signal_ends_training_and_the_command_says_how_it_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(run, **{"total_timesteps": 600 * 64})
    end = time.monotonic() + LONGEST
    while segments(run) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONGEST) == 128 + signal.SIGTERM
    assert json.loads((run / "summary.json").read_text())["stopped_by"] == "SIGTERM"
    assert (run / "model.zip").is_file()
