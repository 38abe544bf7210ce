"""Row 8 of the failure modes, where observations have the same shape and another meaning."""

from pathlib import Path
from typing import Any

import gymnasium
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from everlearn import PPO
from everlearn.core.errors import StateError

FEATURES: dict[str, Any] = {"kind": "toy", "features": ["a", "b"], "scale": 0.1}


class Described(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, **interface: Any) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.policy_interface = {**FEATURES, **interface}


def described(vec_env_cls: Any = None, **interface: Any) -> VecEnv:
    return make_vec_env(lambda: Described(**interface), 2, seed=0, vec_env_cls=vec_env_cls)


def saved(tmp_path: Path, venv: VecEnv) -> Path:
    path = tmp_path / "model.zip"
    PPO("MlpPolicy", venv, n_steps=8, batch_size=8, device="cpu").save(path)
    venv.close()
    return path


@pytest.mark.parametrize("vec_env_cls", [None, SubprocVecEnv])
def test_what_an_environment_says_of_its_observations_goes_with_the_model(tmp_path: Path, vec_env_cls: Any) -> None:
    model = PPO.load(saved(tmp_path, described(vec_env_cls)))
    assert model.policy_interface == FEATURES
    model.set_env(described())
    assert model.policy_interface == FEATURES
    again = tmp_path / "again"
    model.save(again)
    assert PPO.load(again).policy_interface == FEATURES


def test_an_environment_that_says_nothing_leaves_what_is_known(tmp_path: Path) -> None:
    model = PPO.load(saved(tmp_path, described()), env=make_vec_env("CartPole-v1"))
    assert model.policy_interface == FEATURES
    assert PPO("MlpPolicy", "CartPole-v1").policy_interface is None


def test_an_environment_whose_observations_mean_something_else_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, described())
    with pytest.raises(StateError, match=r"features is \['b', 'a'\], not \['a', 'b'\]"):
        PPO.load(path, env=described(features=["b", "a"]))
    model = PPO.load(path, env=described())
    kept = model.env
    with pytest.raises(StateError, match=r"scale is 0\.2, not 0\.1"):
        model.set_env(described(scale=0.2))
    assert model.env is kept
