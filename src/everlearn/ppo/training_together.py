"""Several agents of one architecture that train side by side in one process, their updates done as one.

Each runs its own unmodified code, collecting, checks, control and logs included, in a thread of its own, and strictly
one at a time: a member goes on until it wants an epoch of updates, then the next one does. When all have come so far,
one graph does all epochs together (``stacked.py``), and every member takes what became of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.core.metrics import Row
from everlearn.core.rng import GlobalGenerators, kept_generators, private_seed, seeded_generators
from everlearn.core.turns import Turns
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.compilation import UpdateCompiler, Updates, attempted
from everlearn.ppo.loss import Coefficients
from everlearn.ppo.meeting import Meeting
from everlearn.ppo.rollout import Rollout
from everlearn.ppo.stacked import Epoch
from everlearn.ppo.update import EagerRunner, Outcome
from everlearn.ppo.update_tensors import UpdateTensors

T = TypeVar("T")
State = Mapping[str, Any]


class Together:
    """Members of a population that train in turns, their updates done together.

    What a member learns is what it would learn alone with ``compile=True``, to rounding, and it draws what it would
    draw alone: it has global generators of its own. What the others do, and whether they fail, makes no difference to
    it.
    Updates are compiled unless a model has ``compile=False``. A member whose updates are built otherwise (minibatches
    of another size, another optimizer, something switched on) does its own, with a warning.

    Args:
        models: The members; one may be put in another's place between two runs.
        generators: The state in which each finds the global generators, as from ``GlobalGenerators().state_dict()``;
            by default each begins with other seeds, which follow from the generators of now.

    Attributes:
        models: The members.
        generators: The states of now; one may be assigned between two runs.

    Raises:
        ArgumentError: If there is not one state for each model.
    """

    def __init__(self, models: Sequence[PPO], generators: Sequence[State] | None = None) -> None:
        self.models = list(models)
        if generators is None:
            generators = [seeded_generators(private_seed("member", number)) for number in range(len(self.models))]
        self.generators: list[State] = list(generators)
        if len(self.generators) != len(self.models):
            raise ArgumentError(
                f"{len(self.generators)} states of generators for {len(self.models)} models: give one for each."
            )
        self._meeting = Meeting(len(self.models))
        self._turns: Turns[Any] = Turns(self._enter, self._meeting.fulfil)
        self._compilers = [_MemberCompiler(self._meeting, self._turns, member) for member in range(len(self.models))]
        self._at_turn: int | None = None

    def run(self, works: Sequence[Callable[[], T] | None]) -> list[T | Exception | None]:
        """Run the works of all members in turns, each of which may have its model learn.

        The global generators are those of the member whose turn it is, and in the end what they were.

        Args:
            works: One for each member, such as ``lambda: model.learn(10_000)``; a member with None rests.

        Returns:
            What each work has returned, or the exception with which it ended, which is no matter of the others.

        Raises:
            ArgumentError: If there is not one work for each member, or two have the same model.
            BaseException: What is no ``Exception``, such as ``KeyboardInterrupt``, and comes from a work or as a
                signal: it ends all works where they wait. A work that is running goes on to its next updates first.
        """
        if len(works) != len(self.models) or len({*map(id, self.models)}) != len(self.models):
            raise ArgumentError(f"{len(works)} works for {len(self.models)} models: give one for each, no model twice.")
        with kept_generators(), ExitStack() as stack:
            for model, compiler in zip(self.models, self._compilers, strict=True):
                stack.enter_context(compiler.in_place_of_own(model))
            stack.callback(self._leave)
            stack.callback(self._meeting.forget_wishes)
            return self._turns.run(works)

    def _enter(self, member: int) -> None:
        """A member's turn begins: the global generators are its own now."""
        if self._at_turn != member:
            self._leave()
            GlobalGenerators().load_state_dict(dict(self.generators[member]))
            self._at_turn = member

    def _leave(self) -> None:
        """Keep the global generators for the member that has had its turn."""
        if self._at_turn is not None:
            self.generators[self._at_turn] = GlobalGenerators().state_dict()
            self._at_turn = None


