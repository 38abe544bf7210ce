"""A Ray cluster of several machines on this one, as Ray's own tests have it; nobody else can reach it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from everlearn.population.executors.ray_cluster import settings_of_own


@contextmanager
def machines(*cores: int) -> Iterator[Any]:
    """Machines with so many cores each; inside, this process is connected to the first of them."""
    with settings_of_own():
        import ray
        from ray._private.authentication.authentication_token_setup import enable_token_auth_by_default
        from ray.cluster_utils import Cluster

        enable_token_auth_by_default()
        cluster = Cluster()
        try:
            for number in cores:
                cluster.add_node(num_cpus=number, include_dashboard=False)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            assert os.environ["RAY_AUTH_MODE"] == "token"
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def machines_used() -> set[str]:
    """Those that have had an actor."""
    import ray

    return {actor["Address"]["NodeID"] for actor in ray._private.state.actors().values()}
