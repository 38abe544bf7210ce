"""Works that take turns: one at a time, in order, each with its own end."""

from __future__ import annotations

import contextvars
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from everlearn.core.turns import Ended, Turns


class Diary:
    """Works that write down what they do, and what is written down."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.turns: Turns[str] = Turns(lambda number: self.write(f"enter {number}"), lambda: self.write("between"))

    def write(self, line: str) -> None:
        self.lines.append(line)

    def work(self, name: str, turns: int, then: Callable[[], Any] = lambda: None) -> Callable[[], str]:
        def run() -> str:
            for turn in range(turns):
                self.write(f"{name}{turn}")
                if turn < turns - 1:
                    self.turns.pass_on()
            then()
            return name

        return run


def test_each_goes_on_until_it_passes_its_turn_on_in_order() -> None:
    diary = Diary()
    assert diary.turns.run([diary.work("a", 3), None, diary.work("c", 1)]) == ["a", None, "c"]
    assert diary.lines == [
        *("enter 0", "a0", "enter 2", "c0", "between"),
        *("enter 0", "a1", "between"),
        *("enter 0", "a2", "between"),
    ]


def test_nothing_to_do_is_done_at_once() -> None:
    assert Turns(lambda number: None, lambda: None).run([None, None]) == [None, None]
    assert Turns(lambda number: None, lambda: None).run([]) == []


def test_there_is_never_more_than_one_at_work() -> None:
    at_work, most, turns = 0, 0, Turns[None](lambda number: None, lambda: None)

    def work() -> None:
        nonlocal at_work, most
        for _ in range(200):
            at_work += 1
            most = max(most, at_work)
            at_work -= 1
            turns.pass_on()

    turns.run([work] * 4)
    assert most == 1


def test_an_exception_is_the_result_of_its_own_work() -> None:
    diary = Diary()

    def fail() -> None:
        raise ValueError("mine")

    first, second = diary.turns.run([diary.work("a", 1, fail), diary.work("b", 3)])
    assert (type(first), str(first), second) == (ValueError, "mine", "b")
    assert diary.lines[-1] == "between"


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", [0, 1])
def test_an_interruption_in_one_ends_all_in_the_thread_that_runs_them(at: int) -> None:
    diary, ended = Diary(), []

    def waiting() -> str:
        try:
            diary.turns.pass_on()
            diary.turns.pass_on()
        except Ended:
            ended.append(threading.current_thread())
            diary.turns.pass_on()  # one that does not want to end
        return "never"

    works = [waiting, waiting]
    works.insert(at, diary.work("b", 2, interrupted))
    with pytest.raises(KeyboardInterrupt):
        diary.turns.run(works)
    assert len(ended) == 2
    assert not any(thread.is_alive() for thread in ended)


def test_a_signal_waits_for_the_end_of_a_turn_and_then_ends_all() -> None:
    diary = Diary()
    works = [diary.work("a", 3), diary.work("b", 3, lambda: pytest.fail("b was not ended"))]
    plain = works[0]

    def signalling() -> str:
        signal.raise_signal(signal.SIGINT)
        return plain()

    with pytest.raises(KeyboardInterrupt):
        diary.turns.run([signalling, works[1]])
    assert diary.lines == ["enter 0", "a0"], "b had no turn, and a no second one"
    assert diary.turns.run([diary.work("c", 1)]) == ["c"], "what was ended leaves nothing behind"


def test_an_error_between_turns_ends_all() -> None:
    def fail() -> None:
        raise MemoryError

    turns: Turns[None] = Turns(lambda number: None, fail)
    with pytest.raises(MemoryError):
        turns.run([turns.pass_on, turns.pass_on])


def test_works_see_the_context_of_whoever_runs_them() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    variable.set(3)
    assert Turns[int](lambda number: None, lambda: None).run([variable.get]) == [3]
