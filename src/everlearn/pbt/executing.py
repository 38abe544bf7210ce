"""The executors that a configuration can name. To add one, put what makes it into ``EXECUTORS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise

from everlearn.config import PopulationConfig, RayConfig, RunConfig
from everlearn.core.errors import ConfigError
from everlearn.pbt.rules import INLINE, PROCESSES, RAY, VECTORISED, cores, worker_count
from everlearn.pbt.runner import agent_runner
from everlearn.population.executors import Beat, Executor, Inline, MakeRunner, Processes
from everlearn.population.executors.ray import Placement, Ray
from everlearn.population.executors.ray_cluster import RayCluster
from everlearn.population.members import MemberId
from everlearn.runs.directory import RunDirectory


@dataclass(frozen=True)
class Order:
    """What an executor is for.

    Attributes:
        config: Every setting.
        directory: The population's.
        members: Ids, in their order.
        beat: Told how far each segment is.
    """

    config: RunConfig
    directory: RunDirectory
    members: Sequence[MemberId]
    beat: Beat

    @property
    def population(self) -> PopulationConfig:
        """The section."""
        assert self.config.population is not None
        return self.config.population

    def make_runner(self, together: bool = False) -> MakeRunner:
        """What makes a runner, here or in another process."""
        return partial(agent_runner, self.config.model_dump(exclude_none=True), together=together)


def _inline(order: Order) -> Executor:
    return Inline(order.make_runner(), order.directory.members, order.beat)


def _processes(order: Order) -> Executor:
    return _pool(order, order.make_runner(), ())


def _vectorised(order: Order) -> Executor:
    """As many shares as processes, the first members in the first."""
    count, members = worker_count(order.population), order.members
    ends = [round(number * len(members) / count) for number in range(count + 1)]
    shares = [members[start:end] for start, end in pairwise(ends)]
    return _pool(order, order.make_runner(together=True), shares)


def _pool(order: Order, make_runner: MakeRunner, shares: Sequence[Sequence[MemberId]]) -> Executor:
    section = order.population
    return Processes(
        make_runner,
        order.directory.members,
        worker_count(section),
        shares,
        timeout=section.heartbeat_timeout,
        restarts=section.restarts,
        log=order.directory.workers_log,
        beat=order.beat,
    )


def _ray(order: Order) -> Executor:
    section, ray = order.population, order.population.ray or RayConfig()
    placement = ray.model_dump(include={each.name for each in fields(Placement)}, exclude_none=True)
    return Ray(
        order.make_runner(),
        order.directory.members,
        worker_count(section),
        cluster=RayCluster(ray.address, ray.runtime_env, cores(), order.directory.workers_log),
        placement=Placement(**placement),
        storage=ray.storage,
        timeout=section.heartbeat_timeout,
        restarts=section.restarts,
        patience=ray.placement_timeout,
        beat=order.beat,
    )


EXECUTORS: Mapping[str, Callable[[Order], Executor]] = {
    VECTORISED: _vectorised,
    PROCESSES: _processes,
    INLINE: _inline,
    RAY: _ray,
}


def executor_of(order: Order) -> Executor:
    """The one that the configuration names, which may have been changed since it was checked.

    Raises:
        ConfigError: If there is none.
    """
    named = order.population.executor
    if named not in EXECUTORS:
        raise ConfigError(f"population.executor: '{named}' is unknown. There are {', '.join(EXECUTORS)}.")
    return EXECUTORS[named](order)
