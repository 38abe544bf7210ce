"""The update step as one compiled graph: what the eager runner does, in a fraction of the time.

The graph is a function of tensors: weights, state and samples come in as they are, so that it is made once for a
structure (shapes, groups, heads, what is switched on) and serves whatever values these tensors take. Before a graph is
trusted, an update is done by it and by the eager runner, and both must lead to the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from everlearn.core.flat import FlatLayout
from everlearn.core.graphs import compiled
from everlearn.core.metrics import Row
from everlearn.gradients import VarianceGradientScaler
from everlearn.gradients.functional import FunctionalScaler
from everlearn.optim.functional import functional
from everlearn.ppo.compilable import NotCompiled, differs, is_far, require_no_hooks, require_plain
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.loss import Coefficients, Minibatch
from everlearn.ppo.rollout import Rollout
from everlearn.ppo.update import EagerRunner, FunctionalStep, Outcome

_CHANGING = ("params", "gradient", "optimizer_state", "scaler_state", "buffers")


@dataclass(frozen=True)
class Graph:
    """A compiled update.

    Args:
        call: Takes the tensors of ``_Tensors.live``, indices, noise and flags; returns what is logged in one vector,
            the flags (whether the update was skipped, whether the next is active) and the scaler's factors.
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
        self._eager, self._coefficients, self._rollout = eager, coefficients, rollout
        self._batch_size = min(batch_size, len(rollout))
        self._tensors = _Tensors(eager, rollout, coefficients)
        graphs.belong_to(eager.evaluator.policy)
        structure = (self._tensors.structure(), self._batch_size)
        self.is_new = structure not in graphs.made
        if self.is_new:
            graphs.made[structure] = self._tensors.graph(self._some_rows())
        self._graph = graphs.made[structure]
        if structure not in graphs.trusted:
            self._require_equal(self._graph)
            graphs.trusted.add(structure)

    def updates(self, batches: Iterable[Tensor]) -> Generator[tuple[Row, Outcome]]:
        """An update with each of some rows of the rollout: what is logged of it, and whether parameters moved.

        On an accelerator nothing is read before all are done.
        """
        done = self._done(batches)
        try:
            for row, outcome in done if self._tensors.device.type == "cpu" else list(done):
                yield row, outcome if isinstance(outcome, str) else _outcome(outcome)
        finally:  # also where whoever takes the updates has had enough
            self._tensors.remember_step()

    def _done(self, batches: Iterable[Tensor]) -> Iterator[tuple[Row, Outcome | Tensor]]:
        """An update with each minibatch; of a compiled one the flags, which are not read yet."""
        for indices in batches:
            if len(indices) == self._batch_size:
                values, flags = self._tensors.update(self._graph, indices)
                yield Row(self._graph.names, values), flags
            elif self._tensors.is_active():
                yield from self._eager.updates(self._rollout.samples, [indices], self._coefficients)
                self._tensors.hold_gradients()

    def _some_rows(self) -> Tensor:
        return torch.arange(self._batch_size, device=self._tensors.device)

    def _require_equal(self, graph: Graph) -> None:
        """Refuse a graph whose update is not the eager one; both are undone."""
        tensors, indices = self._tensors, self._some_rows()
        before = tensors.snapshot()
        try:
            with tensors.optimizer.kept_noise():
                stats, outcome = self._eager.update(self._rollout.samples.rows(indices), self._coefficients)
            tensors.hold_gradients()
            expected = tensors.snapshot()
            tensors.restore(before)
            with tensors.optimizer.kept_noise():
                values, _ = tensors.update(graph, indices)
            found = tensors.snapshot()
        finally:
            tensors.restore(before)
        if outcome != "moved":
            raise NotCompiled(f"the first update to compare it by was {outcome}.")
        different = [name for name in expected if differs(found[name], expected[name], before[name])]
        different += [name for name, value in zip(graph.names, values, strict=True) if is_far(value, stats[name])]
        if different:
            raise NotCompiled(f"the graph's update is not the eager one: {', '.join(different[:5])} differ.")


