import csv
import json
import math
import os
import signal
import threading
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import LinearSchedule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from everlearn.config import HEADER, RunConfig, load
from everlearn.core.errors import ConfigError, NonFiniteError, StateError
from everlearn.environments.build import training_environment
from everlearn.environments.spec import EnvConfig
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from everlearn.report import Display, Progress
from everlearn.train import Run, evaluate_saved, train
from everlearn.train.building import build_agent, resolved, thread_count
from everlearn.train.checking import check_device
from everlearn.train.directory import claim, claim_next
from everlearn.train.evaluating import class_of, play, policy_of
from everlearn.train.interruption import Interruption
from everlearn.train.recording import JsonLines
from tests.environments.toys import Noisy, Scripted

NOISY = "everlearn-tests/Noisy-v0"
TINY = {
    "env.id": NOISY,
    "env.n_envs": 2,
    "name": "PPO",
    "n_steps": 8,
    "batch_size": 8,
    "n_epochs": 1,
    "total_timesteps": 64,
    "seed": 7,
    "logging.evaluation_episodes": 3,
    "logging.baseline_episodes": 2,
    "logging.tensorboard": False,
}


@pytest.fixture(autouse=True)
def toy_environments() -> Any:
    gymnasium.register(NOISY, Noisy)
    yield
    del gymnasium.registry[NOISY]


