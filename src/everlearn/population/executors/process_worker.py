"""A worker that is a process of this machine: it trains what it is sent, and tells that it lives."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, final

from everlearn.population.executors.executor import MakeRunner
from everlearn.population.executors.pool import Message, Worker, WorkerLost
from everlearn.population.segments import Task, plain_result, plain_task, result_from, task_from

_PATIENCE = 3.0
"""Seconds that a process whose pipe is closed gets to end by itself."""


@final
class ProcessWorker(Worker):
    """A process and the pipe to it. Texts alone go through the pipe: JSON, which executes nothing.

    Args:
        make_runner: Makes what trains there.
        directory: Where the members' files are.
        log: Where its output goes, added to what is there; None for nowhere.
    """

    def __init__(self, make_runner: MakeRunner, directory: Path, log: Path | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(make_runner, directory, there, log))
        self._process.start()
        there.close()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def send(self, tasks: Sequence[Task]) -> None:
        """Have segments trained."""
        with suppress(OSError):  # a process that is gone is noticed when it is listened to
            self.connection.send_bytes(json.dumps([plain_task(task) for task in tasks]).encode())

    def receive(self) -> Message:
        """The next message."""
        try:
            kind, content = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerLost(self._obituary()) from error
        return [result_from(each) for each in content] if kind == "results" else (content[0], content[1])

    def _obituary(self) -> str:
        """How the process, which is gone or is now killed, has ended."""
        self._process.join(_PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        code = self._process.exitcode or 0
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"has ended with exit code {code}; the end of workers.log may say why"

    def close(self, patience: float) -> None:
        """End the process; what it is at is given up."""
        self.connection.close()
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


def _serve(make_runner: MakeRunner, directory: Path, connection: Connection, log: Path | None) -> None:
    """What a worker does: train whatever comes until nothing more does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, for the controller, which ends its workers
    _redirect_output(log)
    Thread(target=_end_with_the_controller, daemon=True).start()
    runner = make_runner(directory)
    while True:
        results = runner.run(
            _tasks(connection), lambda member_id, updates: _say(connection, "beat", [member_id, updates])
        )
        _say(connection, "results", [plain_result(result) for result in results])


def _end_with_the_controller() -> None:
    """End the process where the one that started it is gone, even if whatever is trained hangs."""
    controller = multiprocessing.parent_process()
    assert controller is not None
    controller.join()
    os._exit(0)


def _tasks(connection: Connection) -> list[Task]:
    """What comes next; where nothing does any more, the process ends, whatever is at work in it."""
    try:
        return [task_from(each) for each in json.loads(connection.recv_bytes())]
    except (EOFError, OSError):
        os._exit(0)


def _say(connection: Connection, kind: str, content: Any) -> None:
    try:
        connection.send_bytes(json.dumps([kind, content]).encode())
    except OSError:  # the controller is gone, and nobody needs the results
        os._exit(0)


def _redirect_output(log: Path | None) -> None:
    """Have all that the process and its libraries print go to the log, and not between the lines of a display."""
    target = os.open(os.devnull if log is None else log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)
