import os
import signal
import threading

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
