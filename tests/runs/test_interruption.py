import os
import signal
import threading
from typing import Any

import pytest

from everlearn.runs.interruption import Interruption


def test_a_second_signal_acts_as_always() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
        os.kill(os.getpid(), signal.SIGINT)


def test_a_handler_that_could_not_be_put_back_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """``getsignal`` is None for a handler that C code has set."""
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        with Interruption():
            patch.undo()
            assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_signals_are_left_alone() -> None:
    seen = []

    def enter() -> None:
        with Interruption():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_the_other_signal_soon_after_the_first_changes_nothing(first: str, second: str) -> None:
    """Whoever ends services sends both; the work is saved, and the first is the one that is told."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.Signals[first])
        os.kill(os.getpid(), signal.Signals[second])
        assert interruption.signal is signal.Signals[first]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_while_another_is_being_noted_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Interruption() as interruption:
        put_back = signal.signal

        def interrupted(number: signal.Signals, handler: Any) -> Any:
            monkeypatch.setattr(signal, "signal", put_back)
            os.kill(os.getpid(), signal.SIGTERM)
            return put_back(number, handler)

        monkeypatch.setattr(signal, "signal", interrupted)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal is signal.SIGINT
