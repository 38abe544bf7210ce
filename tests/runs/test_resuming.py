"""Runs that go on where they were interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from everlearn.checkpoint.archive import read_manifest
from everlearn.checkpoint.errors import Mismatch, NoValidCheckpoint
from everlearn.config import load
from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.environments.subprocesses import WorkerError
from everlearn.runs import Run, resume, train
from everlearn.runs.checkpointing import checkpoint_store
from everlearn.runs.directory import RunDirectory
from everlearn.runs.verifying import verify_resume
from tests.runs.tiny import Recorded
from tools.resume_table import differences

SETTINGS: dict[str, Any] = {
    "env.id": "CartPole-v1",
    "env.n_envs": 2,
    "algorithm.n_steps": 32,
    "algorithm.n_epochs": 2,
    "algorithm.batch_size": 32,
    "algorithm.learning_rate": "lin_1e-3",
    "algorithm.compile": False,
    "total_timesteps": 384,
    "checkpoint.every": 64,
    "checkpoint.keep_last": 20,
    "logging.tensorboard": False,
    "logging.baseline_episodes": 2,
    "logging.evaluation_episodes": 0,
    "seed": 4,
}


class StopsAt(BaseCallback):
    """Ends training in the middle of a rollout, by an error or in peace."""

    def __init__(self, step: int, error: type[Exception] | None = None) -> None:
        super().__init__()
        self.step, self.error = step, error

    def _on_step(self) -> bool:
        if self.num_timesteps < self.step:
            return True
        if self.error is not None:
            raise self.error
        return False


def straight(tmp_path: Path, **settings: Any) -> Path:
    return train(settings={**SETTINGS, **settings}, out=tmp_path / "straight").path


@pytest.mark.parametrize("error", [None, ZeroDivisionError])
@pytest.mark.parametrize("settings", [{}, {"evaluation.every": 128, "evaluation.episodes": 2}], ids=["", "evaluated"])
def test_a_run_that_a_callback_ended_goes_on_as_if_it_had_not(error: Any, settings: Any, tmp_path: Path) -> None:
    """Row 31 of the failure modes: an error leaves an emergency checkpoint of the last clean point."""
    expected = straight(tmp_path, **settings)
    try:
        train(settings={**SETTINGS, **settings}, out=tmp_path / "run", callback=StopsAt(150, error))
    except ZeroDivisionError as caught:
        assert error is not None
        assert "is saved in" in caught.__notes__[0]
    display = Recorded()
    run = resume(tmp_path / "run", require="exact", display=display)
    assert display.announced[0].endswith("at step 128 of 384; level: exact")
    assert run.summary.steps == 384
    assert differences(expected, tmp_path / "run") == []
    assert Run(expected).evaluations()["mean_reward"] == run.evaluations()["mean_reward"]


def test_an_emergency_checkpoint_is_written_where_none_were_asked_for(tmp_path: Path) -> None:
    """Row 31 of the failure modes."""
    with pytest.raises(ZeroDivisionError):
        train(settings=SETTINGS | {"checkpoint.every": 0}, out=tmp_path, callback=StopsAt(150, ZeroDivisionError))
    assert [each.step for each in checkpoint_store(RunDirectory(tmp_path)).checkpoints()] == [128]
    assert resume(tmp_path).summary.steps == 384


def test_a_run_that_is_over_is_extended_only(tmp_path: Path) -> None:
    path = straight(tmp_path)
    with pytest.raises(ConfigError, match=r"has come to its end, 384 steps\. Extend it with --extend"):
        resume(path)
    for total in (448, 512):
        assert resume(path, extend=64).summary.steps == total
        assert load(path / "config.yaml").total_timesteps == total
    rates = Run(path).progress()["train/learning_rate"]
    assert all(rate >= 0 for rate in rates if rate == rate)


def test_an_extended_run_that_is_interrupted_goes_on_to_its_new_end(tmp_path: Path) -> None:
    path = straight(tmp_path)
    resume(path, extend=128, callback=StopsAt(400))
    assert resume(path).summary.steps == 512


def test_without_a_seed_one_is_drawn_and_kept(tmp_path: Path) -> None:
    """Row 40 of the failure modes."""
    settings = {name: value for name, value in SETTINGS.items() if name != "seed"}
    display = Recorded()
    train(settings=settings, out=tmp_path, callback=StopsAt(150), display=display)
    seed = load(tmp_path / "config.yaml").seed
    assert seed is not None
    assert f"seed {seed}" in display.announced[0]
    assert resume(tmp_path, require="exact").summary.seed == seed


def test_what_cannot_be_resumed_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is no run of everlearn"):
        resume(tmp_path)
    with pytest.raises(ArgumentError, match=r"extend=0\.5"):
        resume(tmp_path, extend=0.5)  # type: ignore[arg-type]
    train(settings=SETTINGS | {"checkpoint.every": 0}, out=tmp_path / "none")
    for file in (tmp_path / "none").glob("*.zip"):
        file.unlink()
    with pytest.raises(NoValidCheckpoint) as error:
        resume(tmp_path / "none")
    assert any("checkpoint.every" in note for note in error.value.__notes__)


def test_a_checkpoint_is_continued_in_the_same_way_each_time(tmp_path: Path) -> None:
    train(settings=SETTINGS, out=tmp_path, callback=StopsAt(150))
    result = verify_resume(tmp_path / "checkpoints" / "step-000000000128.zip")
    assert result.agrees
    assert (result.level, result.reasons) == ("exact", ())
    with pytest.raises(ConfigError, match="it is in no run's directory"):
        verify_resume(tmp_path / "model.zip")


SLOW = """
import time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Slow(PendulumEnv):
    taken = 0
    def step(self, action):
        type(self).taken += 1
        if type(self).taken > 200:
            open("slow", "w").close()
            time.sleep(60)
        return super().step(action)

