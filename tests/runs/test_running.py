import math
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from everlearn.config import load
from everlearn.core.errors import ArgumentError, ConfigError, NonFiniteError
from everlearn.ppo.algorithm import PPO
from everlearn.runs import Run, train
from everlearn.runs.checkpointing import checkpoint_store
from everlearn.runs.directory import RunDirectory
from tests.environments.toys import Scripted
from tests.runs.tiny import Recorded, tiny


def test_the_summary_compares_the_policy_with_a_random_one(run: Run) -> None:
    summary = run.summary
    assert (summary.environment, summary.algorithm, summary.seed, summary.steps) == ("Pendulum-v1", "PPO", 7, 64)
    assert summary.evaluation is not None
    assert summary.evaluation.lengths == [9, 9, 9]
    assert summary.baseline is not None
    assert summary.baseline.lengths == [9, 9]
    assert summary.stopped_by is None


def test_evaluation_and_baseline_can_be_left_out(tmp_path: Path) -> None:
    run = train(tiny(**{"logging.evaluation_episodes": 0, "logging.baseline_episodes": 0}), tmp_path / "run")
    assert (run.summary.evaluation, run.summary.baseline) == (None, None)


def test_without_out_the_run_is_numbered_by_environment_and_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(tiny()).directory.path == Path("runs/everlearn-tests-Noisy-v0-PPO-1")


