import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.config import load
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from tests.cli.modules import BROKEN

TINY = """\
env: {id: CartPole-v1, n_envs: 2}
algorithm: {name: PPO, n_steps: 16, batch_size: 16, n_epochs: 1, compile: false}
total_timesteps: 64
seed: 3
logging: {evaluation_episodes: 2, baseline_episodes: 2, tensorboard: false}
"""

OWN = """\
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

gymnasium.register("Own-v0", CartPoleEnv, max_episode_steps=20)
"""

TERMINATED = """\
import os, signal
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Terminated(CartPoleEnv):
    total = 0

    def step(self, action):
        self.total += 1
        if self.total == 40:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step(action)

gymnasium.register("Terminated-v0", Terminated, max_episode_steps=20)
"""


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("tiny.yaml").write_text(TINY)


def everlearn(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def trained(*arguments: str) -> Path:
    result = everlearn("train", "tiny.yaml", "--out", "run", "-q", *arguments)
    assert result.exit_code == 0, result.output
    return Path("run")


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys; from everlearn.cli import app; app(['--help'], standalone_mode=False); "
    program += "sys.exit(any(name in sys.modules for name in ('torch', 'gymnasium', 'matplotlib', 'pydantic')))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout
    assert "evaluate" in result.stdout


def test_train_leaves_a_run_and_says_what_was_learned() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "run")
    assert result.exit_code == 0, result.output
    assert "PPO on CartPole-v1: 64 steps" in result.stdout
    assert "random policy" in result.stdout
    assert "everlearn evaluate run" in result.stdout
    assert "Training PPO on CartPole-v1 (2 environments, seed 3, cpu) in run" in result.stderr
    assert PPO.load("run/model.zip").num_timesteps == 64
    with Image.open("run/learning_curve.png") as image:
        assert image.size == (1350, 750)


def test_without_a_file_the_system_is_on_with_sound_settings() -> None:
    result = everlearn("train", "--env", "CartPole-v1", "--steps", "2048", "--set", "n_epochs=1", "-q")
    assert result.exit_code == 0, result.output
    run = Path("runs/CartPole-v1-DistributionalPPO-1")
    config = load(run / "config.yaml")
    assert (config.env.n_envs, config.algorithm.n_steps, config.algorithm.batch_size) == (8, 256, 64)
    assert config.algorithm.optimizer_class == "adaptive_upgd"
    assert DistributionalPPO.load(run / "model.zip").num_timesteps == 2048


def test_options_replace_what_the_file_says() -> None:
    trained("--env", "Acrobot-v1", "--steps", "96", "--seed", "5", "--set", "gamma=0.9", "--set", "env.n_envs=3")
    config = load(Path("run/config.yaml"))
    assert (config.env.id, config.total_timesteps, config.seed) == ("Acrobot-v1", 96, 5)
    assert (config.algorithm.gamma, config.env.n_envs, config.algorithm.n_steps) == (0.9, 3, 16)


def test_a_file_of_algorithm_keys_needs_an_environment_only() -> None:
    Path("keys.yaml").write_text("name: PPO\nn_steps: 8\nbatch_size: 8\nn_epochs: 1\n")
    quick = ("--set", "logging={evaluation_episodes: 0, baseline_episodes: 0}")
    assert everlearn("train", "keys.yaml", "--steps", "64", "-q", *quick, "--env", "CartPole-v1").exit_code == 0


def test_train_prints_json_and_nothing_else_on_stdout() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "run", "--json")
    summary = json.loads(result.stdout)
    assert (summary["environment"], summary["steps"], summary["seed"]) == ("CartPole-v1", 64, 3)
    assert summary["baseline"]["episodes"] == 2


def test_quiet_shows_no_progress() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "run", "--quiet")
    assert result.stderr == ""
    assert "PPO on CartPole-v1" in result.stdout


def test_evaluate_prints_the_returns_of_a_run_and_of_a_model() -> None:
    run = trained()
    for path in (run, run / "model.zip"):
        result = everlearn("evaluate", str(path), "--episodes", "3")
        assert result.exit_code == 0, result.output
        assert f"{path} on CartPole-v1, deterministic: mean return" in result.stdout
        assert "over 3 episodes (min" in result.stdout


