"""All that an update reads and changes as a list of tensors, and the update as a function of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from everlearn.core.flat import FlatLayout
from everlearn.core.metrics import Row
from everlearn.gradients import VarianceGradientScaler
from everlearn.gradients.functional import FunctionalScaler
from everlearn.optim.functional import functional
from everlearn.ppo.compilable import NotCompiled, described, differs, is_far, require_no_hooks, require_plain
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.loss import Coefficients, Minibatch, Stats
from everlearn.ppo.rollout import Rollout
from everlearn.ppo.update import EagerRunner, FunctionalStep, Outcome

Function = Callable[..., list[Tensor]]
_CHANGING = ("params", "gradient", "optimizer_state", "scaler_state", "buffers")


@dataclass(frozen=True)
class Example:
    """An update that the eager runner has done, and that was undone: where a graph has to lead, too.

    Args:
        before: What an update may change, by path.
        after: The same after the update.
        stats: What is logged of it.
    """

    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    stats: Stats

    def require(self, found: Mapping[str, Tensor], names: Sequence[str], values: Tensor) -> None:
        """Refuse another update than the eager one.

        Args:
            found: Where it has led from ``before``.
            names: Of what is logged.
            values: The same, (len(names),).

        Raises:
            NotCompiled: Naming what differs.
        """
        different = [path for path in self.after if differs(found[path], self.after[path], self.before[path])]
        different += [name for name, value in zip(names, values, strict=True) if is_far(value, self.stats[name])]
        if different:
            raise NotCompiled(f"the graph's update is not the eager one: {', '.join(different[:5])} differ.")


class UpdateTensors:
    """All tensors of an update of one policy with one rollout, and the update as a function of them.

    While it is in use the parameters' gradients are views of one vector, which the function writes.

    Args:
        eager: Does the same eagerly.
        rollout: The samples.
        coefficients: The numbers of the loss.

    Attributes:
        live: The tensors, as they are: weights, states, samples, numbers.
        changing: Which of them the function changes: path to position.
        optimizer: The optimizer's part in it.
        device: Where the samples are.

    Raises:
        NotCompiled: If policy, optimizer or scaler have no such form.
        ArgumentError: If the optimizer has no functional step.
    """

    def __init__(self, eager: EagerRunner, rollout: Rollout, coefficients: Coefficients) -> None:
        self._eager, self._rollout, self._coefficients = eager, rollout, coefficients
        self._policy = eager.evaluator.policy
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
        numbers, self._numbers_spec = pytree.tree_flatten(
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
            "numbers": torch.stack(numbers).to(gradient.device),
        }
        self.live, self._spec = pytree.tree_flatten(tree)
        paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]
        changing = tuple(f"['{name}']" for name in _CHANGING)
        self.changing = {path: position for position, path in enumerate(paths) if path.startswith(changing)}
        self.device = rollout.raw_returns.device

    @torch.no_grad()
    def hold_gradients(self) -> None:
        """Have parameters' gradients be the tensors that the function writes, whatever eager code has made of them."""
        for name, parameter in self.optimizer.params.items():
            if parameter.grad is not None and parameter.grad is not self._gradients[name]:
                self._gradients[name].copy_(parameter.grad)
            parameter.grad = self._gradients[name]

    def structure(self) -> Hashable:
        """What a graph depends on, besides the size of a minibatch; equal for policies that are built alike."""
        forms = tuple((tuple(each.shape), each.stride(), each.dtype, each.device) for each in self.live)
        scaler = None if self._scaler is None else self._scaler.structure()
        switches = (self._coefficients.normalize_advantage, described(self._eager.evaluator), torch.get_num_threads())
        return (self._spec, self._numbers_spec, forms, self.optimizer.structure(), scaler, switches)

    def modules(self) -> Hashable:
        """The very modules of the policy, whose attributes a trace takes for constants."""
        return tuple(self._policy.named_modules())

    def function(self) -> tuple[Function, list[str]]:
        """The update, to be traced, and where the names of what is logged will be found once it has been called.

        It takes ``live``, rows of the samples, noise and two flags (the first is not read, the second is whether the
        update is active), and returns what is logged in one vector, the flags (whether the update was skipped, whether
        the next one is active) and the scaler's factors.
        """
        names: list[str] = []
        optimizer, some = self._policy.optimizer, self._rollout.samples.rows(slice(1))
        with torch.no_grad():  # a policy keeps its last distribution, which could not be copied with its gradients
            self._eager.evaluator(some.observations, some.actions)
        shadow = deepcopy(self._policy, {id(optimizer): None})  # a trace leaves dead tensors in what it goes through
        step = FunctionalStep(Evaluator(shadow), self.optimizer, self._scaler, self._coefficients.normalize_advantage)
        spec, numbers_spec = self._spec, self._numbers_spec

        def update(*tensors: Tensor) -> list[Tensor]:
            *live, indices, noise, flags = tensors
            tree = pytree.tree_unflatten(live, spec)
            tree |= pytree.tree_unflatten(tree.pop("numbers").unbind(), numbers_spec)
            minibatch = Minibatch(**tree.pop("samples")).rows(indices)
            gradient = tree.pop("gradient")
            taken = step(**tree, minibatch=minibatch, noise=noise, active=flags[1])
            gradient.copy_(torch.where(taken.active, torch.cat([*map(torch.flatten, taken.gradients)]), gradient))
            stats = {name: value for name, value in taken.stats.items() if name != "skipped"}
            names[:] = stats
            row = torch.stack([each.float() for each in stats.values()])
            factors = torch.stack([*taken.factors.values()]) if taken.factors else row.new_empty(0)
            return [row, torch.stack([taken.stats["skipped"] > 0, taken.active]), factors]

        return update, names

    def example(self, indices: Tensor) -> Example:
        """What the eager runner makes of an update with these rows; it is undone.

        Raises:
            NotCompiled: If it moves nothing, so that there is nothing to compare.
        """
        before = self.snapshot()
        try:
            with self.optimizer.kept_noise():
                stats, outcome = self._eager.update(self._rollout.samples.rows(indices), self._coefficients)
            self.hold_gradients()
            after = self.snapshot()
        finally:
            self.restore(before)
        if outcome != "moved":
            raise NotCompiled(f"the first update to compare it by was {outcome}.")
        return Example(before, after, stats)

    def eagerly(self, batches: Iterable[Tensor]) -> Generator[tuple[Row, Outcome]]:
        """Updates by the eager runner."""
        for update in self._eager.updates(self._rollout.samples, batches, self._coefficients):
            self.hold_gradients()
            yield update

    def remember_step(self, factors: Tensor) -> None:
        """Tell the optimizer of the last update.

        Args:
            factors: Of the scaler, (n,), or none.
        """
        names = self._scaler.names if self._scaler is not None and len(factors) else []
        self.optimizer.remember_step(dict(zip(names, factors.unbind(), strict=True)))

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all that an update may change, by path."""
        return {path: self.live[position].clone() for path, position in self.changing.items()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Put everything back."""
        for path, position in self.changing.items():
            self.live[position].copy_(snapshot[path])


def outcome_of(flags: Sequence[bool]) -> Outcome:
    """What the flags of an update say: whether it was skipped, whether the next is active."""
    skipped, active = flags
    return "skipped" if skipped else "moved" if active else "stopped"


def _tensors_of(coefficients: Coefficients) -> dict[str, Tensor]:
    """The numbers that are in use, 0-d."""
    numbers = {name: value for name, value in vars(coefficients).items() if value is not None}
    numbers.pop("normalize_advantage")
    numbers.setdefault("target_kl", float("inf"))
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in numbers.items()}
