"""Ten kills of populations' controllers, and that losses are noticed. ``make test-crash`` does a hundred."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are forked, and looked for in /proc")


def test_row_29_a_population_whose_controllers_are_killed_comes_out_as_if_undisturbed(tmp_path: Path) -> None:
    """B27, B31: the same decisions, scores and states, nothing left over, no worker that lives on."""
    options = ["--only", "populations", "--controllers", "10", "--results", str(tmp_path / "results.json")]
    program = [sys.executable, "-m", "tools.crash", *options]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads((tmp_path / "results.json").read_text())["populations"]
    assert (figures["kills"], figures["lost"]) == (10, 0)
    assert figures["at_random"] > 0
    assert figures["workers_left_alone"] > 0


BROKEN = {
    "a generator that begins anew": "trainer.generator_from = lambda state: numpy.random.default_rng(0)",
    "decisions that are not kept": "store.PopulationStore.commit_generation = lambda self, generation: None",
    "files that somebody needs": "population.Population.needed = lambda self: set()",
}
PROGRAM = """
import sys, numpy
from everlearn.population import population, store, trainer
from tools.crash.populations import kill_controllers
{fault}
sys.exit(7 if any(kill_controllers(kills)["lost"] for kills in (4, 8, 16)) else 0)  # where a kill falls is chance
"""


@pytest.mark.parametrize("fault", BROKEN)
def test_the_crash_test_notices(fault: str) -> None:
    program = [sys.executable, "-c", PROGRAM.format(fault=BROKEN[fault])]
    assert subprocess.run(program, cwd=ROOT, check=False, capture_output=True).returncode == 7


def test_the_committed_result_is_of_a_hundred_kills_and_no_loss() -> None:
    figures = json.loads((ROOT / "tools" / "crash" / "results.json").read_text())["populations"]
    assert figures["kills"] >= 100
    assert figures["lost"] == 0
    points = {"begin", "results", "generation"}
    assert {f"journal:{name}{when}" for name in points for when in ("", " done")} <= figures["at_points"].keys()
    assert {"save:write", "save:replace", "save:directory", "prune:remove"} <= figures["at_points"].keys()


HANGING = """
import sys
from functools import partial
from pathlib import Path
from everlearn.population.executors import Processes
from everlearn.testing.populations import ToyRunner, toy_rules, toy_trainer
if __name__ == "__main__":
    directory = Path(sys.argv[1])
    executor = Processes(partial(ToyRunner, misfortunes={"0:0": "hang"}), directory, 1)
    toy_trainer(directory, toy_rules(2)).run(executor, lambda: False)
"""


def test_row_22_a_worker_that_hangs_ends_with_its_controller(tmp_path: Path) -> None:
    """Which was killed, so that it could not end it."""
    from tools.crash.populations import left_alone

    controller = subprocess.Popen([sys.executable, "-c", HANGING, str(tmp_path)], cwd=ROOT, start_new_session=True)
    end = time.monotonic() + 60
    while not (tmp_path / "suffered-0-0").exists() and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    assert (tmp_path / "suffered-0-0").exists()
    assert left_alone(controller.pid) == []
