"""The executor ray: the same population as in this process, and a cluster that nobody else can reach."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from everlearn.core.errors import ConfigError, EverlearnError, MissingExtraError
from everlearn.population.executors import Beat, Executor, Inline, Processes, ray_cluster
from everlearn.population.executors.process_worker import ProcessWorker
from everlearn.population.executors.ray import Placement, Ray
from everlearn.population.executors.ray_cluster import RayCluster, require_cluster
from everlearn.population.segments import Result, Task
from everlearn.population.trainer import PopulationTrainer
from everlearn.testing.populations import ExecutorConformance, ToyRunner, history, toy_rules, toy_trainer

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[RayCluster]:
    """One for all tests here: executors take the connection that there is."""
    with closing(RayCluster(num_cpus=2)) as cluster:
        yield cluster


class TestRay(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Ray(make_runner, directory, 2, cluster=RayCluster())


class TestObjectStore(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Ray(make_runner, directory, 2, cluster=RayCluster(), storage="object_store")


def run(directory: Path, misfortunes: dict[str, str], updates: int = 6, **options) -> PopulationTrainer:
    trainer = toy_trainer(directory, toy_rules(), updates)
    make = partial(ToyRunner, misfortunes=misfortunes)
    with closing(Ray(make, directory, 2, cluster=RayCluster(), **options)) as executor:
        assert trainer.run(executor, lambda: False)
    return trainer


def test_row_22_a_worker_that_is_lost_costs_a_segment_and_no_member(tmp_path: Path) -> None:
    undisturbed = toy_trainer(tmp_path / "a", toy_rules(), 6)
    undisturbed.run(Inline(ToyRunner, tmp_path / "a"), lambda: False)
    found = run(tmp_path / "b", {"4:1": "kill", "2:2": "hang"}, timeout=2.0)
    assert history(found) == history(undisturbed)
    lost = {each.member_id: each.what for each in found.population.ledger.incidents if "A worker was lost" in each.what}
    assert lost.keys() == {4, 2}
    assert "its worker process has died" in lost[4]
    assert "has not been heard of for 2 seconds" in lost[2]


def test_row_22_a_member_whose_workers_die_again_and_again_is_replaced(tmp_path: Path) -> None:
    found = run(tmp_path, {"5:1": "kill"}, restarts=0)
    (event,) = (each for each in found.population.ledger.events if (each.generation, each.member_id) == (2, 5))
    assert (event.performance, event.source_id is None) == (None, False)
    (failure,) = (each.what for each in found.population.ledger.incidents if "It has failed" in each.what)
    assert "its worker process has died" in failure


@pytest.mark.parametrize("storage", ["auto", "object_store"])
def test_nothing_but_members_files_is_left(tmp_path: Path, storage: str) -> None:
    trainer = run(tmp_path, {}, storage=storage)
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("population.sqlite")}
    assert names == trainer.population.needed()


@pytest.mark.parametrize("storage", ["auto", pytest.param("shared", marks=pytest.mark.slow)])
def test_a_worker_that_does_not_see_the_directory_gets_the_files(tmp_path: Path, storage: str) -> None:
    """Or is refused, where it has to see it."""
    trainer = toy_trainer(tmp_path, toy_rules(), 6)
    with closing(Ray(ToyRunner, tmp_path, 2, cluster=RayCluster(), storage=storage)) as executor:
        (sight,) = tmp_path.glob(".sight-*")
        sight.unlink()
        if storage == "shared":
            with pytest.raises(ConfigError, match=re.escape(f"does not see {tmp_path}. Have the run in a directory")):
                trainer.run(executor, lambda: False)
            return
        assert trainer.run(executor, lambda: False)
        assert 0 < len(executor._files._sent) <= 6  # those of the last generation, and no others
    undisturbed = toy_trainer(tmp_path / "a", toy_rules(), 6)
    undisturbed.run(Inline(ToyRunner, tmp_path / "a"), lambda: False)
    assert history(trainer) == history(undisturbed)


def test_a_machine_with_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from everlearn.population.executors import ray_worker

    monkeypatch.setattr(ray_worker, "versions", lambda: {"everlearn": "0.0.1", "torch": "2.0.0", "numpy": "1.0.0"})
    with (
        closing(Ray(ToyRunner, tmp_path, 2, cluster=RayCluster())) as executor,
        pytest.raises(ConfigError, match=r"and the controller everlearn 0\.0\.1, .*Install the same on all machines"),
    ):
        [*executor.run_segments([Task(0, 0, 0, 1, 0, {"rate": 0.1})], lambda: False)]


def test_signs_of_life_tell_how_far_each_segment_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    tasks = [Task(member, 0, 0, 5, member, {"rate": 0.1}) for member in range(2)]
    make, beat = partial(ToyRunner, seconds=0.2), lambda *what: told.append(what)
    with closing(Ray(make, tmp_path, 2, cluster=RayCluster(), beat=beat)) as executor:
        assert len([*executor.run_segments(tasks, lambda: False)]) == 2
    for member in range(2):
        updates = [updates for who, updates in told if who == member]
        assert updates == sorted(set(updates))
        assert len(updates) >= 3


class Raising(ToyRunner):
    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        if tasks[0].member_id == 0:
            beat(0, 1)
            raise LookupError(f"there is no plug-in for {tasks[0].member_id}")
        return super().run(tasks, beat)


def test_what_a_runner_raises_is_told_and_its_place_is_free_again(tmp_path: Path) -> None:
    """On as many cores as there are workers: one that stayed would keep all others from beginning."""
    tasks = [Task(member, 0, 0, 1, member, {"rate": 0.1}) for member in range(2)]
    with closing(Ray(Raising, tmp_path, 2, cluster=RayCluster(), restarts=2)) as executor:
        results = {each.member_id: each for piece in executor.run_segments(tasks, lambda: False) for each in piece}
    said = "has raised LookupError: there is no plug-in for 0"
    assert ((results[0].error or "").count(said), results[1].error) == (3, None)


class Slow(ToyRunner):
    def __init__(self, directory: Path) -> None:
        time.sleep(3)
        super().__init__(directory)


def test_a_runner_may_take_its_time_to_begin(tmp_path: Path) -> None:
    with closing(Ray(Slow, tmp_path, 1, cluster=RayCluster(), timeout=1.0, restarts=0)) as executor:
        (((result,)),) = executor.run_segments([Task(0, 0, 0, 1, 0, {"rate": 0.1})], lambda: False)
    assert result.error is None


def killed_idle(executor: Ray | Processes) -> None:
    """Kill the workers of an executor that have no work."""
    for place in executor._places.values():
        worker = place.worker
        os.kill(worker.pid, signal.SIGKILL) if isinstance(worker, ProcessWorker) else ray.kill(worker._actor)
    time.sleep(0.5)


@pytest.mark.parametrize("kind", ["ray", "processes"])
def test_a_worker_that_dies_without_work_costs_nothing(tmp_path: Path, kind: str) -> None:
    make, task = ToyRunner, Task(0, 0, 0, 1, 0, {"rate": 0.1})
    executor: Ray | Processes
    if kind == "ray":
        executor = Ray(make, tmp_path, 1, cluster=RayCluster(), restarts=0)
    else:
        executor = Processes(make, tmp_path, 1, restarts=0)
    with closing(executor):
        for _ in range(2):
            (((result,)),) = executor.run_segments([task], lambda: False)
            assert (result.error, result.interruptions) == (None, ())
            killed_idle(executor)


def test_what_no_worker_can_have_is_refused(tmp_path: Path) -> None:
    placement = Placement(resources={"CPU": 2.0})
    executor = Ray(ToyRunner, tmp_path, 1, cluster=RayCluster(), placement=placement)
    with closing(executor), pytest.raises(ConfigError, match="Ray refuses what a worker needs"):
        [*executor.run_segments([Task(0, 0, 0, 1, 0, {"rate": 0.1})], lambda: False)]


def test_a_worker_that_no_machine_has_room_for_is_waited_for_and_given_up(tmp_path: Path) -> None:
    needs = Placement(num_cpus=1, resources={"accelerator": 2.0})
    executor = Ray(ToyRunner, tmp_path, 1, cluster=RayCluster(), placement=needs, patience=0.5)
    with (
        closing(executor),
        pytest.raises(EverlearnError, match="needs CPU 1 of 2, accelerator 2 of 0 that all machines"),
    ):
        [*executor.run_segments([Task(0, 0, 0, 1, 0, {"rate": 0.1})], lambda: False)]


def test_workers_that_wait_for_room_do_not_keep_others_from_working(tmp_path: Path) -> None:
    """Four of four cores' worth on two: two work."""
    tasks = [Task(member, 0, 0, 1, member, {"rate": 0.1}) for member in range(6)]
    with closing(Ray(ToyRunner, tmp_path, 4, cluster=RayCluster())) as executor:
        results = [result.member_id for piece in executor.run_segments(tasks, lambda: False) for result in piece]
    assert sorted(results) == [*range(6)]


