"""How objects travel to another process: what multiprocessing does with every argument and result."""

from __future__ import annotations

import threading
from multiprocessing import Pipe
from typing import TypeVar

T = TypeVar("T")


def through_a_pipe(thing: T) -> T:
    """What a process at the other end of a pipe would get."""
    here, there = Pipe()
    sender = threading.Thread(target=here.send, args=(thing,), daemon=True)  # a pipe holds less than a model
    with here, there:
        sender.start()
        received: T = there.recv()
        sender.join()
    return received
