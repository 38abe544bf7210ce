"""Pieces of a table are looked at in their order, one ahead of the one that is decided on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import polars as pl
import pytest

from everlearn.core.errors import DataError
from everlearn.signals.looking import ahead
from tests.signals.markets_for_tests import bars, bits, in_pieces, predictor


class Made:
    """Numbers that say when, and by which thread, each was made."""

    def __init__(self, count: int, failing_at: int | None = None) -> None:
        self.count, self.failing_at = count, failing_at
        self.made: list[int] = []
        self.threads: set[str] = set()
        self.another = threading.Semaphore(0)

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            if number == self.failing_at:
                raise DataError(f"number {number}")
            self.threads.add(threading.current_thread().name)
            self.made.append(number)
            self.another.release()
            yield number


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_items_come_all_and_in_their_order(count: int) -> None:
    assert [*ahead(iter(Made(count)))] == [*range(count)]


def test_an_item_is_made_by_another_thread_while_the_one_before_is_in_use() -> None:
    items = Made(3)
    following = ahead(iter(items))
    next(following)
    for _ in range(2):  # the first, which is in use, and the second, which is made meanwhile
        assert items.another.acquire(timeout=10)
    assert items.made == [0, 1]
    assert threading.current_thread().name not in items.threads
    following.close()
    assert items.made == [0, 1]


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    for stopped in (ahead(iter(Made(9))), ahead(iter(Made(9, failing_at=1)))):
        next(stopped)
        stopped.close()
    assert threading.active_count() == before


def test_an_error_comes_in_the_place_of_its_item() -> None:
    following = ahead(iter(Made(5, failing_at=2)))
    assert [next(following), next(following)] == [0, 1]
    with pytest.raises(DataError, match="number 2"):
        next(following)


def test_signals_before_a_wrong_row_are_given_and_none_after_it() -> None:
    table = bars(20).with_columns(symbol=pl.when(pl.int_range(pl.len()) != 27).then("symbol"))
    given = in_pieces(predictor("continuous", 3), 10).predictions(table)
    parts = [next(given), next(given)]
    with pytest.raises(DataError, match="from row 20 on: row 7 has no 'symbol'"):
        next(given)
    assert bits(pl.concat(parts)) == bits(predictor("continuous", 3).predict(bars(20).head(20)))