def test_evaluate_lists_the_episodes_when_asked() -> None:
    result = everlearn("evaluate", str(trained()), "--episodes", "3", "-v")
    assert [line.split()[0] for line in result.stdout.splitlines()[:4]] == ["episode", "1", "2", "3"]


def test_evaluate_prints_json() -> None:
    result = everlearn("evaluate", str(trained()), "--episodes", "3", "--stochastic", "--seed", "4", "--json")
    played = json.loads(result.stdout)
    assert (played["policy"], played["episodes"], len(played["returns"])) == ("stochastic", 3, 3)


def test_own_environments_come_in_by_import_from_the_current_directory() -> None:
    Path("own_environments.py").write_text(OWN)
    trained("--import", "own_environments", "--env", "Own-v0")
    result = everlearn("evaluate", "run", "--import", "own_environments", "--episodes", "1", "--json")
    assert json.loads(result.stdout)["environment"] == "Own-v0"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "no environment is named. Give --env ID"),
        (("--env", "CartPoll-v1"), "Did you mean CartPole-v1"),
        (("--env", "antigravity:CartPole-v1"), "--import antigravity --env CartPole-v1"),
        (("missing.yaml",), "missing.yaml: it cannot be read"),
        (("--env", "CartPole-v1", "--set", "gama=1"), "gama: unknown key. Did you mean 'gamma'?"),
        (("--env", "CartPole-v1", "--set", "clip_range=-1"), "algorithm.clip_range: Input should be a number above 0"),
        (("--env", "CartPole-v1", "--set", "gamma=5"), "algorithm.gamma: Input should be less than or equal to 1"),
        (("--env", "CartPole-v1", "--set", "ent_coef=.nan"), "algorithm.ent_coef: Input should be a finite number"),
        (("--env", "CartPole-v1", "--set", "gamma"), "write it as key=value"),
        (("--env", "CartPole-v1", "--set", "use_sde=true"), "needs continuous actions"),
        (("--env", "Blackjack-v1"), "has observations of Tuple"),
        (("--env", "CartPole-v1", "--import", "no_such_module"), "--import: there is no module 'no_such_module'"),
        (("--set", "env=5"), "env: a section belongs here, and this is 5. Give --env ID"),
        (("--env", "CartPole-v1", "--set", "optimizer_kwargs.kind=sgd"), "optimizer_kwargs.kind: unknown key"),
        (("--env", "CartPole-v1", "--set", "vgs_kwargs.beta=.5"), "vgs_kwargs.beta: unknown key. Known: eps"),
        (
            ("--env", "CartPole-v1", "--set", "policy_kwargs.features_extractor_kwargs.foo=1"),
            "features_extractor_kwargs.foo: unknown key. Nothing can be set here",
        ),
        (
            ("--env", "CartPole-v1", "--set", "optimizer_class=adam", "--set", "optimizer_kwargs.lr=-1"),
            "algorithm.optimizer_kwargs: adam refuses them: Invalid learning rate",
        ),
        (("--env", "CartPole-v1", "--set", "env.kwargs.max_episode_steps=0"), "env.kwargs: 'CartPole-v1' cannot"),
        (("--env", "CartPole-v1", "--set", "env.wrappers=[AtariWrapper]"), "AtariWrapper does not fit"),
        (("--env", "CartPole-v1", "--out", "tiny.yaml/run"), "--out tiny.yaml/run: the directory cannot be made"),
        (("--env", "CartPole-v1", "--steps", "0"), "total_timesteps: Input should be greater than or equal to 1"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: tuple[str, ...], complaint: str) -> None:
    result = everlearn("train", *arguments)
    assert result.exit_code == 2, result.output
    assert "error: " in result.stderr
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists()


def test_verbose_adds_the_traceback() -> None:
    result = everlearn("train", "--env", "CartPoll-v1", "-v")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_an_unknown_option_is_a_usage_error() -> None:
    assert everlearn("train", "--environment", "CartPole-v1").exit_code == 2


