"""The section of a configuration that says where on a Ray cluster a population is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from everlearn.environments.spec import Count, NotNegative, Section


class RayConfig(Section):
    """A Ray cluster, and what a worker there needs; the names are Ray's.

    Attributes:
        address: ``HOST:PORT`` of a cluster, or ``auto`` for one that runs on this machine. None: that of the
            environment variable ``RAY_ADDRESS``; where there is none, or with ``local``, a new one on this machine,
            which others cannot reach and which ends with the population.
        num_cpus: Cores that are set aside for a worker, which trains one member at a time.
        num_gpus: GPUs for a worker, or a share of one.
        memory: Bytes that are set aside for a worker.
        resources: Others that a worker needs, by the names that machines declare.
        scheduling_strategy: ``SPREAD`` over all machines, or Ray's ``DEFAULT``, which fills one before the next.
        storage: ``shared``: every machine sees the run's directory under the same path; ``object_store``: members'
            files travel through Ray; ``auto``: to workers that do not see the directory.
        runtime_env: What Ray provides workers with, such as ``working_dir``, ``pip`` and ``env_vars``.
        placement_timeout: Seconds after which the population stops where no machine has had room for any worker.
    """

    address: str | None = None
    num_cpus: NotNegative = 1.0
    num_gpus: NotNegative = 0.0
    memory: Count | None = None
    resources: dict[str, NotNegative] | None = None
    scheduling_strategy: Literal["SPREAD", "DEFAULT"] = "SPREAD"
    storage: Literal["auto", "shared", "object_store"] = "auto"
    runtime_env: dict[str, Any] | None = None
    placement_timeout: Annotated[float, Field(gt=0)] = 600.0
