"""Where the time of an iteration goes: methods of an agent, each replaced for a while by one that takes the time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

COLLECT, UPDATE, SIMULATION, INFERENCE = "collect", "update", "simulation", "inference"
REST, OTHER = "rest of the collection", "other"
PARTS = (SIMULATION, INFERENCE, REST, UPDATE, OTHER)
PHASES = {COLLECT: ("collect_rollouts",), UPDATE: ("train",)}
METHODS = {
    **PHASES,
    SIMULATION: ("env.step", "env.step_async", "env.step_wait"),
    INFERENCE: (
        "actor.__call__",
        "policy.forward",
        "policy.predict_values",
        "policy.prepare_obs",
        "policy.reset_noise",
        "policy.predict_all",
    ),
}
"""The methods that make up each part, of any library; those that a library does not have are passed over."""


class Stopwatch:
    """Seconds by the parts that were under way: the outer one first, none of them twice."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, ...], float] = {}
        self._under_way: tuple[str, ...] = ()

    def timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, whose time counts for the part; calls from within the same part count once."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if part in self._under_way:
                return method(*args, **kwargs)
            outer, self._under_way = self._under_way, (*self._under_way, part)
            start = time.perf_counter()
            try:
                return finished(method(*args, **kwargs))
            finally:
                elapsed = time.perf_counter() - start
                self.seconds[self._under_way] = self.seconds.get(self._under_way, 0.0) + elapsed
                self._under_way = outer

        return call

    def of(self, *parts: str) -> float:
        """Seconds in the last part, where it was called from the ones before it."""
        return self.seconds.get(parts, 0.0)

    def parts(self, total: float) -> dict[str, float]:
        """Seconds of each of ``PARTS``, which together are the total."""
        simulation, inference = self.of(COLLECT, SIMULATION), self.of(COLLECT, INFERENCE)
        collect, update = self.of(COLLECT), self.of(UPDATE)
        sizes = (simulation, inference, collect - simulation - inference, update, total - collect - update)
        return dict(zip(PARTS, sizes, strict=True))


def finished(result: Any) -> Any:
    """The result, once it is there: JAX hands it out before it has been computed."""
    first = result[0] if isinstance(result, tuple) and result else result
    if hasattr(first, "block_until_ready"):
        import jax

        jax.block_until_ready(result)
    return result


@contextmanager
def stopwatch_on(model: Any, methods: dict[str, tuple[str, ...]]) -> Iterator[Stopwatch]:
    """Take the time of methods of an agent's classes, ``part: (names, ...)``, until the block ends.

    They are replaced in the classes, not in the objects: everlearn does by itself what an ordinary policy would do, and
    leaves it to a policy that has been changed.
    """
    stopwatch, owners = Stopwatch(), _classes(model)
    with ExitStack() as stack:
        for part, names in methods.items():
            for name in names:
                owner, _, method = name.rpartition(".")
                if owner in owners and hasattr(owners[owner], method):
                    timed = stopwatch.timed(part, getattr(owners[owner], method))
                    stack.enter_context(_replaced(owners[owner], method, timed))
        yield stopwatch


def _classes(model: Any) -> dict[str, type]:
    """The classes of an agent and its parts by name, with what acts for everlearn's policies where it is there."""
    classes = {"": type(model), "env": type(model.env), "policy": type(model.policy)}
    acting = sys.modules.get("everlearn.ppo.acting")
    return classes if acting is None else classes | {"actor": acting.Actor}


@contextmanager
def _replaced(owner: type, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Another method in the place of a class's own or inherited one, until the block ends."""
    own = vars(owner).get(name)
    setattr(owner, name, method)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
