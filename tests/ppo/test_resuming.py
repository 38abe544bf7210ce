"""Models that go on from a file as if nothing had happened."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.archive import read_manifest
from everlearn.checkpoint.errors import Mismatch
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError, OrderError
from everlearn.core.resume_level import Level
from everlearn.core.rng import GlobalGenerators

TOTAL, ROLLOUT = 320, 64


def environments(kind: str = "CartPole-v1", n_envs: int = 2) -> VecEnv:
    return make_vec_env(kind, n_envs, seed=5)


def new(algorithm: type[PPO] = DistributionalPPO, venv: VecEnv | None = None, **arguments: Any) -> PPO:
    options = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "seed": 1, "device": "cpu", "learning_rate": "lin_1e-3"}
    return algorithm("MlpPolicy", venv or environments(), **{**options, "compile": False, **arguments})


def everything(model: PPO) -> str:
    """The digest of what is learned, of counters, last observations and generators."""
    tree = model.state_tree()
    kept = {name: tree[name].state_dict() for name in ("counters", "observations", "hyperparameters", "divergence")}
    return digest({"learned": model.get_parameters(), **kept, "generators": GlobalGenerators().state_dict()})


class At(BaseCallback):
    """Does something once, in the middle of a rollout."""

    affects_training = False

    def __init__(self, step: int, act: Any) -> None:
        super().__init__()
        self.step, self.act = step, act

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.act(self.model)
        return True


class Collected(KVWriter):
    """What a logger wrote, without times."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.records.append({key: value for key, value in key_values.items() if not key.startswith("time/")})

    def close(self) -> None:
        pass


