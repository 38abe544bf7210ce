"""The updates of several members side by side: one compiled graph, in which every tensor has a row for each of them.

The graph is the update of one member, mapped over the rows by ``torch.vmap``. Rows are copies: they are filled from the
members' own tensors before an epoch, and what has changed goes back after it. A row whose member has nothing to do is
inactive, and not a bit of it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from everlearn.core.graphs import compiled
from everlearn.core.metrics import Row
from everlearn.ppo.compilable import NotCompiled
from everlearn.ppo.update import Outcome
from everlearn.ppo.update_tensors import UpdateTensors, outcome_of


@dataclass
class Epoch:
    """What a member wants to be done with a pass over its rollout, and what became of it.

    Args:
        tensors: Its updates.
        batches: The rows of each minibatch, all of one size.
        in_a_row: How many updates before have been skipped one after the other.
        patience: So many are a divergence, after which there are no more updates.

    Attributes:
        done: What is logged of each update, and whether parameters moved.
        factors: The scaler's at the last update, (n,).
        goes_on: Whether another update is to come.
    """

    tensors: UpdateTensors
    batches: list[Tensor]
    in_a_row: int
    patience: int
    done: list[tuple[Row, Outcome]] = field(default_factory=list)
    factors: Tensor = field(default_factory=lambda: torch.empty(0))
    goes_on: bool = True

    @property
    def has_stopped(self) -> bool:
        """Whether the KL has grown too large."""
        return bool(self.done) and self.done[-1][1] == "stopped"

    def take(self, row: Row, outcome: Outcome, factors: Tensor) -> None:
        """Take note of an update."""
        self.done.append((row, outcome))
        self.factors = factors
        self.in_a_row = self.in_a_row + 1 if outcome == "skipped" else 0
        is_last = len(self.done) == len(self.batches)
        self.goes_on = not (is_last or outcome == "stopped" or self.in_a_row >= self.patience)


class Stack:
    """Rows for members whose updates are built alike, and the graph that does them together.

    Args:
        example: The updates of one of them.
        size: Number of rows.
        batch_size: Samples of a minibatch.

    Attributes:
        reads_at_once: Whether what came of an update is read before the next one, so that nothing is drawn for a member
            that has had enough. On an accelerator nothing is read before all are done.

    Raises:
        Exception: Whatever tracing and compiling raise, of any kind.
    """

    def __init__(self, example: UpdateTensors, size: int, batch_size: int) -> None:
        self._size, self._batch_size, self._device = size, batch_size, example.device
        self.reads_at_once = example.device.type == "cpu"
        with example.optimizer.kept_noise():
            noise = example.optimizer.draw_noise()
        self._live, self._noise = [self._rows_of(each) for each in example.live], self._rows_of(noise)
        self._rows = [[each[member] for each in self._live] for member in range(size)]
        self._noise_rows = self._noise.unbind()
        self._trusted_by: list[object] = [None] * size
        function, names = example.function()
        self._call = compiled(
            torch.vmap(function), [*self._live, self._some_rows(), self._noise, self._flags_of(range(size))]
        )
        self._names = tuple(names)

    def unknown(self, epochs: Mapping[int, Epoch]) -> dict[int, Epoch]:
        """The epochs of members that have not been compared, or have another policy since."""
        return {at: epoch for at, epoch in epochs.items() if self._trusted_by[at] != epoch.tensors.modules()}

    def differences(self, epochs: Mapping[int, Epoch]) -> dict[int, NotCompiled]:
        """Members with which the graph does not do what the eager runner does, and why; all is undone.

        Args:
            epochs: By number of the member.
        """
        self._load(epochs)
        for at, epoch in epochs.items():
            with epoch.tensors.optimizer.kept_noise():
                self._draw_noise(at, epoch)
        rows = self._some_rows()
        values, _, _ = self._call(*self._live, rows, self._noise, self._flags_of(epochs))
        problems: dict[int, NotCompiled] = {}
        for at, epoch in epochs.items():
            found = {path: self._rows[at][position] for path, position in epoch.tensors.changing.items()}
            try:
                epoch.tensors.example(rows[at]).require(found, self._names, values[at])
            except NotCompiled as error:
                problems[at] = error
            else:
                self._trusted_by[at] = epoch.tensors.modules()
        return problems

    @torch.no_grad()
    def update(self, epochs: Mapping[int, Epoch]) -> None:
        """Do an epoch of each of some members, minibatch by minibatch.

        Args:
            epochs: By number of the member.
        """
        self._load(epochs)
        rows, wanted = self._minibatches(epochs)
        flags, unread = self._flags_of(epochs), []
        going_on = dict(epochs)
        for step, indices in enumerate(rows):
            for at, epoch in going_on.items():
                if step < len(epoch.batches):
                    self._draw_noise(at, epoch)
            values, flags, factors = self._call(*self._live, indices, self._noise, flags & wanted[step])
            unread.append((values, flags, factors))
            if self.reads_at_once or step == len(rows) - 1:
                for at in self._handed_out(going_on, unread):
                    del going_on[at]
                    wanted[:, at] = False
                unread.clear()
        self._unload(epochs)

    def _rows_of(self, tensor: Tensor) -> Tensor:
        """A row like the tensor for each member."""
        return tensor.to(self._device).expand(self._size, *tensor.shape).clone(memory_format=torch.contiguous_format)

    def _some_rows(self) -> Tensor:
        return self._rows_of(torch.arange(self._batch_size))

    def _flags_of(self, active: Iterable[int]) -> Tensor:
        """The flags before an update in which some members take part."""
        active = set(active)
        return torch.tensor([[False, member in active] for member in range(self._size)], device=self._device)

    def _minibatches(self, epochs: Mapping[int, Epoch]) -> tuple[Tensor, Tensor]:
        """The rows of each update, (updates, members, batch_size), and which are wanted, (updates, members, 1)."""
        longest = max(len(epoch.batches) for epoch in epochs.values())
        rows = torch.zeros(longest, self._size, self._batch_size, dtype=torch.long, device=self._device)
        wanted = torch.zeros(longest, self._size, 1, dtype=torch.bool, device=self._device)
        for at, epoch in epochs.items():
            rows[: len(epoch.batches), at] = torch.stack(epoch.batches)
            wanted[: len(epoch.batches), at] = True
        return rows, wanted

    def _draw_noise(self, at: int, epoch: Epoch) -> None:
        """The next numbers of the member's own stream."""
        if self._noise.numel():
            self._noise_rows[at].copy_(epoch.tensors.optimizer.draw_noise())

    def _handed_out(self, epochs: Mapping[int, Epoch], done: Iterable[tuple[Tensor, Tensor, Tensor]]) -> list[int]:
        """Tell each member of the updates in which it took part; returns those for which there are no more."""
        for values, flags, factors in done:
            rows, read, scales = values.unbind(), flags.tolist(), factors.unbind()
            for at, epoch in epochs.items():
                if epoch.goes_on:
                    epoch.take(Row(self._names, rows[at]), outcome_of(read[at]), scales[at])
        return [at for at, epoch in epochs.items() if not epoch.goes_on]

    @torch.no_grad()
    def _load(self, epochs: Mapping[int, Epoch]) -> None:
        """Fill the members' rows."""
        for at, epoch in epochs.items():
            torch._foreach_copy_(self._rows[at], epoch.tensors.live)

    def _unload(self, epochs: Mapping[int, Epoch]) -> None:
        """Take what has changed back to the members."""
        for at, epoch in epochs.items():
            positions = epoch.tensors.changing.values()
            torch._foreach_copy_(
                [epoch.tensors.live[position] for position in positions], [self._rows[at][each] for each in positions]
            )
