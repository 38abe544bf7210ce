"""Checkpoints while an agent trains."""

import errno
import itertools
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from everlearn.checkpoint.archive import read_archive
from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import observed
from everlearn.checkpoint.store import Checkpoint, CheckpointStore, Retention
from everlearn.config import CheckpointConfig
from everlearn.core.errors import NonFiniteError
from everlearn.core.stateful import Role
from everlearn.report import Silent
from everlearn.runs import Run, train
from everlearn.runs.checkpointing import CheckpointWriter
from tests.runs.tiny import Recorded, built, tiny

SILENT = {"logging.evaluation_episodes": 0, "logging.baseline_episodes": 0}


def trained(out: Path, **settings: Any) -> Run:
    return train(tiny(**{**SILENT, **settings}), out)


def steps(run: Run | Path) -> list[int]:
    directory = run.directory.checkpoints if isinstance(run, Run) else run
    return [checkpoint.step for checkpoint in CheckpointStore(directory).checkpoints()]


def test_checkpoints_come_at_the_first_rollout_after_each_interval_and_at_the_end(tmp_path: Path) -> None:
    keeping = {"checkpoint.keep_last": 99, "total_timesteps": 96}
    assert steps(trained(tmp_path / "a", **keeping, **{"checkpoint.every": 20})) == [32, 48, 64, 80, 96]
    assert steps(trained(tmp_path / "b", **keeping, **{"checkpoint.every": 50})) == [64, 96]
    assert steps(trained(tmp_path / "c", **keeping, **{"checkpoint.every": 1000})) == [96]
    assert steps(trained(tmp_path / "d", **keeping, **{"checkpoint.every": 0})) == []


def test_which_stay_is_what_the_configuration_says(tmp_path: Path) -> None:
    few = {"checkpoint.every": 16, "checkpoint.keep_last": 2, "checkpoint.keep_best": 0, "checkpoint.keep_every": 40}
    assert steps(trained(tmp_path / "run", **few, total_timesteps=128)) == [48, 80, 112, 128]


def test_training_is_the_same_bit_for_bit_with_checkpoints_and_without(tmp_path: Path) -> None:
    whole = {"env.id": "Pendulum-v1", "env.normalize": True, "name": "DistributionalPPO", "kl_penalty": True}
    often, never = (trained(tmp_path / f"{n}", **whole, **{"checkpoint.every": n}) for n in (16, 0))
    for part, state in never.model.get_parameters().items():
        for name, value in state.items():
            other = often.model.get_parameters()[part][name]
            assert torch.equal(other, value) if isinstance(value, torch.Tensor) else str(other) == str(value)
    assert often.episodes()["return"] == never.episodes()["return"]


