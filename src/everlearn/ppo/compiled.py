"""The update step as one compiled graph: what the eager runner does, in a fraction of the time.

The graph is a function of tensors: weights, state and samples come in as they are, so that it is made once for a
structure (shapes, groups, heads, what is switched on) and serves whatever values these tensors take. Before a graph is
trusted, an update is done by it and by the eager runner, and both must lead to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from everlearn.core.graphs import compiled
from everlearn.core.metrics import Row
from everlearn.ppo.loss import Coefficients
from everlearn.ppo.rollout import Rollout
from everlearn.ppo.update import EagerRunner, Outcome
from everlearn.ppo.update_tensors import UpdateTensors, outcome_of


@dataclass(frozen=True)
class Graph:
    """A compiled update.

    Args:
        call: As from ``UpdateTensors.function``.
        names: Of what is logged.
    """

    call: Callable[..., list[Tensor]]
    names: tuple[str, ...]


@dataclass
class Graphs:
    """The trusted graphs of a policy, by structure; no part of a model's state.

    Attributes:
        policy: The policy for which they were made.
        made: Structure to graph.
        trusted: The structures whose graph has done what the eager runner does.
    """

    policy: object = None
    made: dict[Any, Graph] = field(default_factory=dict)
    trusted: set[Any] = field(default_factory=set)

    def belong_to(self, policy: object) -> None:
        """Forget the graphs of another policy."""
        if policy is not self.policy:
            self.policy, self.made, self.trusted = policy, {}, set()


class CompiledRunner:
    """Updates from a rollout by one compiled graph.

    Args:
        eager: Does the same eagerly, also minibatches of another size.
        rollout: The samples.
        batch_size: Samples of a minibatch.
        coefficients: The numbers of the loss.
        graphs: Where graphs are found and kept.

    Attributes:
        is_new: Whether a graph had to be made.

    Raises:
        NotCompiled: If policy, optimizer or scaler have no such form, or the graph does not do what the eager update
            does. Nothing has changed then.
        Exception: Whatever tracing and compiling raise, of any kind; nothing has changed either.
    """

    def __init__(
        self, eager: EagerRunner, rollout: Rollout, batch_size: int, coefficients: Coefficients, graphs: Graphs
    ) -> None:
        self._batch_size = min(batch_size, len(rollout))
        self._tensors = tensors = UpdateTensors(eager, rollout, coefficients)
        self._flags, self._factors = self._unstopped(), torch.empty(0)
        graphs.belong_to(eager.evaluator.policy)
        structure = (tensors.structure(), tensors.modules(), self._batch_size)
        self.is_new = structure not in graphs.made
        if self.is_new:
            graphs.made[structure] = self._make_graph()
        self._graph = graphs.made[structure]
        if structure not in graphs.trusted:
            self._require_equal()
            graphs.trusted.add(structure)

    def updates(self, batches: Iterable[Tensor]) -> Generator[tuple[Row, Outcome]]:
        """An update with each of some rows of the rollout: what is logged of it, and whether parameters moved.

        On an accelerator nothing is read before all are done.
        """
        done = self._done(batches)
        try:
            for row, outcome in done if self._tensors.device.type == "cpu" else list(done):
                yield row, outcome if isinstance(outcome, str) else outcome_of(outcome.tolist())
        finally:  # also where whoever takes the updates has had enough
            self._tensors.remember_step(self._factors)

    def _done(self, batches: Iterable[Tensor]) -> Iterator[tuple[Row, Outcome | Tensor]]:
        """An update with each minibatch; of a compiled one the flags, which are not read yet."""
        for indices in batches:
            if len(indices) == self._batch_size:
                values = self._update(indices)
                yield Row(self._graph.names, values), self._flags
            elif self._flags[1]:  # the KL has not grown too large
                yield from self._tensors.eagerly([indices])

    def _update(self, indices: Tensor) -> Tensor:
        """Do one update; returns what is logged of it."""
        tensors = self._tensors
        values, self._flags, self._factors = self._graph.call(
            *tensors.live, indices, tensors.optimizer.draw_noise(), self._flags
        )
        return values

    def _unstopped(self) -> Tensor:
        return torch.tensor([False, True], device=self._tensors.device)

    def _some_rows(self) -> Tensor:
        return torch.arange(self._batch_size, device=self._tensors.device)

    def _make_graph(self) -> Graph:
        function, names = self._tensors.function()
        optimizer = self._tensors.optimizer
        with optimizer.kept_noise():
            example = [*self._tensors.live, self._some_rows(), optimizer.draw_noise(), self._flags]
        call = compiled(function, example)
        return Graph(call, tuple(names))

    def _require_equal(self) -> None:
        """Refuse a graph whose update is not the eager one; both are undone."""
        tensors, indices = self._tensors, self._some_rows()
        example = tensors.example(indices)
        try:
            with tensors.optimizer.kept_noise():
                values = self._update(indices)
            example.require(tensors.snapshot(), self._graph.names, values)
        finally:
            tensors.restore(example.before)
            self._flags, self._factors = self._unstopped(), torch.empty(0)
