"""Works that take turns: each in a thread of its own, one at a time and in order, as coroutines would."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Semaphore
from typing import Generic, TypeVar

T = TypeVar("T")


class Ended(BaseException):
    """Raised in a work where it waits for its turn, because all works are ended."""


class Turns(Generic[T]):
    """Functions that run as if they were one program: a work goes on until it passes its turn on, or is over.

    So what they do, and in which order, depends on nothing but them. All that a thread has for itself is a work's own;
    of what belongs to the whole process ``enter`` may give each its own.

    Args:
        enter: Called with a work's number whenever its turn begins.
        between: Called when every work that is not over has had a turn. Both in the thread that calls ``run``.
    """

    def __init__(self, enter: Callable[[int], None], between: Callable[[], None]) -> None:
        self._enter, self._between = enter, between
        self._current: _Work[T] | None = None

    def run(self, works: Sequence[Callable[[], T] | None]) -> list[T | Exception | None]:
        """Run all works to their ends.

        What is no ``Exception`` (``KeyboardInterrupt``, ``SystemExit``) and comes from a work, from ``between`` or, as
        a signal, from outside, ends all works where they wait, and is raised here. A work that a signal has found
        running goes on to the end of its turn first.

        Args:
            works: What to run; None for nothing.

        Returns:
            What each has returned, or the exception with which it ended.
        """
        with ThreadPoolExecutor(max(len(works), 1), "everlearn-turn") as pool:
            all_works = [None if function is None else _Work(function, pool) for function in works]
            begun = [work for work in all_works if work is not None]
            try:
                while not all(work.is_over for work in begun):
                    self._have_a_turn_each(all_works)
                    self._between()
            finally:
                self._end(begun)
        return [None if work is None else work.result() for work in all_works]

    def pass_on(self) -> None:
        """Called by a work: let the others have their turns, and go on with the next one.

        Raises:
            Ended: If there is none.
        """
        assert self._current is not None, "no work is under way"
        self._current.pass_on()

    def _have_a_turn_each(self, works: Sequence[_Work[T] | None]) -> None:
        for number, work in enumerate(works):
            if work is not None and not work.is_over:
                self._enter(number)
                self._current = work
                work.go_on()
                if work.is_over:
                    work.result()

    def _end(self, works: Sequence[_Work[T]]) -> None:
        """End those that are not over, one after the other, and all at once where somebody does not want to wait."""
        try:
            for work in works:
                self._current = work
                work.end()
                wait([work.future])
        finally:
            for work in works:
                work.end()


class _Work(Generic[T]):
    """A function in a thread of its own, which runs only while ``go_on`` waits for it."""

    def __init__(self, function: Callable[[], T], pool: ThreadPoolExecutor) -> None:
        self._turn, self._passed_on = Semaphore(0), Semaphore(0)
        self._function, self._must_end = function, False
        self.is_over = False
        self.future: Future[T] = pool.submit(contextvars.copy_context().run, self._run)

    def _run(self) -> T:
        try:
            self._await_turn()
            return self._function()
        finally:
            self.is_over = True
            self._passed_on.release()

    def _await_turn(self) -> None:
        if not self._must_end:
            self._turn.acquire()
        if self._must_end:
            raise Ended

    def go_on(self) -> None:
        self._turn.release()
        self._passed_on.acquire()

    def pass_on(self) -> None:
        self._passed_on.release()
        self._await_turn()

    def end(self) -> None:
        """Have it end where it waits, or will wait."""
        self._must_end = True
        self._turn.release()

    def result(self) -> T | Exception:
        error = self.future.exception()
        if error is None:
            return self.future.result()
        if isinstance(error, Exception):
            return error
        raise error