def test_a_checkpoint_holds_the_state_of_all_roles_and_is_a_model(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    archive = read_archive(run.directory.checkpoints / "step-000000000064.zip")
    assert (archive.manifest["kind"], archive.manifest["step"]) == ("checkpoint", 64)
    members, _ = run.model.file_contents(tuple(Role))
    assert set(archive.members) == set(members)
    assert "generators.json" in members


def test_the_score_is_the_mean_return_of_the_last_training_episodes(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", **{"checkpoint.every": 16, "checkpoint.keep_last": 9, "env.id": "CartPole-v1"})
    found = CheckpointStore(run.directory.checkpoints).checkpoints()
    episodes = run.episodes()
    for checkpoint in found:
        before = [
            r for r, step in zip(episodes["return"], episodes["env_step"], strict=True) if step <= checkpoint.step
        ]
        assert checkpoint.performance == (pytest.approx(np.mean(before)) if before else None)
    assert any(checkpoint.performance is None for checkpoint in found) or len(found) == 4
    assert found[-1].performance is not None


def test_with_evaluation_its_mean_return_is_the_score_and_only_there(tmp_path: Path) -> None:
    both = {"checkpoint.every": 16, "checkpoint.keep_last": 9, "evaluation.every": 32, "env.id": "Pendulum-v1"}
    run = trained(tmp_path / "run", **both)
    found = {each.step: each.performance for each in CheckpointStore(run.directory.checkpoints).checkpoints()}
    evaluated = run.evaluations()
    scores = dict(zip(evaluated["env_step"], evaluated["mean_reward"], strict=True))
    assert found == {16: None, 32: scores[32], 48: None, 64: scores[64]}


class Scored(BaseCallback):
    """Evaluations whose results are known beforehand."""

    def __init__(self, scores: list[float | None]) -> None:
        super().__init__()
        self.now: float | None = None
        self._scores = iter(scores)

    def _on_rollout_start(self) -> None:
        self.now = next(self._scores)

    def _on_training_end(self) -> None:
        self.now = next(self._scores)

    def _on_step(self) -> bool:
        return True


def scored(tmp_path: Path, scores: list[float | None], **config: Any) -> list[int]:
    """Steps of the checkpoints; the agent has one score before each rollout of 16 steps, and one at the end."""
    evaluation = Scored(scores)
    store = CheckpointStore(tmp_path, Retention(keep_last=9))
    writer = CheckpointWriter(CheckpointConfig(**config), store, Silent(), lambda: evaluation.now)
    built().learn(16 * (len(scores) - 1), [evaluation, writer])
    return steps(tmp_path)


def test_the_best_so_far_gets_a_checkpoint_at_once(tmp_path: Path) -> None:
    scores = [None, 1.0, 0.5, 2.0, None, 2.0]
    kept = {"keep_best": 9}
    assert scored(tmp_path / "a", scores, every=0, **kept) == [16, 48, 80]
    assert scored(tmp_path / "b", scores, every=1000, **kept) == [16, 48, 80]
    assert scored(tmp_path / "c", scores, every=32, **kept) == [16, 32, 48, 64, 80]


def test_the_best_gets_none_where_the_best_are_not_kept(tmp_path: Path) -> None:
    assert scored(tmp_path, [None, 1.0, 2.0], every=0, keep_best=0) == []


def test_the_best_of_a_run_is_the_best_of_its_evaluations_and_of_equals_the_later(tmp_path: Path) -> None:
    frozen = {"optimizer_kwargs": {"lr": 0.0}, "optimizer_class": "sgd", "env.id": "Pendulum-v1"}
    run = trained(tmp_path / "run", **frozen, **{"evaluation.every": 16, "env.normalize": False})
    assert run.summary.best is not None
    assert run.summary.best.env_step == run.load("best").num_timesteps == 64


# --- failures ---------------------------------------------------------------------------------------------------------


def full(failing: Callable[[int], bool], tried: list[int]) -> Callable[[str, Path], None]:
    """A disk that is full for some of the tries to write a checkpoint."""

    def hook(name: str, path: Path) -> None:
        if name == "save:create" and path.parent.name == "checkpoints":
            tried.append(int(path.name.split("-")[2].removesuffix(".zip")))
            if failing(len(tried)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return hook


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_tried_after_1_2_4_rollouts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 14 of the failure modes: the earlier stays, training goes on, nothing is left over."""
    display, tried = Recorded(), []
    config = tiny(**SILENT, **{"checkpoint.every": 16, "checkpoint.keep_last": 9, "total_timesteps": 16 * 12})
    with observed(full(lambda number: 2 <= number <= 5, tried)), caplog.at_level(logging.WARNING):
        run = train(config, tmp_path / "run", display=display)
    failed = [32, 48, 80, 144]
    assert list(dict.fromkeys(tried)) == [16, *failed, 192]
    assert steps(run) == [16, 192]
    assert run.summary.steps == 192
    assert run.load("latest").num_timesteps == 192
    warnings = [record.getMessage() for record in caplog.records]
    shown = [text.removeprefix("warning: ") for text in display.announced if text.startswith("warning: ")]
    assert warnings == shown
    for step, text, wait in zip(
        failed, warnings, ("one rollout", "2 rollouts", "4 rollouts", "8 rollouts"), strict=True
    ):
        assert text.startswith(f"No checkpoint at step {step}: {run.directory.checkpoints}/step-{step:012d}.zip")
        assert "No space left on device" in text
        assert f"it is tried again in {wait}; after 20 failures in a row it stops." in text
    assert not list(run.path.rglob(".tmp-*"))


def test_after_some_failures_in_a_row_training_stops_with_the_error(tmp_path: Path) -> None:
    """Row 14 of the failure modes; the agent as it was then is saved all the same."""
    tried: list[int] = []
    config = tiny(**SILENT, **{"checkpoint.every": 16, "checkpoint.max_failures": 2, "total_timesteps": 1600})
    with (
        observed(full(lambda number: number > 1, tried)),
        pytest.raises(SaveError, match=r"step-000000000048\.zip: it cannot be written \(No space left") as error,
    ):
        train(config, tmp_path / "run")
    assert error.value.__notes__ == [
        "This was failure 2 in a row, so training stops (checkpoint.max_failures).",
        f"The agent as it was then is saved in {tmp_path / 'run' / 'model.zip'}.",
    ]
    assert steps(tmp_path / "run" / "checkpoints") == [16]
    assert Run(tmp_path / "run").load("latest").num_timesteps == 48


def test_a_checkpoint_that_fails_at_the_end_is_a_warning_where_the_agent_itself_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []
    with observed(full(lambda number: True, tried)), caplog.at_level(logging.WARNING):
        run = trained(tmp_path / "run", **{"checkpoint.max_failures": 1})
    assert run.load("latest").num_timesteps == 64
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    assert "Training has ended; the agent itself is saved next." in record.getMessage()


def test_failures_are_counted_in_a_row(tmp_path: Path) -> None:
    tried: list[int] = []
    often = {"checkpoint.every": 16, "checkpoint.max_failures": 2, "total_timesteps": 160, "checkpoint.keep_last": 9}
    with observed(full(lambda number: number % 2 == 0, tried)):
        assert trained(tmp_path / "run", **often).summary.steps == 160


def test_a_best_agent_that_could_not_be_kept_does_not_hide_the_next(tmp_path: Path) -> None:
    tried: list[int] = []
    with observed(full(lambda number: number == 1, tried)):
        found = scored(tmp_path / "checkpoints", [None, 5.0, 1.0, 0.5], every=0)
    assert (tried[0], found) == (16, [32])


def test_a_failing_final_save_is_an_error_that_names_the_checkpoint_before(tmp_path: Path) -> None:
    """Row 14 of the failure modes: the last word is never lost in silence, and the checkpoints stay."""

    def hook(name: str, path: Path) -> None:
        if name == "save:fsync" and "model.zip" in path.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with observed(hook), pytest.raises(SaveError, match=r"model\.zip: it cannot be written") as error:
        trained(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000000000064.zip"
    assert error.value.__notes__ == [
        f"The last checkpoint is {checkpoint}; everlearn evaluate with the run's directory takes it, and so does "
        "Run(...).load()."
    ]
    with pytest.warns(UserWarning, match="checkpoint of step 64 is used"):
        assert Run(tmp_path / "run").load("latest").num_timesteps == 64


class Spoiler(BaseCallback):
    """Makes a parameter NaN at a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def _on_step(self) -> bool:
        if self.num_timesteps == self._step:
            with torch.no_grad():
                next(iter(self.model.policy.parameters())).fill_(torch.nan)
            return False
        return True


def test_an_agent_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    """Row 13 of the failure modes, its last clause: the last checkpoint stays the latest."""
    config = tiny(**SILENT, **{"checkpoint.every": 16})
    with pytest.raises(NonFiniteError) as error:
        train(config, tmp_path / "run", callback=Spoiler(40))
    assert "step-000000000032.zip" in error.value.__notes__[0]
    assert not (tmp_path / "run" / "model.zip").exists()
    run = Run(tmp_path / "run")
    with pytest.warns(UserWarning, match="checkpoint of step 32 is used"):
        agent = run.load("latest")
    assert all(bool(torch.isfinite(value).all()) for value in agent.policy.state_dict().values())


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    """Row 15 of the failure modes."""
    (tmp_path / ".tmp-step-000000000001.zip-999999999-abcd").write_text("half")
    writer = CheckpointWriter(CheckpointConfig(), CheckpointStore(tmp_path), Silent())
    built().learn(16, writer)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000016.zip"]


def test_an_old_checkpoint_that_cannot_be_deleted_ends_nothing(tmp_path: Path) -> None:
    def hook(name: str, path: Path) -> None:
        if name == "prune:remove":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    often = {"checkpoint.every": 16, "checkpoint.keep_last": 1, "total_timesteps": 80}
    with observed(hook), pytest.warns(UserWarning, match="Permission denied"):
        run = trained(tmp_path / "run", **often)
    assert run.summary.steps == 80


class Refusing(CheckpointStore):
    """One whose disk is full until a step."""

    def __init__(self, directory: Path, until: float) -> None:
        super().__init__(directory, Retention(keep_last=99))
        self.tried: list[int] = []
        self._until = until

    def save(self, step: int, *content: Any) -> Checkpoint:
        self.tried.append(step)
        if step < self._until:
            raise SaveError(self.path_of(step), "No space left on device")
        return super().save(step, *content)


def rollouts_tried(store: Refusing, rollouts: int, **config: Any) -> list[int]:
    """Rollouts before which a checkpoint was tried, with an agent that does not learn."""
    writer = CheckpointWriter(CheckpointConfig(every=16, **config), store, Silent())
    writer.model = built()
    for rollout in range(1, rollouts + 1):
        writer.num_timesteps = 16 * rollout
        writer.on_rollout_start()
    return [step // 16 for step in store.tried]


def test_pauses_double_up_to_64_rollouts_and_the_20th_failure_ends_training(tmp_path: Path) -> None:
    store = Refusing(tmp_path, math.inf)
    with pytest.raises(SaveError, match="No space left") as error:
        rollouts_tried(store, 2000)
    gaps = [(later - earlier) // 16 for earlier, later in itertools.pairwise(store.tried)]
    assert gaps == [1, 2, 4, 8, 16, 32, *[64] * 13]
    assert "This was failure 20 in a row" in error.value.__notes__[0]


def test_a_disk_that_is_full_for_hundreds_of_rollouts_ends_no_training(tmp_path: Path) -> None:
    """Row 14 of the failure modes: room is found within 64 rollouts."""
    tried = rollouts_tried(Refusing(tmp_path, 16 * 500), 600)
    assert 500 <= min(rollout for rollout in tried if rollout >= 500) < 564
    assert steps(tmp_path)[0] == 16 * min(rollout for rollout in tried if rollout >= 500)