class _MemberCompiler(UpdateCompiler):
    """Stands in the place of a member's own compiler while it trains with others."""

    def __init__(self, meeting: Meeting, turns: Turns[Any], member: int) -> None:
        super().__init__()
        self._meeting, self._turns, self._member = meeting, turns, member
        self._model: PPO | None = None

    @contextmanager
    def in_place_of_own(self, model: PPO) -> Iterator[None]:
        """Until the end of the block; the model's own then says how updates were done."""
        own, model.update_compiler = model.update_compiler, self
        self._model, self.compiled, self.reason = model, own.compiled, own.reason
        try:
            yield
        finally:
            model.update_compiler, self._model = own, None
            own.compiled, own.reason = self.compiled, self.reason

    def decides(self, earlier: bool | None, updates: float) -> bool:
        """A population's training is always long enough."""
        return True

    def updates(
        self, eager: EagerRunner, rollout: Rollout, batch_size: int, coefficients: Coefficients, wanted: bool
    ) -> Updates:
        """With the others where that is possible, else as alone."""
        alone = partial(super().updates, eager, rollout, batch_size, coefficients, wanted)
        tensors = attempted(lambda: UpdateTensors(eager, rollout, coefficients)) if wanted else None
        if isinstance(tensors, UpdateTensors):
            return _RolloutUpdates(self, tensors, min(batch_size, len(rollout)), alone)
        return partial(self.alone, alone(), ("alone", self._member))

    def done_together(self, tensors: UpdateTensors, kind: Hashable, batches: list[Tensor]) -> Epoch | None:
        """Have an epoch done with those of the others, which have their turns meanwhile; None if that cannot be."""
        assert self._model is not None
        guard = self._model.divergence_guard
        epoch = Epoch(tensors, batches, guard.in_a_row, guard.control.patience)
        self._meeting.wish(self._member, kind, epoch)
        self._turns.pass_on()
        problem = self._meeting.refusal(self._member)
        if problem is None:
            self.compiled, self.reason = True, None
            return epoch
        self._tell(problem)
        return None

    def alone(self, updates: Updates, kind: Hashable, batches: Iterable[Tensor]) -> Generator[tuple[Row, Outcome]]:
        """An epoch by itself, after the others have had their turns."""
        self._meeting.wish(self._member, kind, None)
        self._turns.pass_on()
        yield from updates(batches)

    def _tell(self, problem: str) -> None:
        """Say why this member's updates are done apart, once for each kind of reason."""
        kind = ":".join(problem.split(":")[:2])  # without what differs just now
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(
                f"The updates of member {self._member} are not done with the others', which is slower: {problem}",
                stacklevel=2,
            )


class _RolloutUpdates:
    """The updates of one member with one rollout: together with the others', or, once that could not be, its own.

    Args:
        compiler: Of the member.
        tensors: Of the updates.
        batch_size: Samples of those minibatches that are done together.
        alone: Makes what does them otherwise.
    """

    def __init__(
        self, compiler: _MemberCompiler, tensors: UpdateTensors, batch_size: int, alone: Callable[[], Updates]
    ) -> None:
        self._compiler, self._tensors, self._batch_size, self._make_alone = compiler, tensors, batch_size, alone
        self._kind = (tensors.structure(), batch_size)
        self._alone: Updates | None = None

    def __call__(self, batches: Iterable[Tensor]) -> Generator[tuple[Row, Outcome]]:
        """An epoch; a last minibatch of another size is done eagerly."""
        if self._alone is not None:
            yield from self._compiler.alone(self._alone, self._kind, batches)
            return
        batches = list(batches)
        whole = [*takewhile(lambda rows: len(rows) == self._batch_size, batches)]
        epoch = self._compiler.done_together(self._tensors, self._kind, whole)
        if epoch is None:
            self._alone = self._make_alone()
            yield from self._alone(batches)
            return
        try:
            yield from epoch.done
            if not epoch.has_stopped:
                yield from self._tensors.eagerly(batches[len(whole) :])
        finally:  # also where whoever takes the updates has had enough
            self._tensors.remember_step(epoch.factors)
