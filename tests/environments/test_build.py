import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from everlearn.core.errors import ConfigError, MissingExtraError, NonFiniteError
from everlearn.environments import build
from everlearn.environments.build import evaluation_environment, reward_threshold, training_environment
from everlearn.environments.finite import FiniteVecEnv
from everlearn.environments.normaliser import Normaliser
from everlearn.environments.spec import EnvConfig
from tests.environments.toys import Scripted

SCRIPTED = "everlearn-tests/Scripted-v0"


@pytest.fixture(autouse=True)
def scripted_environment() -> Any:
    gymnasium.register(SCRIPTED, Scripted, order_enforce=False)
    yield
    del gymnasium.registry[SCRIPTED]


def built(env_id: str = "CartPole-v1", **settings: Any) -> VecEnv:
    return training_environment(EnvConfig.model_validate({"id": env_id, "n_envs": 2, **settings}), gamma=0.9)


@pytest.mark.parametrize(
    ("env_id", "normalize", "kind"),
    [
        ("CartPole-v1", "auto", FiniteVecEnv),
        ("CartPole-v1", True, Normaliser),
        ("Pendulum-v1", "auto", Normaliser),
        ("Pendulum-v1", False, FiniteVecEnv),
        ("Pendulum-v1", {"clip_obs": 5.0}, Normaliser),
    ],
)
def test_continuous_control_is_normalised_unless_the_configuration_says_otherwise(
    env_id: str, normalize: Any, kind: type
) -> None:
    assert type(built(env_id, normalize=normalize)) is kind


def test_the_normaliser_has_the_settings_and_the_algorithms_discount() -> None:
    normaliser = built("Pendulum-v1", normalize={"clip_obs": 5.0, "norm_reward": False})
    assert isinstance(normaliser, Normaliser)
    assert (normaliser.clip_obs, normaliser.norm_reward, normaliser.gamma) == (5.0, False, 0.9)


def test_arguments_reach_the_environment() -> None:
    venv = built(SCRIPTED, kwargs={"length": 3})
    assert venv.get_attr("length") == [3, 3]
    assert venv.num_envs == 2


def test_wrappers_reach_the_environment() -> None:
    venv = built(wrappers=[{"kind": "TimeLimit", "max_episode_steps": 4}])
    venv.reset()
    dones = [venv.step(np.array([0, 1]))[2] for _ in range(4)]
    assert np.array_equal(dones[-1], [True, True])


def test_nan_is_refused_without_normalisation_too() -> None:
    venv = built(SCRIPTED, normalize=False, kwargs={"bad_reward_at": 1})
    venv.reset()
    with pytest.raises(NonFiniteError), pytest.warns(UserWarning, match="reward is a NaN"):
        venv.step(np.array([0, 0]))


@pytest.mark.parametrize(
    ("env_id", "normalize"), [("FrozenLake-v1", True), ("CartPole-v1", {"norm_obs_keys": ["near"]})]
)
def test_observations_that_cannot_be_normalised_are_refused(env_id: str, normalize: Any) -> None:
    with pytest.raises(ConfigError, match=r"env\.normalize: .* Set norm_obs to false"):
        built(env_id, normalize=normalize)


def test_evaluation_sees_what_training_saw_and_earns_true_rewards() -> None:
    training = built("Pendulum-v1")
    assert isinstance(training, Normaliser)
    training.reset()
    for _ in range(20):
        training.step(np.zeros((2, 1), np.float32))
    fresh = evaluation_environment(EnvConfig(id="Pendulum-v1"), 1, 3, training.state_dict())
    raw = evaluation_environment(EnvConfig(id="Pendulum-v1"), 1, 3)
    assert np.allclose(fresh.reset(), training.normalize_obs(raw.reset()))
    action = np.ones((1, 1), np.float32)
    assert fresh.step(action)[1] == raw.step(action)[1]


def test_evaluation_repeats_with_its_seed() -> None:
    first, again, other = (evaluation_environment(EnvConfig(id="CartPole-v1"), 2, seed) for seed in (1, 1, 2))
    start = first.reset()
    assert np.array_equal(start, again.reset())
    assert not np.array_equal(start, other.reset())


def test_the_threshold_is_the_environments_own() -> None:
    assert reward_threshold("CartPole-v1") == 475
    assert reward_threshold("Pendulum-v1") is None


@pytest.mark.parametrize(
    ("env_id", "complaint"),
    [
        ("CartPole-v9", "env.id: there is no environment 'CartPole-v9'. Did you mean CartPole-v1 or"),
        ("CartPoll-v1", "Did you mean CartPole-v1"),
        ("Nothing like it", "there is no environment 'Nothing like it'.*--import MODULE"),
        ("pickle:CartPole-v1", "--import pickle --env CartPole-v1"),
    ],
)
def test_an_unknown_id_is_answered_with_a_remedy(env_id: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        built(env_id)


def test_a_module_in_an_id_is_not_imported() -> None:
    with pytest.raises(ConfigError):
        built("antigravity:CartPole-v1")
    assert "antigravity" not in sys.modules


def test_an_unknown_argument_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"env.kwargs: .*unexpected keyword argument 'gravty'.*Remove or rename"):
        built(kwargs={"gravty": 1.0})


def test_an_argument_out_of_range_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"env.kwargs: 'CartPole-v1' cannot be made with .*positive.* Change the arg"):
        built(kwargs={"max_episode_steps": 0})


def test_unusable_spaces_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="start at 1"):
        built(SCRIPTED, kwargs={"action_space": spaces.Discrete(2, start=1)})


def test_a_missing_simulator_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingExtraError, match=r"'HalfCheetah-v5' needs.*pip install 'everlearn\[mujoco\]'"):
        built("HalfCheetah-v5")


def test_an_environment_that_cannot_be_made_says_why() -> None:
    def unmade(**_: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("install the warp drive")

    gymnasium.register("everlearn-tests/Unmade-v0", unmade)
    with pytest.raises(ConfigError, match="needs a package that is not installed: install the warp drive"):
        built("everlearn-tests/Unmade-v0")
    del gymnasium.registry["everlearn-tests/Unmade-v0"]


def test_warnings_of_mujoco_are_logged_once_and_leave_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    build._log_mujoco_warning.cache_clear()
    simulations = [environment.unwrapped for environment in built("Hopper-v5").unwrapped.envs]
    for simulation in simulations:
        simulation.reset(seed=0)
        simulation.data.qvel[:] = np.nan
        simulation.do_simulation(np.zeros(3), 1)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "The simulation is unstable" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_an_environment_does_to_the_filters_of_warnings_is_undone() -> None:
    """Row 33 of the failure modes: some make every later warning of the process an exception."""

    class Strict(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, **_: Any) -> None:
            super().__init__(gymnasium.make("CartPole-v1").unwrapped)
            warnings.filterwarnings("error")

    gymnasium.register("StrictFilters-v0", Strict)
    before = list(warnings.filters)
    try:
        training_environment(EnvConfig(id="StrictFilters-v0"), 0.99).close()
        assert warnings.filters == before
    finally:
        warnings.filters[:] = before
        del gymnasium.registry["StrictFilters-v0"]
