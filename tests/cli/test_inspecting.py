"""``everlearn inspect``: what it says of files and runs, and that it runs nothing of theirs."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.store import CheckpointStore
from everlearn.cli import app
from everlearn.ppo.algorithm import PPO, DistributionalPPO

DATA = Path(__file__).parents[1] / "data"


def everlearn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def inspected(path: Path) -> dict[str, Any]:
    result = everlearn("inspect", path, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[PPO, Path]:
    agent = DistributionalPPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, gamma=0.97, seed=0, device="cpu")
    path = tmp_path_factory.mktemp("saved") / "agent.zip"
    agent.learn(16).save(path)
    return agent, path


@pytest.fixture
def run(saved: tuple[PPO, Path], tmp_path: Path) -> Path:
    """A directory as a run leaves it: three checkpoints, the second one the best."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for step, performance in ((16, 1.0), (32, 3.0), (48, None)):
        store.save(step, *saved[0].file_contents(), performance=performance)
    shutil.copy(saved[1], tmp_path / "run" / "model.zip")
    return tmp_path / "run"


def test_a_file_of_ours_says_what_it_holds(saved: tuple[PPO, Path]) -> None:
    agent, path = saved
    report = inspected(path)
    archive = read_archive(path)
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (report["format"], report["kind"], report["algorithm"]) == ("everlearn_v3", "model", "DistributionalPPO")
    assert (report["step"], report["bytes"]) == (16, path.stat().st_size)
    assert report["weights"] == sum(value.numel() for value in agent.policy.state_dict().values())
    assert report["hyperparameters"]["gamma"] == 0.97
    assert (report["observation_space"], report["action_space"]) == (str(agent.observation_space), "Discrete(2)")
    assert report["members"] == archive.manifest["files"]
    assert report["resume"]["level"] == "weights"
    assert PPO.load(path, sha256=report["sha256"]).num_timesteps == 16


def test_the_same_is_shown_to_people(saved: tuple[PPO, Path]) -> None:
    report = inspected(saved[1])
    shown = everlearn("inspect", saved[1]).stdout
    assert f"{saved[1]}: everlearn_v3, whole" in shown
    for text in ("DistributionalPPO", report["sha256"], "Discrete(2)", f"{report['weights']:,}", "policy.safetensors"):
        assert text in shown
    assert "gamma                           0.97" in shown


