"""A worker that is a Ray actor, on whatever machine has room for it. Imported where Ray is installed.

Tasks and results travel as JSON. A worker that sees the directory of the members' files, for it is on this machine or
the path is shared, reads and writes them there; to another one they travel through Ray's object store.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, final

import ray

from everlearn.checkpoint.errors import CheckpointError
from everlearn.checkpoint.files import open_file, write_file
from everlearn.core.errors import ConfigError
from everlearn.core.scratch import scratch_directory
from everlearn.population.executors.executor import MakeRunner, SegmentRunner
from everlearn.population.executors.pool import Message, Worker, WorkerLost
from everlearn.population.members import MemberId
from everlearn.population.segments import Checkpoint, Result, Task, plain_result, plain_task, result_from, task_from

Storage = Literal["auto", "shared", "object_store"]
_LONGEST = 300
"""Characters of what Ray says of a worker that is gone."""
_FOR_SHARED = 5.0
"""Seconds in which a directory that has to be seen has to be seen."""
_SIGHT = ".sight-"
"""What the name of a file begins with by which a worker sees whether it has the same directory."""


@final
class Actor:
    """The far side of a worker.

    Args:
        make_runner: Makes what trains.
        directory: Where the members' files are, if they can be seen from here.
        sight: Name of a file that is there.
        storage: How members' files come here and go back.
    """

    def __init__(self, make_runner: MakeRunner, directory: Path, sight: str, storage: Storage) -> None:
        self._make_runner = make_runner
        self._runner: SegmentRunner | None = None
        sees = storage != "object_store" and _appears(directory / sight, _FOR_SHARED if storage == "shared" else 0.0)
        self._scratch = None if sees else scratch_directory("ray-worker")
        self._directory = directory if self._scratch is None else Path(self._scratch.name)
        self._changed = threading.Condition()
        self._beats: tuple[int, MemberId, int] = (0, 0, 0)

    @ray.method(concurrency_group="telling")
    def hello(self) -> str:
        """What the controller has to know before it gives work."""
        return json.dumps({"node": platform.node(), "sees": self._scratch is None, "versions": versions()})

    @ray.method(concurrency_group="training")
    def train(self, tasks: str, names: Sequence[str], *contents: bytes) -> tuple[int, str, list[bytes]]:
        """Train segments.

        Args:
            tasks: As JSON.
            names: Of the files that came along.
            contents: Of these.

        Returns:
            The number of the last sign of life; the results as JSON; where the controller's directory cannot be seen
            from here, the members' files.
        """
        for name, content in zip(names, contents, strict=True):
            (self._directory / name).write_bytes(content)
        if self._runner is None:
            self._runner = self._make_runner(self._directory)
        results = self._runner.run([task_from(each) for each in json.loads(tasks)], self._beat)
        plain = json.dumps([plain_result(result) for result in results])
        return self._beats[0], plain, self._handed_over(results)

    @ray.method(concurrency_group="telling")
    def listen(self, heard: int) -> tuple[int, MemberId, int]:
        """The number of the last sign of life, and what it says, as soon as there is one after so many."""
        with self._changed:
            self._changed.wait_for(lambda: self._beats[0] > heard)
            return self._beats

    @ray.method(concurrency_group="training")
    def end(self) -> None:
        """Give back what it holds."""
        if self._runner is not None:
            self._runner.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _beat(self, member_id: MemberId, updates: int) -> None:
        with self._changed:
            self._beats = (self._beats[0] + 1, member_id, updates)
            self._changed.notify_all()

    def _handed_over(self, results: Sequence[Result]) -> list[bytes]:
        """The files of some results; none stays, for those of the next segments come along again."""
        if self._scratch is None:
            return []
        contents = [(self._directory / each.checkpoint.name).read_bytes() for each in results if each.checkpoint]
        for path in self._directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return contents


@final
class Files:
    """The members' files on the controller's side.

    Args:
        directory: Where they are.
        storage: How they come to the workers.
    """

    def __init__(self, directory: Path, storage: Storage) -> None:
        self.directory, self.storage = directory, storage
        self.sight = f"{_SIGHT}{secrets.token_hex(8)}"
        self._sent: dict[str, Any] = {}
        for path in directory.glob(f"{_SIGHT}*"):  # of a controller that was killed
            path.unlink(missing_ok=True)
        (directory / self.sight).touch()

    def close(self) -> None:
        """Leave the members' files alone there."""
        self._sent = {}
        (self.directory / self.sight).unlink(missing_ok=True)

    def forget(self) -> None:
        """Let go of what the workers were sent: nobody at work needs it."""
        self._sent = {}

    def needed_by(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """References to the files from which members go on, by name.

        One that cannot be read is left out: the runner finds that it is missing, and what follows from that.
        """
        states = [state for task in tasks for state in (task.checkpoint, task.copy and task.copy.checkpoint) if state]
        for state in states:
            if state.name not in self._sent:
                try:
                    with open_file(self.directory / state.name) as stream:
                        self._sent[state.name] = ray.put(stream.read())
                except (OSError, CheckpointError):
                    continue
        return {state.name: self._sent[state.name] for state in states if state.name in self._sent}

    def take(self, checkpoints: Sequence[Checkpoint], contents: Sequence[bytes]) -> None:
        """Keep what a worker has handed over, so that it survives a crash.

        Raises:
            WorkerLost: If it is not what the worker says.
        """
        for checkpoint, content in zip(checkpoints, contents, strict=True):
            if hashlib.sha256(content).hexdigest() != checkpoint.sha256:
                raise WorkerLost(f"has handed over {checkpoint.name} with other bytes than it has written")
            write_file(self.directory / checkpoint.name, [content])


@final
class RayWorker(Worker):
    """A Ray actor, from the moment that it is asked for.

    Args:
        options: Of the actor, as Ray has them.
        make_runner: Makes what trains there.
        files: The members'.
    """

    def __init__(self, options: Mapping[str, Any], make_runner: MakeRunner, files: Files) -> None:
        remote: Any = ray.remote
        try:
            actor = remote(concurrency_groups={"training": 1, "telling": 1}, **options)(Actor)
        except ValueError as error:
            raise ConfigError(f"Ray refuses what a worker needs: {error}") from error
        self._actor = actor.remote(make_runner, files.directory, files.sight, files.storage)
        self._files = files
        self._hello = self._actor.hello.remote()
        self._results: Any = None
        self._listening: Any = None
        self._heard, self._sees = 0, True
        self.has_begun = False

    def references(self) -> list[Any]:
        """What it has something to say by; also that it is gone, where it has no work."""
        return [each for each in (self._results, self._listening, self._hello) if each is not None]

    def send(self, tasks: Sequence[Task]) -> None:
        """Have segments trained."""
        files = {} if self._sees else self._files.needed_by(tasks)
        plain = json.dumps([plain_task(task) for task in tasks])
        self._results = self._actor.train.remote(plain, [*files], *files.values())

    def receive(self) -> Message:
        """Results before signs of life."""
        try:
            if self._hello is not None:
                self._begin(json.loads(ray.get(self._hello)))
                return None
            if self._results is not None and ray.wait([self._results], timeout=0)[0]:
                return self._taken(*ray.get(self._results))
            self._heard, member_id, updates = ray.get(self._listening)
        except ray.exceptions.RayError as error:
            raise WorkerLost(_obituary(error)) from error
        self._listen()
        return member_id, updates

    def close(self, patience: float) -> None:
        """End the actor."""
        if patience and self.has_begun:
            ray.wait([self._actor.end.remote()], timeout=patience)
        ray.kill(self._actor)

    def _begin(self, about: Mapping[str, Any]) -> None:
        """Take note of where it is.

        Raises:
            ConfigError: If it cannot work there as it should.
        """
        if about["versions"] != versions():
            raise ConfigError(
                f"The worker on {about['node']} has {_said(about['versions'])}, and the controller "
                f"{_said(versions())}. Install the same on all machines of the cluster."
            )
        if self._files.storage == "shared" and not about["sees"]:
            raise ConfigError(
                f"The worker on {about['node']} does not see {self._files.directory}. Have the run in a directory that "
                "all machines share, or leave out population.ray.storage."
            )
        self._hello, self._sees, self.has_begun = None, about["sees"], True
        self._listen()

    def _listen(self) -> None:
        """Ask for the next sign of life: the answer comes with it, or when the actor is gone."""
        self._listening = self._actor.listen.remote(self._heard)

    def _taken(self, heard: int, plain: str, contents: Sequence[bytes]) -> list[Result]:
        self._heard, results = heard, [result_from(each) for each in json.loads(plain)]
        if not self._sees:
            self._files.take([result.checkpoint for result in results if result.checkpoint], contents)
        self._results = None
        self._listen()
        return results


def _appears(path: Path, seconds: float) -> bool:
    """Whether a file is there, or will be soon: network disks may show what is new a little later."""
    end = time.monotonic() + seconds
    while not path.is_file():
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return True


def versions() -> dict[str, str]:
    """Of what has to be alike in all processes of a population; builds of one version are."""
    return {name: version(name).partition("+")[0] for name in ("everlearn", "torch", "numpy")}


def _said(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _obituary(error: Exception) -> str:
    """What Ray says of a worker that is gone, in a line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"has raised {type(error.cause).__name__}: {error.cause}"
    *_, last = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"was lost: {last.removeprefix('The actor is dead because ').partition(' Some common causes')[0][:_LONGEST]}"
