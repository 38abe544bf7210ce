"""Row 14 of the failure modes, with a real limit and a real disk: a training runs out of room."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from everlearn.checkpoint.store import CheckpointStore
from everlearn.runs import Run

PROGRAM = """\
import resource, shutil, sys
from pathlib import Path
from stable_baselines3.common.callbacks import BaseCallback
import typer
from everlearn.cli import reporting
from everlearn.runs import train

class Filler(BaseCallback):
    '''Takes the room away once there is a checkpoint, and gives it back later.'''

    def _on_rollout_start(self):
        if self.num_timesteps == {takes}:
            {take}
        if self.num_timesteps == {gives}:
            {give}

    def _on_step(self):
        return True

out = Path(sys.argv[1])
settings = {{
    "env.id": "CartPole-v1", "env.n_envs": 1, "name": "PPO", "n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 3,
    "logging.evaluation_episodes": 0, "logging.baseline_episodes": 0, "logging.tensorboard": False,
    "total_timesteps": {total}, "checkpoint.every": 16, "checkpoint.keep_last": 2,
}}
try:
    with reporting.reported_errors(False):
        train(out=out, settings=settings, callback=Filler())
except typer.Exit as ending:
    sys.exit(ending.exit_code)
"""
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, resource.RLIM_INFINITY))"
LIMITED = {
    "take": LIMIT.format(bytes=60_000),  # smaller than an agent, larger than its records
    "give": LIMIT.format(bytes="resource.RLIM_INFINITY"),
}
FILLED = {
    "take": "filler = open(out.parent / 'filler', 'wb', 0)\n"
    "            try:\n"
    "                while filler.write(bytes(4096)): pass\n"
    "            except OSError: filler.close()",
    "give": "(out.parent / 'filler').unlink()",
}


def program(room: dict[str, str], **numbers: int) -> str:
    return PROGRAM.format(**room, **numbers)


def limited(tmp_path: Path, **numbers: int) -> subprocess.CompletedProcess[str]:
    """A training whose files may not grow beyond a size."""
    command = [sys.executable, "-c", program(LIMITED, **numbers), str(tmp_path / "run")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def on_a_small_disk(tmp_path: Path, **numbers: int) -> subprocess.CompletedProcess[str]:
    """A training on a disk of its own, whose content is copied out before it goes away."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "program.py").write_text(program(FILLED, **numbers))
    script = (
        f"mount -t tmpfs -o size=2m tmpfs '{disk}' && {{ '{sys.executable}' '{tmp_path}/program.py' '{disk}/run'; "
        f"code=$?; cp -a '{disk}/run' '{tmp_path}/run'; exit $code; }}"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    script = "mount -t tmpfs -o size=100k tmpfs /mnt"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


mounting = pytest.mark.skipif(not can_mount(), reason="needs a system in which a disk of memory can be mounted")
posix = pytest.mark.skipif(os.name != "posix", reason="needs limits on the size of files")
ROOMS = [pytest.param(limited, marks=posix), pytest.param(on_a_small_disk, marks=mounting)]


@pytest.mark.parametrize("train_with", ROOMS)
def test_training_goes_on_without_room_and_writes_everything_when_there_is_room(train_with, tmp_path: Path) -> None:
    done = train_with(tmp_path, takes=32, gives=64, total=160)
    assert done.returncode == 0, done.stderr
    assert "No checkpoint at step 48" in done.stderr
    assert "Traceback" not in done.stderr
    run = Run(tmp_path / "run")
    assert run.summary.steps == 160
    assert run.load("latest").num_timesteps == 160
    assert run.progress()["step"] == list(range(16, 161, 16))
    assert run.episodes()["return"] == run.summary.returns
    assert not list(run.path.rglob(".tmp-*"))


@pytest.mark.parametrize("train_with", ROOMS)
def test_a_final_save_without_room_is_a_failure_and_the_checkpoint_before_loads(train_with, tmp_path: Path) -> None:
    done = train_with(tmp_path, takes=32, gives=9999, total=96)
    assert done.returncode == 1, done.stderr
    assert "model.zip: it cannot be written" in done.stderr
    assert "The last checkpoint is" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    assert not (tmp_path / "run" / "model.zip").exists()
    assert CheckpointStore(tmp_path / "run" / "checkpoints").latest().checkpoint.step == 32
    with pytest.warns(UserWarning, match="checkpoint of step 32 is used"):
        assert Run(tmp_path / "run").load("latest").num_timesteps == 32


def test_a_run_that_found_room_again_has_whole_records(tmp_path: Path) -> None:
    """Records are longer than the limit: their lines wait in memory."""
    tight = {**LIMITED, "take": LIMIT.format(bytes=700)}
    command = [sys.executable, "-c", program(tight, takes=32, gives=96, total=160), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "progress.jsonl: it cannot be written (File too large)" in done.stderr
    lines = (tmp_path / "run" / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(16, 161, 16))
