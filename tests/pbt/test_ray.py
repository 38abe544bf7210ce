"""``everlearn pbt --executor ray``: agents on a cluster, and what is refused before it begins."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.core.errors import ConfigError, MissingExtraError
from everlearn.pbt import PopulationRun
from everlearn.population.executors import ray_cluster
from tests.pbt.small import SETTINGS, history_of, small_population
from tests.population.machines import machines, machines_used

pytest.importorskip("ray")
EIGHT = {"population_size": 8, "total_timesteps": 4 * 64}


def command(out: Path, **variables: str) -> None:
    """Train as a user does."""
    settings = [f"{key}={value}" for key, value in (SETTINGS | EIGHT).items() if key != "population.executor"]
    options = [part for each in settings for part in ("--set", each)]
    program = [sys.executable, "-m", "everlearn", "pbt", "--executor", "ray", "--out", str(out), *options]
    run = subprocess.run(program, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_eight_members_are_trained_on_two_machines_as_in_one_process(tmp_path: Path) -> None:
    """To the bit: the same decisions, scores and policies."""
    with machines(1, 1) as cluster:
        command(tmp_path / "ray", RAY_ADDRESS=cluster.address)
        assert len(machines_used()) == 2
    run = PopulationRun(tmp_path / "ray")
    assert run.config.population is not None
    assert (run.config.population.executor, run.config.population.workers) == ("ray", 8)
    assert history_of(run) == history_of(small_population(tmp_path / "inline", **EIGHT))
    assert run.load().num_timesteps == 256


@pytest.mark.parametrize("executor", ["auto", "inline", "processes"])
def test_what_ray_alone_does_is_refused_with_other_executors(tmp_path: Path, executor: str) -> None:
    settings = {"population.executor": executor, "population.ray.num_cpus": 2.0}
    with pytest.raises(ConfigError, match=f"it does nothing with the executor {executor}"):
        small_population(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_workers_without_a_gpu_are_not_told_to_use_one(tmp_path: Path) -> None:
    settings = {"population.executor": "ray", "runtime.device": "cuda"}
    with pytest.raises(ConfigError, match=re.escape("Set population.ray.num_gpus, such as 1, or 0.25")):
        small_population(tmp_path / "run", **settings)


def test_without_ray_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'everlearn[ray]'")):
        small_population(tmp_path / "run", **{"population.executor": "ray"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_PATIENCE", 4.0)
    settings = {"population.executor": "ray", "population.ray.address": address}
    with pytest.raises(ConfigError, match=r"The Ray cluster .* cannot be used"):
        small_population(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
