import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import CSVOutputFormat

from everlearn.core.errors import EverlearnError, NonFiniteError
from everlearn.ppo.algorithm import PPO
from everlearn.runs import train
from everlearn.runs.directory import RunDirectory
from everlearn.runs.recording import metric_logger
from everlearn.runs.writing import LineFile, save_agent, write_text, writing
from tests.runs.tiny import built, tiny


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_the_system_refuses_to_write_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "file"
    writes: list[Callable[[], object]] = [
        lambda: LineFile(missing),
        lambda: write_text(missing, ""),
        lambda: metric_logger(RunDirectory(missing), tensorboard=False),
    ]
    for write in writes:
        with pytest.raises(EverlearnError, match=r"missing/file.*: it cannot be written \(No such file or directory\)"):
            write()


def test_a_record_that_finds_the_disk_full_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = metric_logger(RunDirectory(tmp_path), tensorboard=False)
    monkeypatch.setattr(logger.output_formats[1], "write", full)
    with pytest.raises(EverlearnError, match=rf"^{tmp_path}: it cannot be written \(No space left on device\)"):
        logger.dump(1)
    logger.close()


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "rows.csv")
    file.write("a,b\n")
    assert (tmp_path / "rows.csv").read_text() == "a,b\n"
    file.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_line_that_finds_the_disk_full_names_the_file() -> None:
    file = LineFile(Path("/dev/full"))
    with pytest.raises(EverlearnError, match=r"^/dev/full: it cannot be written \(No space left on device\)"):
        file.write("a,b\n")
    with pytest.raises(EverlearnError):
        file.close()


def test_an_agent_that_cannot_be_saved_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, model = built(), tmp_path / "model.zip"
    save_agent(agent, model)
    before = model.read_bytes()

    def cut_short(self: PPO, path: Path) -> None:
        path.write_bytes(b"the first half")
        full()

    monkeypatch.setattr(PPO, "save", cut_short)
    with pytest.raises(EverlearnError, match=rf"^{model}: it cannot be written \(No space left on device\)"):
        save_agent(agent, model)
    assert model.read_bytes() == before
    assert list(tmp_path.iterdir()) == [model]


def test_a_kill_while_the_best_agent_is_saved_leaves_the_best_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no moment is a file of the run's own names anything but a whole agent."""
    seen: list[str] = []
    save = PPO.save

    def watched(self: PPO, path: Path) -> None:
        save(self, path)
        seen.append(Path(path).name)

    monkeypatch.setattr(PPO, "save", watched)
    run = train(tiny(**{"evaluation.every": 16, "evaluation.episodes": 1}), tmp_path / "run")
    assert set(seen) == {"best_model.unfinished.zip", "model.unfinished.zip"}
    assert not list(run.path.glob("*.unfinished.zip"))
    assert run.load("best").num_timesteps == run.summary.best.env_step


def test_records_that_cannot_be_closed_do_not_cost_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = CSVOutputFormat.close
    monkeypatch.setattr(CSVOutputFormat, "close", lambda self: (close(self), full()))
    with pytest.raises(EverlearnError, match=rf"^{tmp_path / 'run'}: it cannot be written \(No space left") as error:
        train(tiny(), tmp_path / "run")
    assert PPO.load(tmp_path / "run" / "model.zip").num_timesteps == 64
    assert "The agent as it was then is saved" in error.value.__notes__[0]


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError), writing(tmp_path):
        raise NonFiniteError("not finite")
