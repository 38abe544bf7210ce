"""Model files that are damaged, missing, or of a run that was killed."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from everlearn.checkpoint.errors import CheckpointError, Corrupt, NoValidCheckpoint, Truncated, Untrusted
from everlearn.core.errors import ConfigError, StateError
from everlearn.runs import Run, convert, evaluate_saved, train
from everlearn.runs.model_files import loaded_agent
from tests.runs.tiny import tiny


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with several checkpoints."""
    settings = {"env.id": "Pendulum-v1", "checkpoint.every": 16, "env.wrappers": [], "env.normalize": True}
    return train(tiny(**settings), tmp_path_factory.mktemp("long") / "run")


@pytest.fixture
def copy(long: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(long.path, tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def newest(run: Run) -> list[Path]:
    """The checkpoints, the newest first."""
    return sorted(run.directory.checkpoints.glob("*.zip"), reverse=True)


def test_the_latest_agent_is_the_one_at_the_end(copy: Run) -> None:
    copy.directory.checkpoints.rename(copy.path / "away")
    assert copy.load("latest").num_timesteps == 64


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b""), lambda path: path.write_text("x")])
def test_a_damaged_model_is_set_aside_and_the_newest_checkpoint_taken(
    copy: Run, damage: Callable[[Path], object]
) -> None:
    """Rows 1 and 2 of the failure modes: nothing is lost, and nothing is deleted."""
    damage(copy.directory.model)
    damaged = copy.directory.model.read_bytes()
    with pytest.warns(UserWarning, match=r"model\.zip.*It is kept as .*\.corrupt\. The checkpoint of step 64 is used"):
        agent = copy.load("latest")
    assert agent.num_timesteps == 64
    assert not copy.directory.model.exists()
    assert (copy.path / "model.zip.corrupt").read_bytes() == damaged
    with pytest.warns(
        UserWarning, match=r"no model\.zip: it was damaged and is kept as .*\.corrupt\. Its checkpoint of"
    ):
        copy.load("latest")


def test_a_file_that_cannot_be_set_aside_is_passed_over_all_the_same(
    copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, os.strerror(30))

    flip(copy.directory.model)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.warns(UserWarning, match=r"It could not be set aside \(Read-only file system\)"):
        assert copy.load("latest").num_timesteps == 64


def test_a_killed_run_is_used_from_its_newest_checkpoint(copy: Run) -> None:
    """Row 15 of the failure modes: at most an interval is lost, and a warning says from which step the agent is."""
    copy.directory.model.unlink()
    uses: list[Callable[[], object]] = [
        lambda: copy.load("latest"),
        lambda: copy.environment(),
        lambda: evaluate_saved(copy.path, episodes=1),
    ]
    for use in uses:
        with pytest.warns(UserWarning, match=r"has no model\.zip: the run goes on.*checkpoint of step 64 is used\."):
            use()


def test_damaged_checkpoints_of_a_killed_run_are_passed_over_with_the_steps_lost(copy: Run) -> None:
    """Rows 1, 2 and 18 of the failure modes."""
    copy.directory.model.unlink()
    first, second = newest(copy)[:2]
    cut(first), flip(second)
    with pytest.warns(UserWarning) as warned:
        assert copy.load("latest").num_timesteps == 32
    told = "\n".join(str(warning.message) for warning in warned)
    assert "32 steps earlier" in told
    assert str(first) in told
    assert str(second) in told
    assert "checkpoint of step 32 is used" in told
    assert [path.name for path in newest(copy)] == ["step-000000000032.zip"]


def test_where_all_is_damaged_every_reason_is_named(copy: Run) -> None:
    """Row 18 of the failure modes."""
    for path in (copy.directory.model, *newest(copy)):
        flip(path)
    with pytest.raises(NoValidCheckpoint) as error:
        copy.load("latest")
    assert len(error.value.reasons) == 4
    assert str(copy.directory.model) in error.value.reasons[0]
    assert copy.directory.model.exists()


@pytest.mark.parametrize(("damage", "kind"), [(cut, Truncated), (flip, Corrupt)])
def test_without_checkpoints_a_damaged_model_is_the_error_and_stays(
    copy: Run, damage: Callable[[Path], None], kind: type[CheckpointError]
) -> None:
    shutil.rmtree(copy.directory.checkpoints)
    damage(copy.directory.model)
    for opened in (lambda: evaluate_saved(copy.path), lambda: copy.load("latest")):
        with pytest.raises(kind, match=r"model\.zip"):
            opened()
    assert copy.directory.model.exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_says_so(copy: Run) -> None:
    copy.directory.model.unlink()
    shutil.rmtree(copy.directory.checkpoints)
    for opened in (lambda: evaluate_saved(copy.path), lambda: copy.load("latest"), lambda: copy.environment()):
        with pytest.raises(ConfigError, match=r"none, and no checkpoint\. .*Train again: everlearn train"):
            opened()


def test_a_damaged_best_checkpoint_gives_way_to_the_next_best(tmp_path: Path) -> None:
    run = train(tiny(**{"checkpoint.every": 16, "checkpoint.keep_last": 9}), tmp_path / "run")
    best = run.load("best").num_timesteps
    flip(run.directory.checkpoints / f"step-{best:012d}.zip")
    with pytest.warns(UserWarning, match="passed over"):
        assert run.load("best").num_timesteps != best


