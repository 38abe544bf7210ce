from pathlib import Path

import pytest

from everlearn.config import HEADER
from everlearn.core.errors import ConfigError
from everlearn.runs.directory import claim, claim_next


def test_new_directories_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "ALE-Pong-v5-PPO-1").mkdir()
    assert claim_next(tmp_path, "ALE/Pong-v5-PPO").path == tmp_path / "ALE-Pong-v5-PPO-2"
    assert claim_next(tmp_path, "ALE/Pong-v5-PPO").path == tmp_path / "ALE-Pong-v5-PPO-3"


def test_an_empty_directory_can_be_claimed_and_a_missing_one_is_made(tmp_path: Path) -> None:
    assert claim(tmp_path, overwrite=False).path == tmp_path
    assert claim(tmp_path / "a" / "b", overwrite=False).path.is_dir()


def test_a_directory_in_use_is_refused_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(HEADER)
    with pytest.raises(ConfigError, match=r"is not empty.*--overwrite \(in Python another out, or overwrite=True\)"):
        claim(tmp_path, overwrite=False)
    assert (tmp_path / "config.yaml").read_text() == HEADER


def test_overwriting_removes_the_runs_files_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "tb").mkdir()
    own = [
        "model.zip",
        "progress.csv",
        "progress.jsonl",
        "episodes.csv",
        "learning_curve.png",
        "summary.json",
        "evaluations.csv",
        "best_model.zip",
        "model.unfinished.zip",
        "best_model.unfinished.zip",
        "tb/events.out.tfevents.1",
    ]
    foreign = ["notes.txt", "tb/notes.txt"]
    (tmp_path / "config.yaml").write_text(HEADER)
    for name in own + foreign:
        (tmp_path / name).write_text("kept?")
    claim(tmp_path, overwrite=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(foreign)


@pytest.mark.parametrize("config", [None, b"env: {id: mine}\n", b"\xff\xfe"])
def test_a_directory_that_is_no_run_is_never_overwritten(tmp_path: Path, config: bytes | None) -> None:
    (tmp_path / "model.zip").write_text("mine")
    if config is not None:
        (tmp_path / "config.yaml").write_bytes(config)
    with pytest.raises(ConfigError, match="holds other files and no run"):
        claim(tmp_path, overwrite=True)
    assert (tmp_path / "model.zip").read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*/file/run: the directory cannot be made \(Not a directory\)"):
        claim(tmp_path / "file" / "run", overwrite=False)
    with pytest.raises(ConfigError, match=r"--out .*/file/run-1: the directory cannot be made"):
        claim_next(tmp_path / "file", "run")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"this is a file. Name a directory"):
        claim(tmp_path / "file", overwrite=True)