def test_another_address_than_that_of_the_connection_is_refused(cluster: RayCluster) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"connected to the Ray cluster {cluster.address} already")):
        RayCluster("192.0.2.1:6379")
    with closing(RayCluster(cluster.address)) as again:
        assert again.address == cluster.address


def test_a_client_from_outside_is_refused() -> None:
    with pytest.raises(ConfigError, match="Start it on one of its machines"):
        RayCluster("ray://192.0.2.1:10001")


def test_a_listener_that_is_no_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would try for ten minutes."""
    monkeypatch.setattr(ray_cluster, "_PATIENCE", 4.0)
    with socket.create_server(("", 0)) as listener:
        address = f"{ray.util.get_node_ip_address()}:{listener.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"nothing that is a cluster .* has answered within 4 seconds"):
            ray_cluster._require_answer(ray, address)


TWO = """
import sys, threading
from contextlib import closing
from pathlib import Path
from everlearn.population.executors.ray import Ray
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.population.segments import Result, Task
from everlearn.testing.populations import ToyRunner
stdout, done = sys.stdout, []
def train(name):
    directory = Path(sys.argv[1]) / name
    directory.mkdir()
    with closing(Ray(ToyRunner, directory, 1, cluster=RayCluster(num_cpus=2))) as executor:
        for generation in range(1 if name == "a" else 4):
            tasks = [Task(0, generation, 0, 1, 0, {"rate": 0.1})]
            done.extend(result for piece in executor.run_segments(tasks, lambda: False) for result in piece)
