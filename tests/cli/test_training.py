import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
import typer
from stable_baselines3.common.callbacks import BaseCallback
from typer.testing import CliRunner, Result

from everlearn import runs as everlearn_runs
from everlearn.checkpoint.errors import SaveError
from everlearn.cli import app
from everlearn.cli.reporting import reported_errors
from everlearn.core.errors import ConfigError, NonFiniteError
from everlearn.ppo.algorithm import PPO
from everlearn.runs import Run
from tests.cli.modules import BROKEN

TINY = """\
env: {id: CartPole-v1, n_envs: 2}
algorithm: {name: PPO, n_steps: 16, batch_size: 16, n_epochs: 1, compile: false}
total_timesteps: 64
seed: 3
logging: {evaluation_episodes: 2, baseline_episodes: 0, tensorboard: false}
"""


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("tiny.yaml").write_text(TINY)


def everlearn(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "everlearn", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(*arguments: str) -> tuple[int, str, str]:
    running = process(*arguments)
    output, errors = running.communicate(timeout=120)
    return running.returncode, output, errors


@pytest.mark.slow
def test_the_exit_codes_of_the_command() -> None:
    assert finished("train", "tiny.yaml", "--out", "run", "-q")[0] == 0
    Path("unlucky.py").write_text("1 / 0\n")
    code, _, errors = finished("train", "tiny.yaml", "--import", "unlucky")
    assert (code, "ZeroDivisionError" in errors, "the plug-in 'unlucky' (--import)" in errors) == (1, True, True)
    assert finished("train", "tiny.yaml", "--set", "gama=1")[0] == 2
    Path("no.zip").write_text("no model")
    assert finished("evaluate", "no.zip", "--env", "CartPole-v1")[0] == 3
    Path("own_broken.py").write_text(BROKEN)
    assert finished("train", "tiny.yaml", "--import", "own_broken", "--env", "Broken-v0", "--out", "broken")[0] == 4
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        running = process("train", "tiny.yaml", "--steps", "1e9", "--out", f"run-{code}")
        wait_for(Path(f"run-{code}/progress.jsonl"), running)
        os.kill(running.pid, number)
        running.communicate(timeout=60)
        assert running.returncode == code


def wait_for(path: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.stat().st_size):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.05)


def test_sigterm_in_the_middle_leaves_a_model_that_evaluates() -> None:
    running = process("train", "tiny.yaml", "--steps", "1e9", "--out", "run")
    wait_for(Path("run/progress.jsonl"), running)
    os.kill(running.pid, signal.SIGTERM)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 143, errors
    assert "Stopped by SIGTERM; the model so far is saved." in output
    result = everlearn("evaluate", "run", "--episodes", "2", "--json")
    assert json.loads(result.stdout)["episodes"] == 2
    assert Run("run").summary.stopped_by == "SIGTERM"
    assert 0 < PPO.load("run/model.zip").num_timesteps < 1e9


def test_a_time_limit_ends_training_with_a_saved_model_and_exit_code_0() -> None:
    result = everlearn("train", "tiny.yaml", "--steps", "1e9", "--out", "run", "--time-limit", "0.5", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["stopped_by"], summary["evaluation"]["episodes"]) == ("time limit", 2)
    assert PPO.load("run/model.zip").num_timesteps == summary["steps"] > 0


@pytest.mark.parametrize("limit", ["soon", "0", "1h30"])
def test_what_is_no_time_limit_is_refused(limit: str) -> None:
    result = everlearn("train", "tiny.yaml", "--time-limit", limit)
    assert result.exit_code == 2
    assert f"error: time limit '{limit}': give seconds above 0, or a span as 90m, 1h30m, 2d12h." in result.stderr
    assert not Path("runs").exists()


def test_evaluation_during_training_leaves_the_best_agent_and_is_shown() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "run", "--set", "evaluation={every: 32, episodes: 2}")
    assert result.exit_code == 0, result.output
    assert "best evaluation" in result.stdout
    assert "everlearn evaluate run --best\n" in result.stdout
    played = everlearn("evaluate", "run", "--best", "--episodes", "1", "--json")
    assert json.loads(played.stdout)["environment"] == "CartPole-v1"


def test_the_json_of_a_run_has_its_best_evaluation() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "run", "--set", "evaluation={every: 32}", "--json")
    best: dict[str, Any] = json.loads(result.stdout)["best"]
    assert best["mean_reward"] == max(Run("run").evaluations()["mean_reward"])
    assert json.loads(Path("run/summary.json").read_text()) == json.loads(result.stdout)


PLUGIN = """\
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

gymnasium.register("Plugin-v0", CartPoleEnv, max_episode_steps=20)
"""