def tiny(**overrides: Any) -> RunConfig:
    return load(None, {**TINY, **overrides})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One small run, looked at by many tests."""
    config = load(
        None, {**TINY, "env.id": "Pendulum-v1", "env.wrappers": [{"kind": "TimeLimit", "max_episode_steps": 9}]}
    )
    return train(config, tmp_path_factory.mktemp("runs") / "run")


# --- building ---------------------------------------------------------------------------------------------------------


def decided(**overrides: Any) -> RunConfig:
    config = tiny(**overrides)
    return resolved(config, training_environment(config.env, config.algorithm.gamma))[0]


def test_everything_left_open_is_decided() -> None:
    config = decided(**{"name": "distributional_ppo", "n_steps": None, "env.n_envs": 4, "seed": None})
    algorithm = config.algorithm
    assert (algorithm.name, algorithm.policy, algorithm.n_steps) == ("DistributionalPPO", "MlpPolicy", 512)
    assert (algorithm.value_head, algorithm.n_critics, algorithm.optimizer_class) == ("quantile", 2, "adaptive_upgd")
    assert config.env.normalize.enabled is False
    assert config.seed is not None


def test_what_was_given_stays() -> None:
    given = tiny(value_head="scalar", n_critics=3, normalize_returns=False, policy="MlpPolicy")
    kept = resolved(given, training_environment(given.env, 0.99))[0].algorithm
    left_open = {"critic_reduction", "optimizer_class", "variance_gradient_scaling", "vgs_kwargs"}
    assert kept.model_dump(exclude=left_open) == given.algorithm.model_dump(exclude=left_open)


def test_continuous_control_is_normalised_by_default() -> None:
    assert decided(**{"env.id": "Pendulum-v1"}).env.normalize.enabled is True


def test_a_drawn_seed_differs_from_run_to_run() -> None:
    assert len({decided(seed=None).seed for _ in range(5)}) > 1


def test_an_unknown_algorithm_has_a_suggestion() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^algorithm\.name: There is no algorithm 'DistributionalPPOO'. Did you mean 'DistributionalPPO'",
    ):
        decided(name="DistributionalPPOO")


def built(**overrides: Any) -> PPO:
    config = tiny(**overrides)
    venv = training_environment(config.env, config.algorithm.gamma)
    return build_agent(resolved(config, venv)[0], venv)


def test_every_argument_reaches_the_constructor() -> None:
    agent = built(
        name="DistributionalPPO",
        gamma=0.9,
        gae_lambda=0.8,
        ent_coef=0.01,
        vf_coef=0.4,
        max_grad_norm=0.3,
        target_kl=0.05,
        n_critics=3,
        vgs_alpha=0.2,
        optimizer_kwargs={"lr": 1e-3, "sigma": 0.01},
        policy_kwargs={"net_arch": [16], "activation_fn": "ReLU"},
    )
    assert type(agent) is DistributionalPPO
    values = (agent.gamma, agent.gae_lambda, agent.ent_coef, agent.vf_coef, agent.max_grad_norm, agent.target_kl)
    assert values == (0.9, 0.8, 0.01, 0.4, 0.3, 0.05)
    assert (agent.n_critics, agent.vgs_alpha, agent.n_epochs, agent.batch_size) == (3, 0.2, 1, 8)
    assert agent.policy.optimizer.param_groups[0]["sigma"] == 0.01
    assert any(isinstance(module, nn.ReLU) for module in agent.policy.modules())
    assert agent.seed == 7


def test_linear_schedules_fall_from_their_start_to_zero() -> None:
    agent = built(learning_rate="lin_0.001", clip_range="lin_0.2", clip_range_vf=0.3)
    assert isinstance(agent.learning_rate, LinearSchedule)
    for schedule, start in ((agent.lr_schedule, 0.001), (agent.clip_range, 0.2)):
        assert [schedule(1.0), schedule(0.5), schedule(0.0)] == [start, start / 2, 0.0]
    assert agent.clip_range_vf is not None
    assert agent.clip_range_vf(0.0) == 0.3


def test_an_unknown_activation_function_has_a_suggestion() -> None:
    where = r"^algorithm\.policy_kwargs\.activation_fn"
    with pytest.raises(ConfigError, match=where + r": There is no activation function 'rellu'. Did you mean 'relu'"):
        built(**{"policy_kwargs.activation_fn": "rellu"})


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"policy": "CnnPolicy"}, "CnnPolicy cannot read"),
        ({"use_sde": True}, "needs continuous actions"),
        ({"optimizer_class": "adaptive_upgdd"}, r"^algorithm\.optimizer_class: .*Did you mean 'adaptive_upgd'"),
        (
            {"optimizer_kwargs": {"sigm": 1.0}, "optimizer_class": "upgd"},
            r"^algorithm\.optimizer_kwargs\.sigm: unknown key. Did you mean 'sigma'",
        ),
        (
            {"optimizer_kwargs": {"sigma": -1.0}, "optimizer_class": "upgd"},
            r"^algorithm\.optimizer_kwargs: upgd refuses them: sigma=-1\.0 is outside",
        ),
        (
            {"optimizer_kwargs": {"momentum": -1}, "optimizer_class": "sgd"},
            r"^algorithm\.optimizer_kwargs: sgd refuses them: Invalid momentum",
        ),
        ({"value_head": {"kind": "quantile", "n": 3}}, r"^algorithm\.value_head\.n: unknown key"),
        ({"critic_reduction": "men"}, r"^algorithm\.critic_reduction: .*Did you mean 'mean'"),
        ({"vgs_kwargs": {"foo": 1}}, r"^algorithm\.vgs_kwargs\.foo: unknown key. Known: eps, min_scale, mode, scope\."),
        ({"vgs_kwargs.warmup_steps": 1}, r"^algorithm\.vgs_kwargs\.warmup_steps: unknown key"),
        ({"vgs_kwargs": {"mode": "noisy"}}, r"^algorithm\.vgs_kwargs\.mode: Input should be 'noise' or 'relative'"),
        (
            {"policy_kwargs.features_extractor_kwargs": {"foo": 1}},
            r"^algorithm\.policy_kwargs\.features_extractor_kwargs\.foo: unknown key",
        ),
    ],
)
def test_what_does_not_fit_is_a_configuration_error(overrides: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        built(**overrides)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.device: 'cuda' was asked for and torch sees no GPU"):
        built(**{"runtime.device": "cuda"})


def test_a_gpu_beyond_the_last_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        check_device(device, "device")
    with pytest.raises(ConfigError, match="device: 'cuda:2' was asked for and torch sees 2 GPUs, counted from cuda:0"):
        check_device("cuda:2", "device")


def test_arguments_arrive_as_their_constructors_types() -> None:
    agent = built(variance_gradient_scaling=True, vgs_kwargs={"eps": "1e-6"}, optimizer_kwargs={"lr": "2e-3"})
    assert agent.variance_gradient_scaler is not None
    assert agent.variance_gradient_scaler.eps == 1e-6
    assert agent.policy.optimizer.param_groups[0]["lr"] == 0.002


def test_small_networks_get_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    small, large = built(), built(**{"policy_kwargs.net_arch": [1024, 1024]})
    assert [thread_count(tiny(), agent) for agent in (small, large)] == [1, 6]
    assert thread_count(tiny(**{"runtime.threads": 3}), small) == 3


# --- the directory ----------------------------------------------------------------------------------------------------


def test_new_directories_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "ALE-Pong-v5-PPO-1").mkdir()
    assert claim_next(tmp_path, "ALE/Pong-v5-PPO").path == tmp_path / "ALE-Pong-v5-PPO-2"
    assert claim_next(tmp_path, "ALE/Pong-v5-PPO").path == tmp_path / "ALE-Pong-v5-PPO-3"


def test_an_empty_directory_can_be_claimed_and_a_missing_one_is_made(tmp_path: Path) -> None:
    assert claim(tmp_path, overwrite=False).path == tmp_path
    assert claim(tmp_path / "a" / "b", overwrite=False).path.is_dir()


def test_a_directory_in_use_is_refused_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(HEADER)
    with pytest.raises(ConfigError, match=r"is not empty. Choose another directory, or add --overwrite"):
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
        "tb/events.out.tfevents.1",
    ]
    foreign = ["notes.txt", "tb/notes.txt", "best_model.zip"]
    (tmp_path / "config.yaml").write_text(HEADER)
    for name in own + foreign:
        (tmp_path / name).write_text("kept?")
    claim(tmp_path, overwrite=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(foreign)


@pytest.mark.parametrize("config", [None, "env: {id: mine}\n"])
def test_a_directory_that_is_no_run_is_never_overwritten(tmp_path: Path, config: str | None) -> None:
    (tmp_path / "model.zip").write_text("mine")
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
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


# --- records ----------------------------------------------------------------------------------------------------------


def test_json_lines_are_strict_and_hold_single_values_only(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "progress.jsonl")
    values = {
        "nan": math.nan,
        "infinity": np.float32(np.inf),
        "tensor": torch.tensor(-math.inf),
        "number": np.float64(1.5),
        "count": np.int64(3),
        "text": 'a, "b"',
        "histogram": torch.zeros(4),
        "hidden": 1.0,
    }
    writer.write(values, {name: ("json",) if name == "hidden" else ("",) for name in values}, step=12)
    writer.write({"other": 1}, {"other": ("",)}, step=13)
    writer.close()
    first, second = (json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines())
    assert first == {
        "step": 12,
        "nan": None,
        "infinity": None,
        "tensor": None,
        "number": 1.5,
        "count": 3,
        "text": 'a, "b"',
    }
    assert second == {"step": 13, "other": 1}


def test_the_run_leaves_its_files(run: Run) -> None:
    names = {path.name for path in run.directory.path.iterdir()}
    assert names == {"config.yaml", "model.zip", "progress.jsonl", "progress.csv", "episodes.csv", "learning_curve.png"}


def test_the_resolved_configuration_repeats_the_run(run: Run, tmp_path: Path) -> None:
    config = load(run.directory.config)
    assert config.algorithm.policy == "MlpPolicy"
    again = train(config, tmp_path / "again")
    assert again.summary.returns == run.summary.returns
    assert again.summary.evaluation == run.summary.evaluation
    for name, value in run.model.policy.state_dict().items():
        assert torch.equal(value, again.model.policy.state_dict()[name])
    assert again.directory.config.read_text() == run.directory.config.read_text()


def test_episodes_are_recorded_with_step_environment_return_and_length(run: Run) -> None:
    with run.directory.episodes.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["env_step", "env", "return", "length", "seconds"]
    assert [(row["env_step"], row["env"], row["length"]) for row in rows] == [
        (str(18 * number), str(env), "9") for number in (1, 2, 3) for env in (0, 1)
    ]
    assert [float(row["return"]) for row in rows] == run.summary.returns


def test_metrics_are_recorded_once_per_rollout_in_both_files(run: Run) -> None:
    lines = [json.loads(line) for line in run.directory.progress_jsonl.read_text().splitlines()]
    assert [line["step"] for line in lines] == [16, 32, 48, 64]
    with run.directory.progress_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/approx_kl"]) for row in rows[1:]] == [line["train/approx_kl"] for line in lines[1:]]


def test_tensorboard_has_the_metrics_too(tmp_path: Path) -> None:
    run = train(tiny(**{"logging.tensorboard": True}), tmp_path / "run")
    events = EventAccumulator(str(run.directory.tensorboard)).Reload()
    assert [event.step for event in events.Scalars("rollout/ep_rew_mean")] == [16, 32, 48, 64]


def test_metrics_follow_the_interval(tmp_path: Path) -> None:
    run = train(tiny(**{"logging.interval": 2}), tmp_path / "run")
    assert len(run.directory.progress_jsonl.read_text().splitlines()) == 2


# --- the run ----------------------------------------------------------------------------------------------------------


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


def test_a_non_finite_reward_stops_the_run_and_leaves_the_agent(tmp_path: Path) -> None:
    gymnasium.register("everlearn-tests/Broken-v0", Scripted, kwargs={"bad_reward_at": 20})
    config = tiny(**{"env.id": "everlearn-tests/Broken-v0", "logging.baseline_episodes": 0})
    with pytest.raises(NonFiniteError, match="non-finite reward at its step 20"):
        train(config, tmp_path / "run")
    assert PPO.load(tmp_path / "run" / "model.zip").num_timesteps == 38
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


class Recorded(Display):
    """Remembers what it was shown; ``at_first`` is called at the first update."""

    def __init__(self, at_first: Callable[[], object] = lambda: None) -> None:
        self.announced: list[str] = []
        self.shown: list[Progress] = []
        self._at_first = at_first

    def announce(self, text: str) -> None:
        self.announced.append(text)

    def update(self, progress: Progress) -> None:
        if not self.shown:
            self._at_first()
        self.shown.append(progress)

    def close(self) -> None:
        """Nothing to close."""


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
    assert run.summary.stopped_by is number
    assert run.summary.steps < 10_000
    assert run.summary.evaluation is None
    assert run.directory.learning_curve.is_file()
    assert PPO.load(run.directory.model).num_timesteps == run.summary.steps
    assert signal.getsignal(number) is before


def test_a_second_signal_acts_as_always() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
        os.kill(os.getpid(), signal.SIGINT)


def test_a_handler_that_could_not_be_put_back_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """``getsignal`` is None for a handler that C code has set."""
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        with Interruption():
            patch.undo()
            assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_signals_are_left_alone() -> None:
    seen = []

    def enter() -> None:
        with Interruption():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


# --- evaluation of what was saved -------------------------------------------------------------------------------------


def test_a_saved_run_plays_as_it_did_when_training_ended(run: Run) -> None:
    """The normaliser's statistics come back with the agent."""
    env_id, played = evaluate_saved(run.directory.path, episodes=3, seed=10_007)
    assert env_id == "Pendulum-v1"
    assert played == run.summary.evaluation