gymnasium.register("Slow-v0", entry_point=Slow, max_episode_steps=200)
"""


@pytest.mark.parametrize("engine", ["synchronous", pytest.param("subprocess", marks=pytest.mark.slow)])
def test_a_signal_does_not_wait_for_a_slow_environment(engine: str, tmp_path: Path) -> None:
    """Row 16 of the failure modes: what is saved is there within a second."""
    (tmp_path / "slow_environment.py").write_text(SLOW)
    different = {"env.id": "Slow-v0", "env.engine": engine, "total_timesteps": 4000, "logging.baseline_episodes": 0}
    settings = SETTINGS | different
    arguments = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "everlearn", "train", "--import", "slow_environment", "--out", "run"]
    process = subprocess.Popen(
        [*command, *(part for argument in arguments for part in ("--set", argument))],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])},
    )
    while not (tmp_path / "slow").exists():
        assert process.poll() is None
        time.sleep(0.01)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    while not (tmp_path / "run" / "model.zip").exists():
        assert process.poll() is None
        assert time.monotonic() < start + 5.0  # of sixty; on an idle machine a tenth of a second
        time.sleep(0.005)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Go on with: everlearn resume run --import slow_environment" in output
    assert [each.step for each in checkpoint_store(RunDirectory(tmp_path / "run")).checkpoints()][-1] % 64 == 0


def test_a_dying_environment_leaves_a_checkpoint_and_its_traceback(tmp_path: Path) -> None:
    """Row 31 of the failure modes."""

    class Killing(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 150:
                os.kill(self.training_env.processes[1].pid, signal.SIGKILL)
            return True

    settings = SETTINGS | {"env.engine": "subprocess"}
    with pytest.raises(WorkerError, match="process of environment 1 has ended with code -9"):
        train(settings=settings, out=tmp_path / "run", callback=Killing())
    assert resume(tmp_path / "run", require="exact").summary.steps == 384


def test_environments_that_nobody_can_save_are_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of a user's without get_state: its actions are recorded."""
    import gymnasium

    from tests.environments.toys import Noisy

    class Opaque(Noisy):
        def __init__(self) -> None:
            super().__init__(length=50)
            self.place = iter(())

    gymnasium.register("Opaque-v0", entry_point=Opaque)
    settings = SETTINGS | {"env.id": "Opaque-v0"}
    try:
        expected = straight(tmp_path, **settings)
        train(settings=settings, out=tmp_path / "run", callback=StopsAt(150))
        display = Recorded()
        resume(tmp_path / "run", require="exact", display=display)
        assert "level: exact-replay (Opaque-v0 is rebuilt by repeating its actions)" in display.announced[0]
        assert differences(expected, tmp_path / "run") == []
    finally:
        del gymnasium.registry["Opaque-v0"]


def test_a_callback_that_affects_training_is_refused_where_exact_is_asked_for(tmp_path: Path) -> None:
    class Affecting(StopsAt):
        affects_training = True

    train(settings=SETTINGS, out=tmp_path, callback=Affecting(150))
    with pytest.raises(Mismatch, match="Affecting affects training"):
        resume(tmp_path, require="exact")
    checkpoint = read_manifest(tmp_path / "checkpoints" / "step-000000000128.zip")
    assert checkpoint["resume"]["level"] == "weights"
    assert any("Affecting" in name for name in checkpoint["callbacks_not_restored"])


def test_an_environment_that_draws_from_elsewhere_starts_a_new_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its actions are repeated and do not lead to the same observation: the level falls, and is said."""
    import gymnasium
    import numpy as np

    from tests.environments.toys import Noisy

    class Global(Noisy):
        def __init__(self) -> None:
            super().__init__(length=50)
            self.place = iter(())

        def observation(self) -> Any:
            return np.random.normal(size=2).astype(np.float32)

    gymnasium.register("Global-v0", entry_point=Global)
    try:
        train(settings=SETTINGS | {"env.id": "Global-v0"}, out=tmp_path, callback=StopsAt(150))
        with pytest.raises(Mismatch, match="came to another observation"):
            resume(tmp_path, require="exact")
        display = Recorded()
        assert resume(tmp_path, display=display).summary.steps == 384
        assert "level: episode" in display.announced[0]
    finally:
        del gymnasium.registry["Global-v0"]
