"""Where the epochs that several members want are brought together: which can be done as one, and by which graph."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Hashable, Mapping

from everlearn.ppo.compilation import attempted
from everlearn.ppo.stacked import Epoch, Stack

DIFFERENT = "they are built otherwise than those of the others"
_log = logging.getLogger(__name__)


class Meeting:
    """Decides on wishes for updates. Graphs are made for a number of members, and kept.

    Args:
        size: Number of members.
    """

    def __init__(self, size: int) -> None:
        self._kinds: list[Hashable] = [None] * size
        self._wishes: dict[int, Epoch] = {}
        self._refusals: dict[int, str] = {}
        self._stacks: dict[Hashable, Stack | str] = {}

    def wish(self, member: int, kind: Hashable, epoch: Epoch | None) -> None:
        """Have an epoch done when all members have come so far.

        Args:
            member: Its number.
            kind: Epochs of one kind can be done together.
            epoch: Takes what becomes of it; None for one that the member does by itself.
        """
        self._kinds[member] = kind
        if epoch is not None:
            self._wishes[member] = epoch

    def refusal(self, member: int) -> str | None:
        """Why a wish was not fulfilled; None if it was."""
        return self._refusals.pop(member, None)

    def forget_wishes(self) -> None:
        """Nobody waits any more."""
        self._wishes, self._refusals = {}, {}

    def fulfil(self) -> None:
        """Do the epochs that are wished for, as far as they can be done together."""
        wishes, self._wishes = self._wishes, {}
        common = self._common_kind()
        self._refusals = {member: DIFFERENT for member in wishes if self._kinds[member] != common}
        epochs = {member: epoch for member, epoch in wishes.items() if member not in self._refusals}
        if not epochs:
            return
        stack = self._stack(common, next(iter(epochs.values())))
        if isinstance(stack, str):
            self._refusals |= dict.fromkeys(epochs, stack)
            return
        if new := stack.unknown(epochs):
            self._refusals |= _differences(stack, new)
        if agreed := {member: epoch for member, epoch in epochs.items() if member not in self._refusals}:
            stack.update(agreed)

    def _common_kind(self) -> Hashable:
        """The kind that most members have; None where no two do. One that is not known yet may be like the others."""
        known = Counter(kind for kind in self._kinds if kind is not None).most_common(1)
        unknown = self._kinds.count(None)
        return known[0][0] if known and known[0][1] + unknown >= min(2, len(self._kinds)) else None

    def _stack(self, kind: Hashable, epoch: Epoch) -> Stack | str:
        """The rows for updates of a kind; why there are none where the graph cannot be made."""
        if kind not in self._stacks:
            size, start = len(self._kinds), time.monotonic()
            made = attempted(lambda: Stack(epoch.tensors, size, len(epoch.batches[0])))
            self._stacks[kind] = _described(made) if isinstance(made, Exception) else made
            _log.info("The update of %d members has been compiled in %.1f seconds.", size, time.monotonic() - start)
        return self._stacks[kind]


def _differences(stack: Stack, epochs: Mapping[int, Epoch]) -> dict[int, str]:
    """The members whose update the graph does not do, and what differs."""
    found = attempted(lambda: stack.differences(epochs))
    if isinstance(found, Exception):
        return dict.fromkeys(epochs, _described(found))
    return {member: _described(problem) for member, problem in found.items()}


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