def test_the_model_file_of_a_run_finds_its_environment(run: Run) -> None:
    assert evaluate_saved(run.directory.model, episodes=2, seed=1) == evaluate_saved(
        run.directory.path, episodes=2, seed=1
    )


def test_stochastic_episodes_repeat_with_their_seed(run: Run) -> None:
    first, again, other = (
        evaluate_saved(run.directory.path, episodes=2, seed=seed, deterministic=False) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_bare_model_needs_the_name_of_an_environment(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "agent.zip"
    model.write_bytes(run.directory.model.read_bytes())
    with pytest.raises(ConfigError, match=r"no config\.yaml beside it names the environment. Give --env ID"):
        evaluate_saved(model)
    assert evaluate_saved(model, episodes=1, env_id="Pendulum-v1")[1].lengths == [200]


def test_an_environment_with_other_spaces_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"trained with observations of Box.*'CartPole-v1' has Box"):
        evaluate_saved(run.directory.path, env_id="CartPole-v1")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such model"):
        evaluate_saved(tmp_path)
    model = tmp_path / "model.zip"
    model.write_text("not a model")
    with pytest.raises(StateError, match=r"this is no model of everlearn's PPO, or it is damaged"):
        evaluate_saved(tmp_path)
    for member, data in (("notes.txt", ""), ("data", "{"), ("data", "[]"), ("data", '{"gamma": 0.9}')):
        with zipfile.ZipFile(model, "w") as archive:
            archive.writestr(member, data)
        with pytest.raises(StateError, match=r"this is no model of everlearn's PPO, or it is damaged"):
            evaluate_saved(tmp_path)


@pytest.mark.parametrize("kind", [PPO, DistributionalPPO])
def test_a_bare_model_is_of_the_class_that_saved_it(tmp_path: Path, kind: type[PPO]) -> None:
    agent = kind("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    agent.save(tmp_path / "agent.zip")
    assert class_of(tmp_path / "agent.zip") is kind
    expected = play(EnvConfig(id="CartPole-v1"), lambda _: policy_of(agent), 2, seed=3)
    assert evaluate_saved(tmp_path / "agent.zip", episodes=2, env_id="CartPole-v1", seed=3)[1] == expected


@pytest.mark.parametrize("device", ["foo", "cuda:x"])
def test_an_unknown_device_is_refused_in_evaluation(run: Run, device: str) -> None:
    with pytest.raises(ConfigError, match=r"^device: Input should be auto, cpu, cuda or cuda:N"):
        evaluate_saved(run.directory.path, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_refused_in_evaluation_too(run: Run) -> None:
    with pytest.raises(ConfigError, match="device: 'cuda' was asked for and torch sees no GPU"):
        evaluate_saved(run.directory.path, device="cuda")
