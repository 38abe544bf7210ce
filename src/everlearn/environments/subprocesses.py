"""Environments in processes of their own, whose failures arrive where training is."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper, VecEnvStepReturn
from stable_baselines3.common.vec_env.subproc_vec_env import _worker
from torch import Tensor

from everlearn.core.errors import EverlearnError
from everlearn.core.rng import GlobalGenerators
from everlearn.environments import snapshots
from everlearn.environments.adapters import Env


class WorkerError(EverlearnError):
    """An environment in another process has failed; the message has its traceback."""


class SubprocessVecEnv(SubprocVecEnv):
    """SB3's ``SubprocVecEnv``, one process for each environment; what fails there is raised here, with its traceback.

    Rows 31 and 33 of the failure modes. An environment is made in its own process, so that what its import changes
    there is not changed here; it is wrapped, so that its state can be asked for.

    Args:
        env_fns: Make one environment each; they are sent to the processes.
        start_method: Of the processes; by default "forkserver" where there is one, else "spawn".

    Raises:
        WorkerError: If an environment cannot be made.
    """

    def __init__(self, env_fns: list[Callable[[], Env]], start_method: str | None = None) -> None:
        self.waiting, self.closed = False, False
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context(
            start_method or ("forkserver" if "forkserver" in methods else "spawn")
        )
        pipes = [context.Pipe() for _ in env_fns]
        self.work_remotes = tuple(there for _, there in pipes)
        self.processes = []
        for (here, there), env_fn in zip(pipes, env_fns, strict=True):
            arguments = (there, here, CloudpickleWrapper(env_fn))
            process = context.Process(target=_reporting_worker, args=arguments, daemon=True)
            process.start()
            self.processes.append(process)
            there.close()
        pairs = zip(pipes, self.processes, strict=True)
        self.remotes: Any = tuple(_Remote(here, index, process) for index, ((here, _), process) in enumerate(pairs))
        try:
            spaces = [self._asked(remote, ("get_spaces", None)) for remote in self.remotes]
        except WorkerError:
            self.close()
            raise
        VecEnv.__init__(self, len(env_fns), *spaces[0])

    @staticmethod
    def _asked(remote: _Remote, question: tuple[str, Any]) -> Any:
        remote.send(question)
        return remote.recv()

    def step_wait(self) -> VecEnvStepReturn:
        """What all environments have done; rewards in float32, as environments in one process give them.

        Raises:
            WorkerError: If one has failed.
        """
        observations, rewards, dones, infos = super().step_wait()
        return observations, rewards.astype(np.float32), dones, [*infos]

    def close(self) -> None:
        """End the processes; one that does not answer any more is killed."""
        if self.closed:
            return
        for remote in self.remotes:
            remote.close_worker()
        end = time.monotonic() + _PATIENCE
        for process in self.processes:
            process.join(timeout=max(end - time.monotonic(), 0.0))
            if process.is_alive():
                process.kill()
                process.join()
        self.closed = True


_PATIENCE = 3.0
"""Seconds that processes get to close their environments."""


class Reachable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes out and puts back the state of an environment and of the generators of the process it lives in.

    Args:
        env: The environment with all of its wrappers.
    """

    def snapshot_state(self) -> dict[str, Any]:
        """The state, in plain data and arrays alone."""
        return {**snapshots.snapshot(self.env), "process": _mapped(GlobalGenerators().state_dict(), _to_array)}

    def restore_state(self, state: Mapping[str, Any]) -> bool:
        """Put everything back; returns whether the episode goes on."""
        goes_on = snapshots.restore(self.env, state)
        GlobalGenerators().load_state_dict(_mapped(state["process"], _to_tensor))
        return goes_on


class _Failure(NamedTuple):
    """What a process sends that cannot go on."""

    report: str


class _Remote:
    """The near end of a process's pipe, from which failures are raised."""

    def __init__(self, connection: Connection, index: int, process: Any) -> None:
        self._connection, self._index, self._process = connection, index, process

    def send(self, message: Any) -> None:
        """Send a command; a process that is gone is noticed when its answer is read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def recv(self) -> Any:
        """The answer.

        Raises:
            WorkerError: If the environment has failed, or its process is gone.
        """
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(timeout=_PATIENCE)
            raise WorkerError(
                f"The process of environment {self._index} has ended with code {self._process.exitcode} and left no "
                "report: it was killed, or ran out of memory."
            ) from error
        if isinstance(answer, _Failure):
            raise WorkerError(f"Environment {self._index} has failed in its process:\n{answer.report}")
        return answer

    def poll(self, timeout: float = 0.0) -> bool:
        """Whether there is an answer."""
        return self._connection.poll(timeout)

    def close_worker(self) -> None:
        """Ask the process to end, without waiting for answers that nobody has read."""
        self.send(("close", None))
        self._connection.close()


def _reporting_worker(remote: Connection, parent_remote: Connection, env_fn: CloudpickleWrapper) -> None:
    """SB3's worker; what it raises is sent before it ends."""
    make = env_fn.var
    env_fn.var = lambda: Reachable(make())
    try:
        _worker(remote, parent_remote, env_fn)
    except Exception:
        remote.send(_Failure(traceback.format_exc()))
        raise SystemExit(1) from None


def _mapped(state: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(state, Mapping):
        return {key: _mapped(value, change) for key, value in state.items()}
    return [_mapped(value, change) for value in state] if isinstance(state, list) else change(state)


def _to_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else value


def _to_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