def test_a_run_with_plugins_trains_from_its_file_and_is_evaluated_with_import() -> None:
    Path("own_plugin.py").write_text(PLUGIN)
    Path("own.yaml").write_text(TINY.replace("CartPole-v1", "Plugin-v0") + "plugins: [own_plugin]\n")
    try:
        result = everlearn("train", "own.yaml", "--out", "run", "-q")
        assert result.exit_code == 0, result.output
    finally:
        del sys.modules["own_plugin"], gymnasium.registry["Plugin-v0"]
    result = everlearn("evaluate", "run", "--episodes", "1")
    assert result.exit_code == 2
    assert "If you trust them, add --import own_plugin" in result.stderr
    result = everlearn("evaluate", "run", "--episodes", "1", "--import", "own_plugin", "--json")
    assert json.loads(result.stdout)["environment"] == "Plugin-v0"
    del sys.modules["own_plugin"], gymnasium.registry["Plugin-v0"]


def test_an_error_in_a_plugin_made_on_purpose_keeps_the_plugins_name() -> None:
    Path("own_clash.py").write_text(
        "import torch\nfrom everlearn.optim.registry import optimizers\noptimizers.add('adam', torch.optim.Rprop)\n"
    )
    result = everlearn("train", "tiny.yaml", "--import", "own_clash")
    assert result.exit_code == 2
    assert "The optimizer 'adam' is another class" in result.stderr
    assert "This happened while everlearn imported the plug-in 'own_clash' (--import)." in result.stderr


def test_verbose_logs_information() -> None:
    result = everlearn("train", "tiny.yaml", "--set", "gama=1", "-v")
    assert "Traceback" in result.stderr


RAISING = """\
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Raising(CartPoleEnv):
    def step(self, action):
        {statement}

gymnasium.register("Raising-v0", Raising, disable_env_checker=True)
"""


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("raise EOFError('the feed has ended')", "EOFError: the feed has ended"),
        ("raise BrokenPipeError(32, 'the feed has gone')", "BrokenPipeError: [Errno 32] the feed has gone"),
        ("open('prices.csv')", "FileNotFoundError: [Errno 2] No such file or directory: 'prices.csv'"),
    ],
)
def test_an_error_of_an_environment_keeps_its_traceback_and_says_where_the_agent_is(statement: str, error: str) -> None:
    Path("own_raising.py").write_text(RAISING.format(statement=statement))
    quick = ("--set", "logging.baseline_episodes=0", "--out", "run", "-q")
    code, _, errors = finished("train", "tiny.yaml", "--import", "own_raising", "--env", "Raising-v0", *quick)
    assert code == 1
    assert 'own_raising.py", line 6, in step\n' in errors
    assert error in errors
    assert "The agent as it was then is saved in run/model.zip." in errors
    assert "Aborted" not in errors


def test_a_plugins_own_error_of_the_system_keeps_its_traceback() -> None:
    Path("own_reading.py").write_text("open('prices.csv')\n")
    code, _, errors = finished("train", "tiny.yaml", "--import", "own_reading")
    assert code == 1
    assert 'own_reading.py", line 1, in <module>\n' in errors
    assert "This happened while everlearn imported the plug-in 'own_reading' (--import)." in errors


def test_a_run_records_what_was_imported_and_its_printed_commands_are_true() -> None:
    Path("own_recorded.py").write_text(PLUGIN.replace("Plugin-v0", "Recorded-v0"))

    def forgotten() -> None:
        del sys.modules["own_recorded"], gymnasium.registry["Recorded-v0"]

    every = ("--set", "evaluation={every: 32, episodes: 2}")
    result = everlearn("train", "tiny.yaml", "--import", "own_recorded", "--env", "Recorded-v0", "--out", "run", *every)
    assert result.exit_code == 0, result.output
    forgotten()
    assert Run("run").config.plugins == ["own_recorded"]
    refused = everlearn("evaluate", "run")
    assert (refused.exit_code, "add --import own_recorded" in refused.stderr) == (2, True)
    for printed in ("evaluate run --import own_recorded", "evaluate run --best --import own_recorded"):
        assert f"everlearn {printed}\n" in result.stdout
        assert everlearn(*printed.split(), "--episodes", "1").exit_code == 0
        forgotten()
    again = everlearn("train", "run/config.yaml", "--out", "again", "-q")
    assert again.exit_code == 0, again.output
    assert Path("again/config.yaml").read_text() == Path("run/config.yaml").read_text()
    forgotten()


def test_what_config_show_prints_names_what_was_imported() -> None:
    Path("own_shown.py").write_text(PLUGIN.replace("Plugin-v0", "Shown-v0"))
    shown = everlearn("config", "show", "tiny.yaml", "--import", "own_shown", "--env", "Shown-v0")
    assert "plugins:\n- own_shown\n" in shown.stdout
    del sys.modules["own_shown"], gymnasium.registry["Shown-v0"]


