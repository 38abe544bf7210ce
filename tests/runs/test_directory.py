import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.config import HEADER
from everlearn.core.errors import ConfigError
from everlearn.runs.directory import RunDirectory, claim, claim_next

LOCK_FILES = {".lock", ".lock.json"}


def claimed(path: Path, *, overwrite: bool = False) -> Path:
    with claim(path, overwrite=overwrite) as directory:
        return directory.path


def claimed_next(parent: Path, name: str) -> Path:
    with claim_next(parent, name) as directory:
        return directory.path


def files(path: Path) -> set[str]:
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    return found - LOCK_FILES


def test_new_directories_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "ALE-Pong-v5-PPO-1").mkdir()
    assert claimed_next(tmp_path, "ALE/Pong-v5-PPO") == tmp_path / "ALE-Pong-v5-PPO-2"
    assert claimed_next(tmp_path, "ALE/Pong-v5-PPO") == tmp_path / "ALE-Pong-v5-PPO-3"


def test_an_empty_directory_can_be_claimed_and_a_missing_one_is_made(tmp_path: Path) -> None:
    assert claimed(tmp_path / "a" / "b").is_dir()
    (tmp_path / "empty").mkdir()
    assert claimed(tmp_path / "empty") == tmp_path / "empty"


def test_a_directory_that_was_claimed_and_never_used_can_be_claimed_again(tmp_path: Path) -> None:
    """What the lock leaves behind is nobody's work."""
    claimed(tmp_path / "run")
    assert claimed(tmp_path / "run") == tmp_path / "run"


def test_a_directory_in_use_is_refused_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(HEADER)
    with pytest.raises(ConfigError, match=r"is not empty.*--overwrite \(in Python another out, or overwrite=True\)"):
        claimed(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == HEADER


def test_overwriting_removes_the_runs_files_and_no_others(tmp_path: Path) -> None:
    own = [
        "model.zip",
        "model.zip.corrupt",
        "model.zip.corrupt-1",
        "progress.csv",
        "progress.jsonl",
        "episodes.csv",
        "learning_curve.png",
        "summary.json",
        "evaluations.csv",
        ".tmp-model.zip-1-a",
        "checkpoints/step-000000000012.zip",
        "checkpoints/step-000000000013.zip.corrupt",
        "checkpoints/.tmp-step-000000000014.zip-1-a",
        "tb/events.out.tfevents.1",
    ]
    foreign = {"notes.txt", "tb/notes.txt", "checkpoints/notes.txt"}
    (tmp_path / "config.yaml").write_text(HEADER)
    for name in [*own, *foreign]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept?")
    claimed(tmp_path, overwrite=True)
    assert files(tmp_path) == foreign


@pytest.mark.parametrize("config", [None, b"env: {id: mine}\n", b"\xff\xfe"])
@pytest.mark.parametrize(("overwrite", "reason"), [(True, "holds other files and no run"), (False, "is not empty")])
def test_a_directory_that_is_no_run_is_never_touched(
    tmp_path: Path, config: bytes | None, overwrite: bool, reason: str
) -> None:
    (tmp_path / "model.zip").write_text("mine")
    if config is not None:
        (tmp_path / "config.yaml").write_bytes(config)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=reason):
        claimed(tmp_path, overwrite=overwrite)
    assert (tmp_path / "model.zip").read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == before


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*/file/run: the directory cannot be made \(Not a directory\)"):
        claimed(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match=r"--out .*/file/run-1: the directory cannot be made"):
        claimed_next(tmp_path / "file", "run")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"this is a file. Name a directory"):
        claimed(tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("overwrite", [True, False])
def test_while_one_writes_a_run_another_is_refused_before_anything_is_removed(tmp_path: Path, overwrite: bool) -> None:
    """Row 17 of the failure modes: the message names process and host."""
    with claim(tmp_path / "run", overwrite=False) as directory:
        directory.config.write_text(HEADER)
        directory.model.write_text("half an agent")
        holder = f"process {os.getpid()} on {os.uname().nodename}"
        with pytest.raises(ConfigError, match=f"run is being written by {holder}"):
            claimed(tmp_path / "run", overwrite=overwrite)
        assert files(tmp_path / "run") == {"config.yaml", "model.zip"}
    assert files(claimed(tmp_path / "run", overwrite=True)) == set()


def test_a_directory_whose_process_was_killed_can_be_claimed_at_once(tmp_path: Path) -> None:
    """Row 17 of the failure modes: the lock of a dead process is nobody's."""
    program = "import os, signal, sys; from pathlib import Path; from everlearn.runs.directory import claim\n"
    program += "with claim(Path(sys.argv[1]), overwrite=False): os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "run" / ".lock.json").is_file()
    assert claimed(tmp_path / "run") == tmp_path / "run"


def test_a_new_directory_is_locked_too(tmp_path: Path) -> None:
    with claim_next(tmp_path, "run") as directory, pytest.raises(ConfigError, match="is being written by process"):
        claimed(directory.path)


def test_a_run_knows_its_files_from_the_lock(tmp_path: Path) -> None:
    with claim(tmp_path / "run", overwrite=False) as directory:
        assert RunDirectory(directory.path).foreign() == []
        (directory.path / "notes.txt").write_text("")
        assert [path.name for path in directory.foreign()] == ["notes.txt"]


def test_what_is_left_of_a_run_half_removed_is_a_run_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration goes last, after everything else, empty directories too."""
    for name in ("config.yaml", "model.zip", "tb/events.out.tfevents.1", "checkpoints/step-000000000012.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(HEADER)
    unlink, removed = Path.unlink, []

    def observe(path: Path, **options: bool) -> None:
        if path.parent == tmp_path:
            removed.append(path.name)
        assert path.name != "config.yaml" or sorted(
            each.name for each in tmp_path.iterdir() if each.name[0] != "."
        ) == ["config.yaml"]
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", observe)
    claimed(tmp_path, overwrite=True)
    assert [name for name in removed if name[0] != "."] == ["model.zip", "config.yaml"]


def test_unfinished_files_make_no_directory_foreign(tmp_path: Path) -> None:
    """Whoever was killed while he claimed it has left nothing that is worth keeping."""
    (tmp_path / ".tmp-.lock.json-1-abcd").write_text("half")
    (tmp_path / ".lock").write_text("")
    assert RunDirectory(tmp_path).foreign() == []
    assert claimed(tmp_path) == tmp_path


def test_what_is_no_run_any_more_once_the_lock_is_held_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.yaml", "model.zip"):
        (tmp_path / name).write_text(HEADER)
    monkeypatch.setattr("everlearn.runs.directory.sweep", lambda path: (path / "config.yaml").unlink())
    with pytest.raises(ConfigError, match="holds other files and no run"):
        claimed(tmp_path, overwrite=True)
    assert files(tmp_path) == {"model.zip"}


@pytest.mark.parametrize("name", ["a" * 300, "a" * 300 + "/run"])
def test_a_name_that_is_too_long_is_a_directory_that_cannot_be_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"the directory cannot be made \({os.strerror(errno.ENAMETOOLONG)}\)"):
        claimed(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