def test_a_configuration_error_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        train(tiny(policy="CnnPolicy"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [{"config": [1]}, {"callback": "x"}, {"plugins": "my_parts"}, {"callback": [lambda *_: True, 3]}]
)
def test_arguments_of_another_kind_are_refused_before_there_is_a_directory(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    name = next(iter(arguments))
    with pytest.raises(ArgumentError, match=rf"^{name}=.*(Give a callback|give the path|give a list)"):
        train(**{"config": tiny(), "out": tmp_path / "run", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_callbacks_and_functions_may_come_together(tmp_path: Path) -> None:
    calls: list[str] = []

    class Noting(BaseCallback):
        def _on_step(self) -> bool:
            calls.append("object")
            return True

    train(tiny(), tmp_path / "run", callback=(Noting(), lambda *_: calls.append("function") or True))
    assert calls[:2] == ["object", "function"]


def test_a_non_finite_reward_stops_the_run_and_leaves_the_agent(tmp_path: Path) -> None:
    gymnasium.register("everlearn-tests/Broken-v0", Scripted, kwargs={"bad_reward_at": 20})
    config = tiny(**{"env.id": "everlearn-tests/Broken-v0", "logging.baseline_episodes": 0})
    with pytest.raises(NonFiniteError, match="non-finite reward at its step 20") as error:
        train(config, tmp_path / "run")
    assert error.value.__notes__ == [f"The agent as it was then is saved in {tmp_path / 'run' / 'model.zip'}."]
    assert PPO.load(tmp_path / "run" / "model.zip").num_timesteps == 32, "as before the rollout that failed"
    assert Run(tmp_path / "run").load().num_timesteps == 32
    assert [each.step for each in checkpoint_store(RunDirectory(tmp_path / "run")).checkpoints()] == [32]
    assert (tmp_path / "run" / "progress.jsonl").read_text().count("\n") == 2
    del gymnasium.registry["everlearn-tests/Broken-v0"]


@pytest.mark.parametrize("bad_reward_at", [None, 20])
def test_the_environments_are_closed_whatever_ends_the_run(tmp_path: Path, bad_reward_at: int | None) -> None:
    closed: list[Scripted] = []

    class Closing(Scripted):
        def close(self) -> None:
            closed.append(self)

    gymnasium.register("everlearn-tests/Closing-v0", Closing, kwargs={"bad_reward_at": bad_reward_at})
    silent = {"logging.baseline_episodes": 0, "logging.evaluation_episodes": 0}
    ending = nullcontext() if bad_reward_at is None else pytest.raises(NonFiniteError)
    with ending:
        train(tiny(**{"env.id": "everlearn-tests/Closing-v0", **silent}), tmp_path / "run")
    assert len(closed) == 2
    del gymnasium.registry["everlearn-tests/Closing-v0"]


def test_the_number_of_threads_is_put_back(tmp_path: Path) -> None:
    display = Recorded(lambda: threads.append(torch.get_num_threads()))
    threads: list[int] = []
    torch.set_num_threads(2)
    train(tiny(**{"runtime.threads": 1}), tmp_path / "run", display=display)
    after = torch.get_num_threads()
    torch.set_num_threads(1)
    assert (threads, after) == ([1], 2)


def test_the_display_sees_the_beginning_and_the_end(tmp_path: Path) -> None:
    display = Recorded()
    run = train(tiny(), tmp_path / "run", display=display)
    assert "PPO on everlearn-tests/Noisy-v0 (2 environments, seed 7, cpu)" in display.announced[0]
    assert (display.shown[0].steps, display.shown[-1].steps, display.shown[-1].total) == (2, 64, 64)
    assert display.shown[-1].mean_return == pytest.approx(np.mean(run.summary.returns))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step_with_a_saved_agent(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    display = Recorded(lambda: os.kill(os.getpid(), number))
    run = train(tiny(total_timesteps=10_000), tmp_path / "run", display=display)
    assert run.summary.stopped_by == number.name
    assert run.summary.steps < 10_000
    assert run.summary.evaluation is None
    assert run.directory.learning_curve.is_file()
    assert PPO.load(run.directory.model).num_timesteps == run.summary.steps
    assert signal.getsignal(number) is before


# --- from Python ------------------------------------------------------------------------------------------------------

QUICK = {"logging": {"evaluation_episodes": 0, "baseline_episodes": 0, "tensorboard": False}}


def test_a_file_a_mapping_and_a_typed_configuration_make_the_same_run(tmp_path: Path) -> None:
    text = "env: {id: CartPole-v1, n_envs: 2}\nalgorithm: {name: PPO, n_steps: 8, batch_size: 8}\nseed: 1\n"
    (tmp_path / "run.yaml").write_text(text)
    mapping = {
        "env": {"id": "CartPole-v1", "n_envs": 2},
        "algorithm": {"name": "PPO", "n_steps": 8, "batch_size": 8},
        "seed": 1,
    }
    short = {"total_timesteps": 16, **QUICK}
    runs = [
        train(config, tmp_path / f"{index}", settings=short)
        for index, config in enumerate([tmp_path / "run.yaml", str(tmp_path / "run.yaml"), mapping, load(mapping)])
    ]
    configurations = {run.directory.config.read_text() for run in runs}
    assert len(configurations) == 1
    assert runs[0].config.total_timesteps == 16
    assert len({tuple(run.episodes()["return"]) for run in runs}) == 1


def test_without_a_configuration_the_settings_are_enough(tmp_path: Path) -> None:
    settings = {
        "env.id": "CartPole-v1",
        "n_steps": 8,
        "batch_size": 8,
        "env.n_envs": 1,
        "n_epochs": 1,
        "total_timesteps": 8,
        **QUICK,
    }
    assert train(out=tmp_path / "run", settings=settings).summary.steps == 8


def test_an_error_that_comes_to_light_in_training_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("env:\n  id: CartPole-v1\n  kwargs: {nothing: 1}\n")
    with pytest.raises(ConfigError, match=rf"^{file}, line 3: env\.kwargs: .*nothing"):
        train(file, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^env\.kwargs: .*something"):
        train(file, tmp_path / "run", settings={"env.kwargs": {"something": 1}})
    assert not (tmp_path / "run").exists()


class Counted(BaseCallback):
    """Counts its calls and ends training where it is told to."""

    def __init__(self, last: float = math.inf) -> None:
        super().__init__()
        self.calls, self._last = 0, last

    def _on_step(self) -> bool:
        self.calls += 1
        return self.calls < self._last


def test_callbacks_of_sb3_work_unchanged(tmp_path: Path) -> None:
    own = make_vec_env("CartPole-v1", n_envs=1)
    evaluated = EvalCallback(own, n_eval_episodes=1, eval_freq=16, best_model_save_path=str(tmp_path), verbose=0)
    saved = CheckpointCallback(save_freq=16, save_path=str(tmp_path / "checkpoints"))
    config = tiny(**{"env.id": "CartPole-v1"})
    counted = Counted()
    run = train(config, tmp_path / "run", callback=[evaluated, saved, counted])
    assert counted.calls == 32
    assert (tmp_path / "best_model.zip").is_file()
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert "eval/mean_reward" in run.progress()
    alone = Counted()
    train(config, tmp_path / "alone", callback=alone)
    assert alone.calls == 32


def test_sb3s_evaluation_works_with_normalised_environments(tmp_path: Path) -> None:
    own = VecNormalize(make_vec_env("Pendulum-v1", n_envs=1), training=False, norm_reward=False)
    evaluated = EvalCallback(own, n_eval_episodes=1, eval_freq=16, verbose=0)
    run = train(tiny(**{"env.id": "Pendulum-v1", "env.normalize": True}), tmp_path / "run", callback=evaluated)
    assert run.model.normaliser_state is not None
    assert own.obs_rms.count > 1
    assert "eval/mean_reward" in run.progress()


def test_a_plain_function_is_a_callback(tmp_path: Path) -> None:
    seen: list[int] = []

    def note(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(variables["self"].num_timesteps)
        return True

    train(tiny(), tmp_path / "run", callback=note)
    assert seen == list(range(2, 65, 2))


def test_a_callback_that_ends_training_is_named(tmp_path: Path) -> None:
    run = train(tiny(), tmp_path / "run", callback=Counted(last=5))
    assert (run.summary.steps, run.summary.stopped_by) == (10, "callback")
    assert run.summary.verdict() == "Stopped by a callback; the model so far is saved."
    assert run.summary.evaluation is not None


def test_plugins_are_imported_before_anything_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "everlearn_tests_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings = {"env.id": "Plugged-v0", "optimizer_class": "everlearn_tests_sgd", "optimizer_kwargs": {"lr": 0.5}}
    run = train(tiny(plugins=["everlearn_tests_plugin"], **settings), tmp_path / "run")
    assert type(run.model.policy.optimizer).__name__ == "PluggedSGD"
    assert run.config.plugins == ["everlearn_tests_plugin"]
    assert Run(run.path).model.policy.optimizer.param_groups[0]["lr"] == 0.5


PLUGIN = """\
import gymnasium
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from everlearn.optim.registry import optimizers

gymnasium.register("Plugged-v0", CartPoleEnv, max_episode_steps=20)

@optimizers.register("everlearn_tests_sgd")
class PluggedSGD(torch.optim.SGD):
    pass
"""