def test_a_damaged_model_is_one_message_and_exit_code_3() -> None:
    assert everlearn("train", "tiny.yaml", "--out", "run", "-q").exit_code == 0
    model = Path("run/model.zip")
    content = bytearray(model.read_bytes())
    content[content.index(b"policy.safetensors", content.index(b"policy.json{")) + 3000] ^= 1
    model.write_bytes(content)
    result = everlearn("evaluate", "run/model.zip")
    assert result.exit_code == 3, result.output
    assert "run/model.zip, policy.safetensors: its SHA-256 is" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_non_finite_run_says_where_the_agent_is() -> None:
    Path("own_poor.py").write_text(BROKEN.replace("Broken-v0", "Poor-v0"))
    result = everlearn("train", "tiny.yaml", "--import", "own_poor", "--env", "Poor-v0", "--out", "run", "-q")
    assert result.exit_code == 4, result.output
    assert "error: The agent as it was then is saved in run/model.zip." in result.stderr


@pytest.mark.filterwarnings("default")
def test_a_run_that_was_killed_is_evaluated_from_its_newest_checkpoint_and_trained_anew_at_once() -> None:
    """Rows 15 and 17 of the failure modes: what a SIGKILL leaves can be used, and its lock is nobody's."""
    train = ("train", "tiny.yaml", "--out", "run", "-q", "--set", "checkpoint.every=32")
    running = process(*train, "--steps", "1e9")
    wait_for_checkpoints(2, running)
    for options in ((), ("--overwrite",)):
        refused = everlearn(*train, *options)
        assert refused.exit_code == 2
        assert f"run is being written by process {running.pid} on " in refused.stderr
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    result = everlearn("evaluate", "run", "--episodes", "1")
    assert result.exit_code == 0, result.output
    assert "over 1 episodes" in result.stdout
    assert "warning: run has no model.zip: the run goes on still, or it was killed. Its checkpoint of" in result.stderr
    assert everlearn("evaluate", "run", "--best", "--episodes", "1").exit_code == 0
    assert everlearn(*train, "--overwrite").exit_code == 0
    assert Run("run").load("latest").num_timesteps == 64


def wait_for_checkpoints(count: int, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(list(Path("run/checkpoints").glob("step-*.zip"))) < count:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "there is no checkpoint"
        time.sleep(0.05)


@pytest.mark.filterwarnings("default")
def test_a_damaged_model_of_a_run_gives_way_to_its_checkpoint() -> None:
    """Rows 1, 2 and 18 of the failure modes: exit code 0 with a warning, 3 when nothing is whole."""
    assert everlearn("train", "tiny.yaml", "--out", "run", "-q").exit_code == 0
    model = Path("run/model.zip")
    model.write_bytes(model.read_bytes()[:-9])
    result = everlearn("evaluate", "run", "--episodes", "1")
    assert result.exit_code == 0, result.output
    assert "warning: run/model.zip: it ends after" in result.stderr
    assert "It is kept as run/model.zip.corrupt. The checkpoint of step 64 is used." in result.stderr
    checkpoint = Path("run/checkpoints/step-000000000064.zip")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    result = everlearn("evaluate", "run", "--episodes", "1")
    assert result.exit_code == 3, result.output
    assert "there is no checkpoint that can be loaded" in result.stderr
    assert f"{checkpoint}: it ends after" in result.stderr


def test_an_agent_that_is_not_finite_ends_the_command_with_4_and_names_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 13 of the failure modes, its last clause."""

    class Spoiler(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 40:
                with torch.no_grad():
                    next(iter(self.model.policy.parameters())).fill_(torch.nan)
            return self.num_timesteps < 40

    monkeypatch.setattr(everlearn_runs, "train", partial(everlearn_runs.train, callback=Spoiler()))
    result = everlearn("train", "tiny.yaml", "--out", "run", "-q", "--set", "checkpoint.every=16")
    assert result.exit_code == 4, result.output
    told = result.stderr.splitlines()
    assert len(told) == 2
    assert "not finite" in told[0]
    assert told[1].startswith("error: The last checkpoint is run/checkpoints/step-000000000032.zip; everlearn evaluate")
    assert not Path("run/model.zip").exists()


def test_no_failure_hides_an_earlier_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are told, the earlier first; one that was made from another of ours says it all."""
    with pytest.raises(typer.Exit) as ending, reported_errors(False):
        try:
            raise NonFiniteError("the loss is not finite")
        finally:
            try:
                raise OSError("full")
            except OSError as error:
                raise SaveError("model.zip", "full") from error
    told = capsys.readouterr().err.splitlines()
    assert (len(told), told[0]) == (2, "error: the loss is not finite")
    assert told[1].startswith("error: model.zip: it cannot be written (full)")
    assert ending.value.exit_code == 1
    with pytest.raises(typer.Exit), reported_errors(False):
        try:
            raise ConfigError("gamma")
        except ConfigError as error:
            raise ConfigError("run.yaml, line 3: gamma") from error
    assert capsys.readouterr().err == "error: run.yaml, line 3: gamma\n"
