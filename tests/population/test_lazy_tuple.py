from collections.abc import Iterator
from copy import deepcopy

import pytest

from everlearn.population.lazy_tuple import LazyTuple


class Counted:
    """Numbers from 0 on, and how many of them somebody has asked for."""

    def __init__(self, count: int) -> None:
        self._count, self.asked = count, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self._count):
            self.asked += 1
            yield number


@pytest.mark.parametrize("count", [0, 1, 4])
def test_it_is_as_the_tuple_of_the_same_items(count: int) -> None:
    lazy, plain = LazyTuple(Counted(count)), tuple(range(count))
    assert lazy == plain
    assert plain == lazy
    assert lazy == LazyTuple(plain)
    assert (hash(lazy), repr(lazy), len(lazy), bool(lazy)) == (hash(plain), repr(plain), count, bool(plain))
    assert ([*lazy], [*reversed(lazy)], [*lazy]) == ([*plain], [*reversed(plain)], [*plain])
    assert (lazy[1:], lazy[::-1], lazy[:-1]) == (plain[1:], plain[::-1], plain[:-1])
    assert deepcopy(lazy) == plain


def test_it_is_no_list_and_no_other_tuple() -> None:
    lazy = LazyTuple([1, 2])
    assert lazy != (1, 2, 3)
    assert LazyTuple([1]) != lazy
    assert lazy != [1, 2]
    assert (3 in lazy, 2 in lazy, lazy.index(2)) == (False, True, 1)


@pytest.mark.parametrize("index", [2, -3, 7])
def test_beyond_its_end_there_is_nothing(index: int) -> None:
    with pytest.raises(IndexError):
        LazyTuple([1, 2])[index]


def test_only_what_is_asked_for_is_found_and_only_once() -> None:
    items = Counted(9)
    lazy = LazyTuple(items)
    assert items.asked == 0
    assert lazy
    assert lazy[0] == 0
    assert next(iter(lazy)) == 0
    assert items.asked == 1
    assert (lazy[3], lazy[2], items.asked) == (3, 2, 4)
    assert (lazy[-1], len(lazy), [*lazy], items.asked) == (8, 9, [*range(9)], 9)


def test_a_copy_is_of_all_of_it() -> None:
    items = Counted(3)
    lazy = LazyTuple(items)
    assert lazy[0] == 0
    assert (deepcopy(lazy), [*lazy], items.asked) == ((0, 1, 2), [0, 1, 2], 3)


def test_two_may_go_through_it_at_once() -> None:
    lazy = LazyTuple(Counted(3))
    assert [*zip(lazy, lazy, strict=True)] == [(0, 0), (1, 1), (2, 2)]