threads = [threading.Thread(target=train, args=[name]) for name in "ab"]
[thread.start() for thread in threads], [thread.join() for thread in threads]
import ray
assert (len(done), ray.is_initialized(), sys.stdout is stdout) == (5, False, True)
assert all(result.error is None for result in done)
"""


@pytest.mark.slow
def test_two_populations_of_one_process_share_a_cluster(tmp_path: Path) -> None:
    """Which ends with the last of them."""
    program = [sys.executable, "-c", TWO, str(tmp_path)]
    subprocess.run(program, cwd=Path(__file__).parents[2], check=True, timeout=100)


OWN = """
import os, signal, sys
before = signal.getsignal(signal.SIGTERM)
{first}
from everlearn.population.executors.ray_cluster import RayCluster
from tests.population.listening import listening
cluster = RayCluster(num_cpus=1)
import ray
@ray.remote
class Nothing:
    def say(self): return 1
assert ray.get(Nothing.remote().say.remote()) == 1
hosts = listening(os.getpid())
assert len(hosts) >= 4 and all(host.is_loopback for host in hosts), hosts
assert os.environ["RAY_AUTH_MODE"] == "token"
assert signal.getsignal(signal.SIGTERM) is before
cluster.close()
assert not ray.is_initialized()
assert {{name for name in os.environ if name.startswith("RAY_")}} <= {{"RAY_CLIENT_MODE"}}  # set by importing it
again = RayCluster(num_cpus=1)
again.close()
print("over")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what listens is read from /proc")
@pytest.mark.parametrize("first", ["", pytest.param("import ray", marks=pytest.mark.slow)])
def test_a_cluster_of_ones_own_listens_to_this_machine_alone_and_asks_for_a_token(tmp_path: Path, first: str) -> None:
    """It leaves no token in a file, no output of its own, and signals as they were."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    variables |= {"HOME": str(tmp_path)}
    program = [sys.executable, "-c", OWN.format(first=first)]
    run = subprocess.run(program, env=variables, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "over\n"), run.stderr
    assert [*tmp_path.rglob("auth_token")] == []


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'everlearn[ray]'")):
        require_cluster(None)


PRINTS = """
import os, sys, stat
from contextlib import closing
from functools import partial
from pathlib import Path
from everlearn.population.executors.ray import Ray
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.population.segments import Task
from tests.population.talkative import Talkative
directory = Path(sys.argv[1])
cluster = RayCluster(num_cpus=1, log=directory / "workers.log")
with closing(Ray(Talkative, directory, 1, cluster=cluster)) as executor:
    [*executor.run_segments([Task(0, 0, 0, 1, 0, {"rate": 0.1})], lambda: False)]
    (own,) = Path("/tmp").glob(f"everlearn-ray-{os.getpid()}-*")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
assert not own.exists()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/tmp").is_dir(), reason="that is where its files are")
def test_what_workers_print_is_kept_and_all_else_of_ones_own_cluster_goes(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PRINTS, str(tmp_path)]
    subprocess.run(program, cwd=Path(__file__).parents[2], check=True, timeout=100)
    log = (tmp_path / "workers.log").read_text()
    assert log.splitlines()[1:] == ["a word of member 0"]
    assert log.startswith("worker-")