class _Tensors:
    """All tensors of an update of one policy with one rollout, and the update as a function of them."""

    def __init__(self, eager: EagerRunner, rollout: Rollout, coefficients: Coefficients) -> None:
        self._policy, self._coefficients = eager.evaluator.policy, coefficients
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._policy.named_parameters()}
        require_plain(eager.optimizer, names)
        if type(eager.scaler) not in (VarianceGradientScaler, type(None)):
            raise NotCompiled(f"{type(eager.scaler).__name__} has no functional step.")
        require_no_hooks(eager.optimizer, self._policy)
        self.optimizer = functional(eager.optimizer, names)
        scaler = eager.scaler if eager.scaler is not None and eager.scaler.enabled else None
        self._scaler = None if scaler is None else FunctionalScaler(scaler)
        layout = FlatLayout([*self.optimizer.params.values()])
        gradient = next(iter(self.optimizer.params.values())).new_zeros(layout.numel)
        self._gradients = dict(zip(self.optimizer.params, layout.views(gradient), strict=True))
        self.hold_gradients()
        self._numbers, self._numbers_spec = pytree.tree_flatten(
            {
                "coefficients": _tensors_of(coefficients),
                "optimizer_hyper": self.optimizer.hyper(),
                "scaler_hyper": {} if self._scaler is None else self._scaler.hyper(),
            }
        )
        tree = {
            "params": {name: parameter.detach() for name, parameter in self.optimizer.params.items()},
            "gradient": gradient,
            "buffers": dict(self._policy.named_buffers()),
            "optimizer_state": self.optimizer.state(),
            "scaler_state": {} if self._scaler is None else self._scaler.state(),
            "samples": {name: each for name, each in rollout.samples._asdict().items() if each is not None},
            "numbers": torch.stack(self._numbers).to(gradient.device),
        }
        self.live, self._spec = pytree.tree_flatten(tree)
        paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]
        self._changing = {
            path: each
            for path, each in zip(paths, self.live, strict=True)
            if path.startswith(tuple(f"['{name}']" for name in _CHANGING))
        }
        self.device = rollout.raw_returns.device
        self._flags = torch.tensor([False, True], device=self.device)
        self._factors = torch.empty(0)

    @torch.no_grad()
    def hold_gradients(self) -> None:
        """Have the parameters' gradients be the tensors that the graph writes, whatever eager code has made of them."""
        for name, parameter in self.optimizer.params.items():
            if parameter.grad is not None and parameter.grad is not self._gradients[name]:
                self._gradients[name].copy_(parameter.grad)
            parameter.grad = self._gradients[name]

    def is_active(self) -> bool:
        """Whether updates of this rollout go on: the KL has not grown too large."""
        return bool(self._flags[1])

    def structure(self) -> Any:
        """What a graph depends on, besides the size of a minibatch."""
        forms = tuple((tuple(each.shape), each.stride(), each.dtype, each.device) for each in self.live)
        scaler = None if self._scaler is None else self._scaler.structure()
        modules = tuple((name, module, module.training) for name, module in self._policy.named_modules())
        switches = (self._coefficients.normalize_advantage, modules, torch.get_num_threads())
        return (self._spec, forms, self.optimizer.structure(), scaler, switches)

    def graph(self, indices: Tensor) -> Graph:
        """The compiled update."""
        names: list[str] = []
        optimizer = self._policy.optimizer
        shadow = deepcopy(self._policy, {id(optimizer): None})  # a trace leaves dead tensors in what it goes through
        step = FunctionalStep(Evaluator(shadow), self.optimizer, self._scaler, self._coefficients.normalize_advantage)

        def update(*tensors: Tensor) -> list[Tensor]:
            *live, indices, noise, flags = tensors
            tree = pytree.tree_unflatten(live, self._spec)
            tree |= pytree.tree_unflatten(tree.pop("numbers").unbind(), self._numbers_spec)
            minibatch = Minibatch(**tree.pop("samples")).rows(indices)
            gradient = tree.pop("gradient")
            taken = step(**tree, minibatch=minibatch, noise=noise, active=flags[1])
            gradient.copy_(torch.where(taken.active, torch.cat([*map(torch.flatten, taken.gradients)]), gradient))
            stats = {name: value for name, value in taken.stats.items() if name != "skipped"}
            names[:] = stats
            row = torch.stack([each.float() for each in stats.values()])
            factors = torch.stack([*taken.factors.values()]) if taken.factors else row.new_empty(0)
            return [row, torch.stack([taken.stats["skipped"] > 0, taken.active]), factors]

        with self.optimizer.kept_noise():
            example = [*self.live, indices, self.optimizer.draw_noise(), self._flags]
        return Graph(compiled(update, example), tuple(names))

    def update(self, graph: Graph, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Do one update; returns what is logged of it, and the flags."""
        values, self._flags, self._factors = graph.call(*self.live, indices, self.optimizer.draw_noise(), self._flags)
        return values, self._flags

    def remember_step(self) -> None:
        """Tell the optimizer of the last update, and be ready for the next rollout's."""
        names = self._scaler.names if self._scaler is not None and len(self._factors) else []
        self.optimizer.remember_step(dict(zip(names, self._factors.unbind(), strict=True)))

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that an update may change, by path."""
        return {path: tensor.clone() for path, tensor in self._changing.items()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Put everything back."""
        for path, tensor in self._changing.items():
            tensor.copy_(snapshot[path])
        self._flags = torch.tensor([False, True], device=self.device)


def _outcome(flags: Tensor) -> Outcome:
    skipped, active = flags.tolist()
    return "skipped" if skipped else "moved" if active else "stopped"


def _tensors_of(coefficients: Coefficients) -> dict[str, Tensor]:
    """The numbers that are in use, 0-d."""
    numbers = {name: value for name, value in vars(coefficients).items() if value is not None}
    numbers.pop("normalize_advantage")
    numbers.setdefault("target_kl", float("inf"))
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in numbers.items()}