def test_a_best_that_is_damaged_throughout_is_an_error(tmp_path: Path) -> None:
    run = train(tiny(), tmp_path / "run")
    flip(newest(run)[0])
    with pytest.raises(NoValidCheckpoint, match="its SHA-256 is"):
        run.load("best")


def test_a_flipped_byte_anywhere_is_an_error(copy: Run) -> None:
    """Row 2 of the failure modes."""
    model = copy.directory.model
    whole = model.read_bytes()
    for position in range(3, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        model.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            loaded_agent(model, "cpu")


def test_a_file_that_may_not_be_read_is_named(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "open", refuse)
    for opened in (lambda: loaded_agent(copy.directory.model, "cpu"), lambda: copy.load("latest")):
        with pytest.raises(StateError, match=r"model\.zip: it cannot be read \(Permission denied\)"):
            opened()
    assert copy.directory.model.exists()


def test_environments_have_the_statistics_of_the_model_that_was_asked_for(tmp_path: Path) -> None:
    normalised = {"env.id": "Pendulum-v1", "env.normalize": True, "evaluation.every": 16, "evaluation.episodes": 1}
    run = train(tiny(**normalised), tmp_path / "run")
    best, latest = run.load("best"), run.load("latest")
    assert best.num_timesteps < latest.num_timesteps
    for which, agent in (("best", best), ("latest", latest)):
        venv = run.environment(seed=5, which=which)
        observations = venv.reset()
        assert (observations == agent.normalize_obs(venv.get_original_obs())).all()
    run.directory.model.unlink()
    run.environment(which="best").reset()


def test_the_agent_of_a_checkpoint_is_the_one_of_its_step(copy: Run) -> None:
    at_the_end, checkpoint = copy.load("latest"), loaded_agent(newest(copy)[0], "cpu")
    for name, value in at_the_end.policy.state_dict().items():
        assert torch.equal(checkpoint.policy.state_dict()[name], value)


def test_what_was_set_aside_before_is_told_again(copy: Run) -> None:
    """Row 18 of the failure modes: the second call knows as much as the first."""
    damaged = newest(copy)
    for path in damaged:
        flip(path)
    copy.directory.model.rename(copy.path / "model.zip.corrupt")
    asked: list[Callable[[], object]] = [lambda: copy.load("latest"), lambda: copy.load("best")]
    for again in [*asked, *asked]:
        with pytest.raises(NoValidCheckpoint) as error:
            again()
        told = "\n".join(error.value.reasons)
        assert all(told.count(f"{path}.corrupt") == 1 for path in damaged)
    assert not newest(copy)
    with pytest.raises(NoValidCheckpoint, match=r"model\.zip\.corrupt: it was damaged and is set aside"):
        copy.load("latest")


def test_a_damaged_model_beside_what_was_set_aside_names_both(copy: Run) -> None:
    for path in newest(copy):
        path.rename(f"{path}.corrupt")
    flip(copy.directory.model)
    with pytest.raises(NoValidCheckpoint) as error:
        copy.load("latest")
    assert str(copy.directory.model) in error.value.reasons[0]
    assert [reason.count(".corrupt: it was damaged") for reason in error.value.reasons[1:]] == [1, 1, 1]


def test_a_model_that_is_not_trusted_names_the_newest_checkpoint(copy: Run) -> None:
    """Row 5 of the failure modes: nothing of it runs, and what can be used is said."""
    shutil.copy(Path(__file__).parents[1] / "data" / "sb3" / "ppo.zip", copy.directory.model)
    checkpoint = newest(copy)[0]
    with pytest.raises(Untrusted) as error:
        copy.load("latest")
    assert f"The run's newest checkpoint is {checkpoint}: name that, or move" in error.value.__notes__[-1]
    shutil.rmtree(copy.directory.checkpoints)
    with pytest.raises(Untrusted) as error:
        copy.load("latest")
    assert not any("checkpoint" in note for note in getattr(error.value, "__notes__", []))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """Opening it would wait for somebody to write."""
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)
    uses: list[Callable[[], object]] = [
        lambda: loaded_agent(pipe, "cpu"),
        lambda: evaluate_saved(pipe, env_id="CartPole-v1"),
        lambda: evaluate_saved(pipe, which="best"),
        lambda: convert(pipe, tmp_path / "out.zip", settings={"env.id": "CartPole-v1"}),
    ]
    for use in uses:
        with pytest.raises(ConfigError, match=r"pipe\.zip: this is a pipe or a device. Name a regular file."):
            use()


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/model.zip"])
def test_a_name_that_is_too_long_is_told_by_all_that_read_models(name: str, tmp_path: Path) -> None:
    uses: list[Callable[[], object]] = [
        lambda: loaded_agent(tmp_path / name, "cpu"),
        lambda: evaluate_saved(tmp_path / name, env_id="CartPole-v1"),
        lambda: evaluate_saved(tmp_path / name, which="best"),
        lambda: convert(tmp_path / name, tmp_path / "out.zip", settings={"env.id": "CartPole-v1"}),
    ]
    for use in uses:
        with pytest.raises(StateError, match=rf"it cannot be read \({os.strerror(errno.ENAMETOOLONG)}\)"):
            use()
