"""Machines and controllers that are lost while a population is trained on Ray: at most a segment each, no member."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from everlearn.population.executors import Inline
from everlearn.population.executors.ray import Ray
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.population.store import FILE
from everlearn.testing.populations import ToyRunner, history, toy_rules, toy_trainer
from tests.population.listening import below
from tests.population.machines import machines

pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What has to come of it."""
    directory = tmp_path_factory.mktemp("undisturbed")
    trainer = toy_trainer(directory, toy_rules(), 6)
    trainer.run(Inline(ToyRunner, directory), lambda: False)
    return history(trainer)


@pytest.mark.parametrize("storage", [pytest.param("shared", marks=pytest.mark.slow), "object_store"])
def test_row_22_a_machine_that_is_lost_costs_a_segment_and_no_member(tmp_path: Path, storage: str, undisturbed) -> None:
    """It goes in the middle of a segment; another one comes, and takes what waits."""
    trainer = toy_trainer(tmp_path, toy_rules(), 6)
    with machines(1, 1) as cluster:
        lost = next(iter(cluster.worker_nodes))

        def beat(member_id: int, updates: int) -> None:
            if lost in cluster.worker_nodes and trainer.population.generation == 1 and trainer.population.results:
                cluster.remove_node(lost, allow_graceful=False)
                cluster.add_node(num_cpus=1)

        make, ray = partial(ToyRunner, seconds=0.1), RayCluster()
        with closing(Ray(make, tmp_path, 6, cluster=ray, storage=storage, beat=beat)) as executor:
            assert trainer.run(executor, lambda: False)
        assert lost not in cluster.worker_nodes
    assert history(trainer) == undisturbed
    incidents = [each.what for each in trainer.population.ledger.incidents]
    assert 1 <= len(incidents) <= 2
    assert all("A worker was lost, and its segment was trained again" in what for what in incidents)


TOYS = """
import sys
from functools import partial
from pathlib import Path
from everlearn.population.executors.ray import Ray
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.testing.populations import ToyRunner, toy_rules, toy_trainer
directory = Path(sys.argv[1])
trainer = toy_trainer(directory, toy_rules(), 6)
executor = Ray(partial(ToyRunner, seconds=0.1), directory, 2, cluster=RayCluster(num_cpus=2))
trainer.run(executor, lambda: False)
executor.close()
"""


def segments_in(directory: Path) -> int:
    """Whose results are in the journal."""
    if not (directory / FILE).is_file():
        return 0
    with closing(sqlite3.connect(f"{(directory / FILE).as_uri()}?mode=ro", uri=True)) as journal:
        try:
            return journal.execute("SELECT count(*) FROM segments").fetchone()[0]
        except sqlite3.OperationalError:  # it is being made
            return 0


def killed_after(segments: int, directory: Path) -> None:
    """Have a controller train until so many segments are over, and kill it; what it has started ends by itself."""
    with subprocess.Popen([sys.executable, "-c", TOYS, str(directory)], cwd=ROOT) as controller:
        while segments_in(directory) < segments:
            assert controller.poll() is None
            time.sleep(0.02)
        started = {process for process in below(controller.pid) if not is_agent(process)}
        controller.kill()
    end = time.monotonic() + 30
    while left := {process for process in started if is_alive(process)}:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def is_agent(process: int) -> bool:
    """Of Ray's, of which each machine has two: they end by themselves, too, after trying for a minute to report it."""
    with suppress(OSError):
        return b"Agent" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are read from /proc")
@pytest.mark.parametrize("kills", [[8], pytest.param([2, 5, 9, 12, 16], marks=pytest.mark.slow)])
def test_row_29_a_controller_that_is_killed_goes_on_with_the_same_history(tmp_path: Path, kills, undisturbed) -> None:
    """And leaves no process behind."""
    for segments in kills:
        killed_after(segments, tmp_path)
        assert segments_in(tmp_path) >= segments
    trainer = toy_trainer(tmp_path, toy_rules(), 6)
    assert len([*trainer.population.results]) > 0 or trainer.population.generation
    trainer.run(Inline(ToyRunner, tmp_path), lambda: False)
    assert history(trainer) == undisturbed
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("population.sqlite")}
    assert {name for name in names if not name.startswith(".sight-")} == trainer.population.needed()


OPEN = """
import os
from everlearn.population.executors.ray_cluster import RayCluster
if {own}:
    RayCluster(num_cpus=1).close()
else:
    from ray.cluster_utils import Cluster
    cluster = Cluster()
    cluster.add_node(num_cpus=1, include_dashboard=False)
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)  # which the cluster does not ask for
    RayCluster(cluster.address).close()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_a_cluster_without_a_token_is_warned_of(own: bool) -> None:
    variables = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    program = [sys.executable, "-c", OPEN.format(own=own)]
    run = subprocess.run(program, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "is used without a token: whoever reaches its ports can run code in it" in run.stderr


@pytest.mark.slow
def test_a_wrong_token_is_refused() -> None:
    program = (
        "import os, sys; from everlearn.population.executors.ray_cluster import RayCluster; RayCluster(sys.argv[1])"
    )
    with machines(1) as cluster:
        variables = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
        address = cluster.address
        command = [sys.executable, "-c", program, address]
        run = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"ConfigError: The Ray cluster {address} cannot be used" in run.stderr
    assert "Authentication token is missing or incorrect" in run.stderr