def test_nothing_of_the_file_is_unpickled_and_no_model_is_built(saved: tuple[PPO, Path]) -> None:
    program = "import sys; from everlearn.cli import app; app(sys.argv[1:], standalone_mode=False); "
    program += "sys.exit(any(name in sys.modules for name in ('torch', 'stable_baselines3', 'cloudpickle')))"
    for path in (saved[1], DATA / "sb3" / "ppo.zip"):
        command = [sys.executable, "-c", program, "inspect", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_what_a_file_says_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    about = {"kind": "model\x1b]0;owned\x07", "algorithm": "[red]PPO[/foo]\x1b[2J"}
    evil.write_bytes(b"".join(pack({"config.json": b"{}"}, about)))
    shown = everlearn("inspect", evil).stdout
    assert "[red]PPO[/foo]?[2J" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_a_zip_of_sb3_says_what_it_is_and_what_can_be_done() -> None:
    """Row 5 of the failure modes."""
    report = inspected(DATA / "sb3" / "ppo.zip")
    assert (report["format"], report["what"]) == (None, "a model file of Stable-Baselines3")
    assert report["stable_baselines3"] == "2.9.2"
    assert report["spaces"]["action_space"].startswith("Discrete")
    assert "clip_range" in report["pickled"]
    assert "everlearn convert" in report["remedy"]
    shown = everlearn("inspect", DATA / "sb3" / "ppo.zip").stdout
    assert "a model file of Stable-Baselines3, which everlearn does not load as it is" in shown
    assert report["sha256"] in shown
    assert "everlearn convert" in shown


@pytest.mark.parametrize("name", ["v1/bare.pth", "v2/complete.pth"])
def test_a_file_of_torch_says_what_can_be_done(name: str) -> None:
    assert "everlearn convert" in inspected(DATA / name)["remedy"]


@pytest.mark.parametrize("name", ["sb3/ppo.zip", "v2/complete.pth"])
def test_a_foreign_file_that_was_cut_is_exit_code_3(name: str, tmp_path: Path) -> None:
    """Row 1 of the failure modes."""
    (tmp_path / "cut").write_bytes((DATA / name).read_bytes()[:-100])
    result = everlearn("inspect", tmp_path / "cut")
    assert (result.exit_code, result.stdout) == (3, "")
    assert str(tmp_path / "cut") in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"just words", "a text"),
        (b"\x80\x04\x95\x00", "a pickle"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_of_no_use_is_an_error_that_says_what_it_is(tmp_path: Path, content: bytes | None, words: str) -> None:
    """Row 3 of the failure modes."""
    path = tmp_path / "file.zip"
    if content is not None:
        path.write_bytes(content)
    result = everlearn("inspect", path)
    assert result.exit_code == (2 if content is None else 3)
    assert words in result.stderr
    assert result.stdout == ""


def test_a_damaged_file_is_exit_code_3_with_the_place(saved: tuple[PPO, Path], tmp_path: Path) -> None:
    """Rows 1 and 2 of the failure modes."""
    content = bytearray(saved[1].read_bytes())
    (tmp_path / "cut.zip").write_bytes(content[:-10])
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.zip").write_bytes(content)
    for name, word in (("cut.zip", f"ends after {len(content) - 10} of {len(content)} bytes"), ("flipped.zip", "SHA")):
        result = everlearn("inspect", tmp_path / name, "--json")
        assert (result.exit_code, result.stdout) == (3, "")
        assert word in result.stderr


def test_a_run_is_a_table_of_its_checkpoints(run: Path) -> None:
    report = inspected(run)
    assert [(row["step"], row["performance"], row["damage"]) for row in report["checkpoints"]] == [
        (16, 1.0, None),
        (32, 3.0, None),
        (48, None, None),
    ]
    assert report["latest"] == str(run / "checkpoints" / "step-000000000048.zip")
    assert report["best"] == str(run / "checkpoints" / "step-000000000032.zip")
    assert report["model"]["damage"] is None
    lines = everlearn("inspect", run).stdout.splitlines()
    assert lines[0] == str(run)
    assert [line.split()[-1] for line in lines[3:5]] == ["best", "latest"]
    assert "model.zip: whole" in lines
    assert inspected(run / "checkpoints")["latest"] == report["latest"]


def test_damaged_checkpoints_of_a_run_are_shown_with_the_reason_and_stay_where_they_are(run: Path) -> None:
    """Row 18 of the failure modes: whoever looks changes nothing."""
    last = run / "checkpoints" / "step-000000000048.zip"
    last.write_bytes(last.read_bytes()[:-100])
    shutil.copy(last, run / "checkpoints" / "step-000000000064.zip.corrupt")
    report = inspected(run)
    assert "it ends after" in report["checkpoints"][-1]["damage"]
    assert report["latest"] == report["best"] == str(run / "checkpoints" / "step-000000000032.zip")
    assert report["set_aside"] == [str(run / "checkpoints" / "step-000000000064.zip.corrupt")]
    assert last.exists()
    shown = everlearn("inspect", run).stdout
    assert shown.splitlines()[4].split()[-1] == "damaged"
    assert f"damaged: {last}: it ends after" in shown
    assert "set aside: " in shown


def test_a_run_in_which_all_is_damaged_is_exit_code_3(run: Path) -> None:
    """Row 18 of the failure modes: every reason is named."""
    for path in run.rglob("*.zip"):
        path.write_bytes(path.read_bytes()[:-100])
    result = everlearn("inspect", run)
    assert result.exit_code == 3
    assert result.stderr.count("it ends after") == 4


def test_a_directory_without_agents_is_a_usage_error(tmp_path: Path) -> None:
    result = everlearn("inspect", tmp_path)
    assert result.exit_code == 2
    assert "there is neither a model.zip nor a checkpoint" in result.stderr


def test_a_policy_in_a_file_of_its_own_is_described(saved: tuple[PPO, Path], tmp_path: Path) -> None:
    saved[0].policy.save(tmp_path / "policy.zip")
    report = inspected(tmp_path / "policy.zip")
    assert (report["kind"], report["hyperparameters"]) == ("policy", None)
    assert report["weights"] > 0
    assert everlearn("inspect", tmp_path / "policy.zip").exit_code == 0


def test_a_run_of_which_all_was_set_aside_is_exit_code_3(run: Path) -> None:
    """Row 18 of the failure modes: what is damaged stays known after it was moved out of the way."""
    (run / "model.zip").rename(run / "model.zip.corrupt")
    for path in sorted(run.rglob("step-*.zip")):
        path.rename(f"{path}.corrupt")
    result = everlearn("inspect", run)
    assert result.exit_code == 3
    assert result.stderr.count(".corrupt: it was damaged and is set aside.") == 4
    assert everlearn("inspect", run / "checkpoints").exit_code == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    result = everlearn("inspect", tmp_path / "pipe.zip")
    assert result.exit_code == 2
    assert "pipe.zip: this is a pipe or a device. Name a regular file." in result.stderr


def test_a_name_that_is_too_long_is_a_usage_error(tmp_path: Path) -> None:
    for name in ("a" * 300, "a" * 300 + "/model.zip"):
        result = everlearn("inspect", tmp_path / name)
        assert result.exit_code == 2, result.output
        assert f"it cannot be read ({os.strerror(errno.ENAMETOOLONG)}). Name a file or a run." in result.stderr


def test_the_suffix_may_be_left_out(saved: tuple[PPO, Path]) -> None:
    assert inspected(saved[1].with_suffix("")) == inspected(saved[1])


def test_a_heading_stands_only_over_something(saved: tuple[PPO, Path], tmp_path: Path) -> None:
    """A normaliser has no arguments."""
    (tmp_path / "bare.zip").write_bytes(b"".join(pack({"a.json": b"{}"}, {"kind": "normaliser"})))
    shown = everlearn("inspect", tmp_path / "bare.zip").stdout
    assert "hyper-parameters" not in shown
    assert "members, verified" in shown
    assert "hyper-parameters" in everlearn("inspect", saved[1]).stdout
