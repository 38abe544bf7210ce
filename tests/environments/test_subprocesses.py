"""Environments in processes of their own: as in one process, with failures that arrive where training is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from everlearn.environments.build import training_environment
from everlearn.environments.finite import FiniteSubprocessVecEnv, FiniteVecEnv
from everlearn.environments.spec import EnvConfig
from everlearn.environments.subprocesses import SubprocessVecEnv, WorkerError
from everlearn.environments.vector_state import restore_vector, vector_snapshot
from tests.environments.toys import Scripted


def pendulum() -> gymnasium.Env[Any, Any]:
    return Monitor(gymnasium.make("Pendulum-v1"))


def scripted() -> gymnasium.Env[Any, Any]:
    return Scripted()


def failing() -> gymnasium.Env[Any, Any]:
    return Failing()


class Failing(Scripted):
    """One that divides by zero at its second step."""

    def step(self, action: Any) -> Any:
        if self.steps:
            raise ZeroDivisionError("what the simulator has to say")
        return super().step(action)


def broken() -> gymnasium.Env[Any, Any]:
    raise ImportError("no simulator here")


@pytest.fixture
def remote() -> Iterator[SubprocessVecEnv]:
    with closing(FiniteSubprocessVecEnv([pendulum] * 2)) as venv:
        yield venv


def played(venv: Any, count: int) -> list[bytes]:
    rng = np.random.default_rng(count)
    outcomes = [venv.step(rng.uniform(-2, 2, (2, 1)))[:3] for _ in range(count)]
    return [array.tobytes() for outcome in outcomes for array in outcome]


def test_it_does_what_environments_in_one_process_do_and_goes_on_from_a_state(remote: SubprocessVecEnv) -> None:
    near = FiniteVecEnv([pendulum] * 2)
    for venv in (near, remote):
        venv.seed(3)
        venv.reset()
    assert played(near, 30) == played(remote, 30)
    state = vector_snapshot(remote)
    assert (state["level"], state["reasons"]) == ("exact", [])
    expected = played(remote, 220)
    assert restore_vector(remote, state)
    assert played(remote, 220) == expected


def test_a_failure_arrives_with_its_traceback() -> None:
    """Row 31 of the failure modes."""
    with closing(SubprocessVecEnv([scripted, failing])) as venv:
        venv.reset()
        venv.step(np.zeros(2, np.int64))
        with pytest.raises(WorkerError, match=r"Environment 1 has failed in its process:\n(.*\n)*.*what the simulator"):
            venv.step(np.zeros(2, np.int64))


def test_a_process_that_is_killed_is_named(remote: SubprocessVecEnv) -> None:
    """Row 31 of the failure modes."""
    remote.reset()
    os.kill(remote.processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="process of environment 1 has ended with code -9"):
        remote.step(np.zeros((2, 1)))


def test_an_environment_that_cannot_be_made_is_told_with_its_traceback() -> None:
    with pytest.raises(WorkerError, match=r"(.*\n)*.*ImportError: no simulator here"):
        SubprocessVecEnv([broken])


def test_the_configuration_names_the_engine() -> None:
    config = EnvConfig(id="Pendulum-v1", n_envs=2, engine="subprocess", wrappers=["RescaleAction"])
    with closing(training_environment(config, 0.99)) as venv:
        assert isinstance(venv.venv, FiniteSubprocessVecEnv)
        assert venv.reset().shape == (2, 3)
