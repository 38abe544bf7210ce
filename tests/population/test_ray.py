"""The executor ray: the same population as in this process, whatever happens to workers, machines and controllers."""

import pytest

pytest.importorskip("ray")

from everlearn.population.executors import Executor
from everlearn.population.executors.ray import Ray
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.testing.populations import ExecutorConformance


class TestRay(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Ray(make_runner, directory, 2, cluster=RayCluster(num_cpus=2))


class TestObjectStore(ExecutorConformance):
    def make_executor(self, make_runner, directory, members) -> Executor:
        return Ray(make_runner, directory, 2, cluster=RayCluster(num_cpus=2), storage="object_store")