def test_a_directory_in_use_is_refused_unless_overwrite() -> None:
    trained()
    model = Path("run/model.zip").read_bytes()
    result = everlearn("train", "tiny.yaml", "--out", "run")
    assert result.exit_code == 2
    assert "is not empty. Choose another directory, or add --overwrite" in result.stderr
    assert Path("run/model.zip").read_bytes() == model
    trained("--overwrite", "--seed", "4")
    assert load(Path("run/config.yaml")).seed == 4


def test_a_file_that_is_no_model_is_exit_code_3() -> None:
    Path("agent.zip").write_text("no model")
    result = everlearn("evaluate", "agent.zip", "--env", "CartPole-v1")
    assert result.exit_code == 3
    assert "agent.zip: It wasn't a zip-file; this looks like a text." in result.stderr


def test_an_unknown_device_is_refused_before_the_model_is_read() -> None:
    result = everlearn("evaluate", "missing.zip", "--device", "foo")
    assert result.exit_code == 2
    assert "device: Input should be auto, cpu, cuda or cuda:N (found 'foo')" in result.stderr


def test_a_directory_may_look_like_markup() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "[red]run[/foo]", "-q")
    assert result.exit_code == 0, result.output
    assert "everlearn evaluate [red]run[/foo]\n" in result.stdout
    result = everlearn("evaluate", "[red]run[/foo]", "--episodes", "1")
    assert "[red]run[/foo] on CartPole-v1, deterministic" in result.stdout


def test_the_package_is_the_command_too() -> None:
    command = [sys.executable, "-m", "everlearn", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Train agents that keep learning" in result.stdout


def test_a_non_finite_state_is_exit_code_4_and_keeps_the_model() -> None:
    Path("own_broken.py").write_text(BROKEN)
    quick = ("--set", "logging.baseline_episodes=0", "--out", "run")
    result = everlearn("train", "tiny.yaml", "--import", "own_broken", "--env", "Broken-v0", *quick)
    assert result.exit_code == 4, result.output
    assert "Environment 0 returned a non-finite reward at its step 1" in result.stderr
    assert Path("run/model.zip").is_file()


def test_a_missing_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    result = everlearn("train", "--env", "HalfCheetah-v5")
    assert result.exit_code == 2
    assert "pip install 'everlearn[mujoco]'" in result.stderr


def started(*arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own, once it is training."""
    command = [sys.executable, "-c", "from everlearn.cli import main; main()", "train", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not metrics_recorded(Path("run/progress.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.05)
    return process


def metrics_recorded(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def test_ctrl_c_ends_the_process_cleanly_with_a_saved_model() -> None:
    process = started("tiny.yaml", "--steps", "1e9", "--out", "run")
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Stopped by SIGINT; the model so far is saved." in output
    assert "Traceback" not in errors
    assert 0 < PPO.load("run/model.zip").num_timesteps < 1e9
    assert Path("run/learning_curve.png").is_file()
    assert everlearn("evaluate", "run", "--episodes", "1").exit_code == 0


def test_sigterm_ends_the_command_with_143() -> None:
    """Row 16 of the failure modes."""
    Path("own_terminated.py").write_text(TERMINATED)
    quick = ("--steps", "1e9", "--set", "logging.baseline_episodes=0", "--set", "env.n_envs=1")
    result = everlearn(
        "train", "tiny.yaml", "--out", "run", "--import", "own_terminated", "--env", "Terminated-v0", *quick
    )
    assert result.exit_code == 143, result.output
    assert "Stopped by SIGTERM; the model so far is saved." in result.stdout
    assert "Go on with: everlearn resume run --import own_terminated" in result.stdout
    assert PPO.load("run/model.zip").num_timesteps == 32, "as before the rollout that was being collected"


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_on_stderr() -> None:
    result = everlearn("train", "tiny.yaml", "--out", "run", "-q", "--set", "batch_size=24")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: You have specified a mini-batch size of 24")
    assert ".py:" not in result.stderr
