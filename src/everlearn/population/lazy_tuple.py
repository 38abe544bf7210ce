"""A tuple of which only as much is found as somebody has asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, final, overload

Item = TypeVar("Item", covariant=True)


@final
class LazyTuple(Sequence[Item]):
    """Equal to the tuple of the same items, which are found one after the other when they are asked for.

    Whether there are any follows from the first alone; ``len`` finds them all.

    Args:
        items: Gone through at most once; what it yields must not depend on when that is.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._found: list[Item] = []
        self._left = iter(items)

    def __iter__(self) -> Iterator[Item]:
        position = 0
        while self._has(position):
            yield self._found[position]
            position += 1

    def __bool__(self) -> bool:
        return self._has(0)

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, int) and index >= 0 and self._has(index):
            return self._found[index]
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return self._all() == tuple(other) if isinstance(other, tuple | LazyTuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyTuple, (self._all(),)

    def _all(self) -> tuple[Item, ...]:
        self._found.extend(self._left)
        return tuple(self._found)

    def _has(self, position: int) -> bool:
        """Whether there is one in this place; finds those before it."""
        while len(self._found) <= position:
            try:
                self._found.append(next(self._left))
            except StopIteration:
                return False
        return True