def saved_at(step: int, path: Path, **arguments: Any) -> PPO:
    """A whole training, which has saved itself in the middle of a rollout."""
    return new(**arguments).learn(TOTAL, At(step, lambda model: model.save(path)))


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
@pytest.mark.parametrize("step", [1, 100, 150])
def test_a_file_saved_in_the_middle_of_a_rollout_is_exact(algorithm: type[PPO], step: int, tmp_path: Path) -> None:
    straight = saved_at(2 * step, tmp_path / "model", algorithm=algorithm)
    expected = everything(straight)
    resumed = algorithm.resume(tmp_path / "model", environments(), require="exact")
    assert resumed.resumed is not None
    assert (resumed.resumed.level, resumed.num_timesteps) == (Level.EXACT, 2 * step // ROLLOUT * ROLLOUT)
    resumed.continue_learning()
    assert everything(resumed) == expected


@pytest.mark.parametrize("kind", ["Pendulum-v1", "Hopper-v5"])
def test_normalised_observations_and_rewards_go_on_too(kind: str, tmp_path: Path) -> None:
    def normalised() -> VecEnv:
        return VecNormalize(environments(kind))

    straight = saved_at(150, tmp_path / "model", venv=normalised())
    expected = everything(straight), digest(straight.normaliser_state)
    resumed = DistributionalPPO.resume(tmp_path / "model", normalised(), require="exact").continue_learning()
    assert (everything(resumed), digest(resumed.normaliser_state)) == expected


@pytest.mark.parametrize("arguments", [{"use_sde": True}, {"use_sde": True, "sde_sample_freq": 4}], ids=str)
def test_exploration_matrices_are_drawn_again(arguments: dict[str, Any], tmp_path: Path) -> None:
    expected = everything(saved_at(150, tmp_path / "model", venv=environments("Pendulum-v1"), **arguments))
    resumed = DistributionalPPO.resume(tmp_path / "model", environments("Pendulum-v1")).continue_learning()
    assert everything(resumed) == expected


def test_checkpoint_callback_leaves_exact_files(tmp_path: Path) -> None:
    """Row 31's cousin: SB3's own callback, which saves wherever in a rollout it is."""
    straight = new().learn(TOTAL, CheckpointCallback(save_freq=75, save_path=str(tmp_path)))
    expected = everything(straight)
    resumed = DistributionalPPO.resume(tmp_path / "rl_model_150_steps", environments(), require="exact")
    resumed.continue_learning(CheckpointCallback(save_freq=75, save_path=str(tmp_path)))
    assert everything(resumed) == expected


class Failing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that fails once so many steps have been taken."""

    armed = True
    left = 10**9

    def step(self, action: Any) -> Any:
        self.left -= 1
        if not self.left and self.armed:
            raise ZeroDivisionError("the simulator has failed")
        return super().step(action)


def failing(left: int) -> VecEnv:
    def make() -> gymnasium.Env[Any, Any]:
        env = Failing(gymnasium.make("CartPole-v1"))
        env.left = left
        return env

    return make_vec_env(make, 2, seed=5)


def test_a_failing_environment_leaves_a_model_that_can_be_saved_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 31 of the failure modes."""
    expected = everything(new(venv=failing(10**9)).learn(TOTAL))
    model = new(venv=failing(77))
    with pytest.raises(ZeroDivisionError):
        model.learn(TOTAL)
    assert model.is_resumable
    model.save(tmp_path / "model")
    monkeypatch.setattr(Failing, "armed", False)
    resumed = DistributionalPPO.resume(tmp_path / "model", failing(1), require="exact")
    assert resumed.num_timesteps == 128
    assert everything(resumed.continue_learning()) == expected


def test_a_failing_callback_leaves_one_too(tmp_path: Path) -> None:
    """Row 31 of the failure modes."""
    expected = everything(new().learn(TOTAL))

    def fail(model: PPO) -> None:
        raise ZeroDivisionError

    model = new()
    with pytest.raises(ZeroDivisionError):
        model.learn(TOTAL, At(200, fail))
    model.save(tmp_path / "model")
    assert everything(DistributionalPPO.resume(tmp_path / "model", environments()).continue_learning()) == expected


def test_logs_go_on_with_what_had_not_been_written(tmp_path: Path) -> None:
    straight, again = Collected(), Collected()
    model = new()
    model.set_logger(Logger(None, [straight]))
    model.learn(TOTAL, At(150, lambda model: model.save(tmp_path / "model")), log_interval=2)
    resumed = DistributionalPPO.resume(tmp_path / "model", environments())
    resumed.set_logger(Logger(None, [again]))
    resumed.continue_learning(log_interval=2)
    assert len(straight.records) == 2
    assert repr(again.records) == repr(straight.records[1:])


def test_the_best_score_of_an_evaluation_survives(tmp_path: Path) -> None:
    def callbacks(save: Any) -> tuple[EvalCallback, CallbackList]:
        evaluation = EvalCallback(environments(n_envs=1), n_eval_episodes=2, eval_freq=32, verbose=0)
        return evaluation, CallbackList([evaluation, At(200, save)])

    first, together = callbacks(lambda model: model.save(tmp_path / "model"))
    expected = everything(new().learn(TOTAL, together))
    second, together = callbacks(lambda model: None)
    resumed = DistributionalPPO.resume(tmp_path / "model", environments()).continue_learning(together)
    assert everything(resumed) == expected
    assert second.best_mean_reward == first.best_mean_reward
    assert np.array_equal(second.evaluations_timesteps, first.evaluations_timesteps)
    assert digest(second.evaluations_results) == digest(first.evaluations_results)


class Counting(BaseCallback):
    """A callback of a user's, with a state."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def _on_step(self) -> bool:
        self.seen += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict["seen"]


def test_a_callback_with_a_state_goes_on_and_one_without_is_named(tmp_path: Path) -> None:
    model = new()
    model.learn(TOTAL, CallbackList([Counting(), At(200, lambda model: model.save(tmp_path / "model"))]))
    counting = Counting()
    resumed = DistributionalPPO.resume(tmp_path / "model", environments(), require="exact")
    resumed.continue_learning(CallbackList([counting]))
    assert counting.seen == TOTAL // 2


def test_a_callback_that_affects_training_and_has_no_state_lowers_the_level(tmp_path: Path) -> None:
    class Affecting(At):
        affects_training = True

    new().learn(TOTAL, Affecting(200, lambda model: model.save(tmp_path / "model")))
    with pytest.raises(Mismatch, match="Affecting affects training and has no state_dict"):
        DistributionalPPO.resume(tmp_path / "model", environments(), require="exact")


class Opaque(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that holds something nobody can save."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.place = iter(())


def test_environments_that_nobody_can_save_start_new_episodes_the_same_ones_each_time(tmp_path: Path) -> None:
    def opaque() -> VecEnv:
        return make_vec_env(lambda: Opaque(gymnasium.make("CartPole-v1")), 2, seed=5)

    saved_at(150, tmp_path / "model", venv=opaque())
    with pytest.raises(Mismatch, match=r"only at the level 'episode': CartPole-v1 has no state that could be saved"):
        DistributionalPPO.resume(tmp_path / "model", opaque(), require="exact")
    ends = []
    for _ in range(2):
        resumed = DistributionalPPO.resume(tmp_path / "model", opaque())
        assert resumed.resumed is not None
        assert resumed.resumed.level == Level.EPISODE
        ends.append(everything(resumed.continue_learning()))
    assert ends[0] == ends[1]


def test_environments_in_processes_of_sb3_start_anew_too(tmp_path: Path) -> None:
    def remote() -> VecEnv:
        return make_vec_env(
            "CartPole-v1", 2, seed=5, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}
        )

    saved_at(150, tmp_path / "model", venv=remote())
    ends = [everything(DistributionalPPO.resume(tmp_path / "model", remote()).continue_learning()) for _ in range(2)]
    assert ends[0] == ends[1]


def test_a_model_that_is_saved_after_training_is_no_checkpoint(tmp_path: Path) -> None:
    new().learn(ROLLOUT).save(tmp_path / "model")
    with pytest.raises(Mismatch, match="no training that could be continued"):
        DistributionalPPO.resume(tmp_path / "model", environments())


def test_other_environments_are_refused(tmp_path: Path) -> None:
    saved_at(150, tmp_path / "model")
    with pytest.raises(Mismatch, match="do not match"):
        DistributionalPPO.resume(tmp_path / "model", environments("Pendulum-v1"))
    with pytest.raises(Mismatch, match="made in the same way"):
        DistributionalPPO.resume(tmp_path / "model", VecNormalize(environments()))
    with pytest.raises(ArgumentError, match="give the environment"):
        DistributionalPPO.resume(tmp_path / "model")
    with pytest.raises(ArgumentError, match="there are exact, exact-replay, episode, weights"):
        DistributionalPPO.resume(tmp_path / "model", environments(), require="exactly")


def test_a_training_that_is_over_can_be_extended(tmp_path: Path) -> None:
    saved_at(TOTAL - 2, tmp_path / "model")
    resumed = DistributionalPPO.resume(tmp_path / "model", environments()).continue_learning(extend=ROLLOUT)
    assert resumed.num_timesteps == TOTAL + ROLLOUT
    assert resumed.lr_schedule(resumed._current_progress_remaining) == 0.0


def test_without_a_training_there_is_nothing_to_continue() -> None:
    with pytest.raises(OrderError, match="No training was begun"):
        new().continue_learning()
    with pytest.raises(ArgumentError, match="extend=-1"):
        new().continue_learning(extend=-1)


def test_a_schedule_that_is_a_function_is_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="learning_rate"):
        saved_at(150, tmp_path / "model", learning_rate=lambda progress: 1e-3 * progress)
    with pytest.raises(Mismatch, match="learning_rate is a function, which no file holds"):
        DistributionalPPO.resume(tmp_path / "model", environments(), require="exact")


def test_another_machine_or_another_version_is_said_and_refused_where_exact_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 9 of the failure modes, and its neighbours: device, threads, versions."""
    saved_at(150, tmp_path / "model")
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    with pytest.raises(Mismatch, match=r"threads was \d+, and is 77 here"):
        DistributionalPPO.resume(tmp_path / "model", environments(), require="exact")
    resumed = DistributionalPPO.resume(tmp_path / "model", environments()).resumed
    assert resumed is not None
    assert resumed.level == Level.EPISODE


def test_the_decision_to_compile_is_kept() -> None:
    """A resumed training whose total alone would not pay for compiling still compiles, or does not."""
    model = new(compile="auto")
    file = io.BytesIO()
    model.learn(TOTAL, At(150, lambda model: model.save(file)))
    assert model._compiles is False
    file.seek(0)
    resumed = DistributionalPPO.resume(file, environments())
    resumed.continue_learning(At(200, lambda model: None), extend=0)
    assert resumed._compiles is False


def test_after_learning_the_state_is_that_of_now() -> None:
    model = new().learn(ROLLOUT)
    assert not model.is_resumable
    model.num_timesteps = 7
    assert model.saved_steps == 7


class Odd(BaseCallback):
    """A callback with attributes and methods of other meanings than SB3's."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks, self.callback = None, self

    def _on_step(self) -> bool:
        return True

    def state_dict(self, full: bool) -> dict[str, Any]:
        return {"full": full}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Stubborn(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper whose methods of these names mean something else."""

    def get_state(self, agent: int) -> int:
        return agent

    def set_state(self, state: int) -> None: ...


def test_nothing_of_a_users_keeps_a_training_from_going_on(tmp_path: Path) -> None:
    """The state between two rollouts is taken of whatever is there; methods with other arguments are no state."""
    venv = make_vec_env(lambda: Stubborn(gymnasium.make("CartPole-v1")), 2, seed=5)
    model = new(venv=venv)
    model.learn(TOTAL, CallbackList([Odd(), At(150, lambda model: model.save(tmp_path / "model"))]))
    assert model.num_timesteps == TOTAL
    lost = read_manifest(tmp_path / "model.zip")["callbacks_not_restored"]
    assert any(name.endswith("Odd") for name in lost)
    DistributionalPPO.resume(tmp_path / "model", venv, require="exact")  # the wrapper's attributes are its state


class Unfinished(gymnasium.Wrapper[Any, Any, Any, Any]):
    def get_state(self) -> int:
        raise NotImplementedError("some day")

    def set_state(self, state: int) -> None: ...


def test_a_state_that_is_not_implemented_lowers_the_level(tmp_path: Path) -> None:
    venv = make_vec_env(lambda: Unfinished(gymnasium.make("CartPole-v1")), 1, seed=5)
    saved_at(150, tmp_path / "model", venv=venv)
    with pytest.raises(Mismatch, match=r"its get_state\(\) is not implemented \(some day\)"):
        DistributionalPPO.resume(tmp_path / "model", venv, require="exact")


def test_a_state_that_fails_ends_training_with_its_own_error() -> None:
    """What a user has written to be kept, and is wrong, is said at the first clean point and not hours later."""

    class Wrong(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def state_dict(self) -> dict[str, Any]:
            raise KeyError("misspelt")

        def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

    with pytest.raises(KeyError, match="misspelt"):
        new().learn(TOTAL, Wrong())


def test_environments_that_are_too_large_for_a_file_start_anew(tmp_path: Path) -> None:
    class Hoarding(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: Any) -> None:
            super().__init__(env)
            self.memory = {str(number): 40 * "x" for number in range(30_000)}

    def make() -> VecEnv:
        return make_vec_env(lambda: Hoarding(gymnasium.make("CartPole-v1")), 1, seed=5)

    saved_at(150, tmp_path / "model", venv=make())
    with pytest.raises(Mismatch, match="the environments have no place in a file"):
        DistributionalPPO.resume(tmp_path / "model", make(), require="exact")
    assert DistributionalPPO.resume(tmp_path / "model", make()).continue_learning().num_timesteps == TOTAL


def test_in_the_same_process_learning_goes_on_from_before_the_rollout() -> None:
    expected = everything(new().learn(TOTAL))

    def fail(model: PPO) -> None:
        raise ZeroDivisionError

    model = new()
    with pytest.raises(ZeroDivisionError):
        model.learn(TOTAL, At(200, fail))
    assert everything(model.continue_learning()) == expected


def test_other_parameters_after_a_failure_are_no_checkpoint() -> None:
    def fail(model: PPO) -> None:
        raise ZeroDivisionError

    model = new()
    with pytest.raises(ZeroDivisionError):
        model.learn(TOTAL, At(200, fail))
    model.set_parameters(model.get_parameters())
    assert not model.is_resumable


def test_functions_are_named_among_what_is_not_restored(tmp_path: Path) -> None:
    def function(local: dict[str, Any], _: dict[str, Any]) -> bool:
        if local["self"].num_timesteps == 150:
            local["self"].save(tmp_path / "model")
        return True

    new().learn(TOTAL, function)
    assert read_manifest(tmp_path / "model.zip")["callbacks_not_restored"] == [
        "stable_baselines3.common.callbacks.ConvertCallback"
    ]
