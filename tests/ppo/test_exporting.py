"""Models as Stable-Baselines3's own, which load and act where everlearn is not installed."""

import copy
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from everlearn import PPO
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError
from everlearn.core.rng import GlobalGenerators
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.exporting import to_sb3
from everlearn.ppo.policy import ActorCriticPolicy
from tests.ppo.updates import assert_identical, model_of
from tests.ppo.worlds import world

ABSENT = """
import json, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "everlearn":
            raise ImportError("everlearn is not installed here")

sys.meta_path.insert(0, Absent())
"""
WITHOUT_EVERLEARN = f"""
{ABSENT}
import numpy as np, torch
from stable_baselines3 import PPO
found = {{}}
for file in sorted(Path(sys.argv[1]).glob("*.zip")):
    model = PPO.load(file, device="cpu")
    observations = np.load(file.with_suffix(".npy"))
    values = model.policy.predict_values(torch.as_tensor(observations)).flatten().double().tolist()
    found[file.stem] = values, model.predict(observations, deterministic=True)[0].tolist()
assert "everlearn" not in sys.modules
print(json.dumps(found))
"""


STATISTICS_WITHOUT_EVERLEARN = f"""
{ABSENT}
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
print(json.dumps(VecNormalize.load(sys.argv[1], make_vec_env("Pendulum-v1")).obs_rms.mean.tolist()))
"""


def exported(model: PPO) -> tuple[stable_baselines3.PPO, str]:
    """The model of Stable-Baselines3, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = to_sb3(model)
    assert len(caught) <= 1
    return result, "".join(str(warning.message) for warning in caught)


def observations_for(model: PPO, size: int = 32) -> np.ndarray:
    shape = (size, *model.observation_space.shape)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def values_of(model: Any, observations: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model.policy.predict_values(torch.as_tensor(observations)).flatten()


FOLDED: dict[str, dict[str, Any]] = {
    "scalar": {"algorithm": PPO},
    "scalar, Adam with options": {
        "algorithm": PPO,
        "optimizer_kwargs": {"eps": 1e-4, "weight_decay": 0.01, "lr": 1e-3},
    },
    "scalar in a unit": {"algorithm": PPO, "normalize_returns": True},
    "quantiles": {"algorithm": PPO, "value_head": "quantile"},
    "quantiles in a unit": {"n_critics": 1},
}


PLACES = ("cartpole", "pendulum")


@pytest.fixture(scope="module")
def models() -> dict[str, PPO]:
    """Of each kind, after two rollouts; tests only look at them."""
    return {
        f"{kind}, {place}": model_of(place, **arguments).learn(64)
        for kind, arguments in FOLDED.items()
        for place in PLACES
    }


@pytest.fixture(scope="module")
def elsewhere(models: dict[str, PPO], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What their files value and do in a process in which everlearn cannot be imported."""
    folder = tmp_path_factory.mktemp("exported")
    for name, model in models.items():
        exported(model)[0].save(folder / f"{name}.zip")
        np.save(folder / f"{name}.npy", observations_for(model))
    program = [sys.executable, "-c", WITHOUT_EVERLEARN, str(folder)]
    return json.loads(subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.mark.parametrize("name", [f"{kind}, {place}" for kind in FOLDED for place in PLACES])
def test_an_exported_file_acts_and_values_the_same_where_everlearn_is_absent(
    name: str, models: dict[str, PPO], elsewhere: dict[str, Any]
) -> None:
    model, (values, actions) = models[name], elsewhere[name]
    observations = observations_for(model)
    np.testing.assert_array_equal(np.array(actions, np.float32), model.predict(observations, deterministic=True)[0])
    expected = values_of(model, observations).double().numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_a_scalar_model_with_one_critic_is_exported_whole() -> None:
    model = model_of("pendulum", PPO, use_sde=True, gamma=0.9, ent_coef=0.01, target_kl=0.5).learn(64)
    result, warned = exported(model)
    assert warned == ""
    assert_identical(dict(result.policy.state_dict()), dict(model.policy.state_dict()))
    assert_identical(result.policy.optimizer.state_dict()["state"], model.policy.optimizer.state_dict()["state"])
    own, theirs = (each.policy.optimizer.param_groups[0] for each in (model, result))
    assert {name: own[name] for name in own if name != "params"} == {n: theirs[n] for n in theirs if n != "params"}
    names = ["gamma", "ent_coef", "target_kl", "n_steps", "batch_size", "n_epochs", "num_timesteps", "_n_updates"]
    names += ["use_sde", "_total_timesteps", "_stats_window_size", "seed", "_current_progress_remaining", "gae_lambda"]
    assert [getattr(result, name) for name in names] == [getattr(model, name) for name in names]


def test_training_goes_on_in_stable_baselines3_as_it_would_have_here(tmp_path: Path) -> None:
    model = model_of("cartpole", PPO, learning_rate="lin_1e-3").learn(64)
    exported(model)[0].save(tmp_path / "model.zip")
    theirs = stable_baselines3.PPO.load(tmp_path / "model.zip", world("cartpole"), device="cpu")
    model.set_env(world("cartpole"))
    for each in (model, theirs):
        each.set_random_seed(5)
        each.learn(64, reset_num_timesteps=False)
    assert_identical(dict(theirs.policy.state_dict()), dict(model.policy.state_dict()))


@pytest.mark.parametrize("place", ["images", "dictionaries", "several numbers", "switches"])
def test_every_kind_of_policy_is_exported_to_its_own(place: str) -> None:
    policy = {"images": "CnnPolicy", "dictionaries": "MultiInputPolicy"}.get(place, "MlpPolicy")
    model = model_of(place, PPO, policy).learn(32)
    result, warned = exported(model)
    assert warned == ""
    assert type(result.policy) is stable_baselines3.PPO.policy_aliases[policy]
    observation = model.env.reset()
    actions = [each.predict(observation, deterministic=True)[0] for each in (model, result)]
    np.testing.assert_array_equal(*actions)


def test_of_several_critics_the_first_is_exported_and_told() -> None:
    model = model_of("cartpole", n_critics=3, critic_reduction="min").learn(64)
    result, warned = exported(model)
    assert "critics: the first of 3; values then were their MinReduction" in warned
    observations = observations_for(model)
    with torch.no_grad():
        first = model.policy.predict_distributions(torch.as_tensor(observations))[0].mean
    expected = model.policy.return_scale.denormalize(first)
    assert float(model.policy.return_scale.std) != 1.0
    assert torch.allclose(values_of(result, observations), expected, rtol=1e-5, atol=1e-5)
    actions = [each.predict(observations, deterministic=True)[0] for each in (model, result)]
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("unit", [True, False])
def test_a_head_whose_mean_is_not_linear_leaves_the_mean_of_the_unit(unit: bool) -> None:
    model = model_of("cartpole", PPO, value_head="categorical", normalize_returns=unit).learn(64)
    result, warned = exported(model)
    mean = float(model.policy.return_scale.mean) if unit else 0.0
    assert f"the mean of a CategoricalHead is not linear in its outputs; they are {mean:g} always" in warned
    assert (mean != 0.0) is unit
    assert torch.equal(values_of(result, observations_for(model)), torch.full((32,), mean))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"optimizer_class": "adamw"}, "it was AdamW"),
        ({"optimizer_class": "upgd"}, "it was UPGD"),
        ({"value_head": "quantile"}, "its parameters are others"),
        ({"normalize_returns": True}, "its parameters are others"),
        ({"n_critics": 2}, "its parameters are others"),
    ],
)
def test_another_optimizer_or_critic_means_an_adam_that_begins_anew(arguments: dict[str, Any], why: str) -> None:
    result, warned = exported(model_of("cartpole", PPO, **arguments).learn(32))
    assert f"optimizer: an Adam that begins anew; {why}" in warned
    assert type(result.policy.optimizer) is torch.optim.Adam
    assert len(result.policy.optimizer.state) == 0


def test_an_optimizer_class_in_policy_kwargs_does_not_go_along() -> None:
    options = {"net_arch": [8], "optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}}
    result, _ = exported(model_of("cartpole", PPO, policy_kwargs=options))
    assert type(result.policy.optimizer) is torch.optim.Adam
    assert result.policy.optimizer.defaults["eps"] == 1e-5


# --- schedules --------------------------------------------------------------------------------------------------------


def test_schedules_that_are_data_become_those_of_stable_baselines3() -> None:
    model = model_of(
        "cartpole",
        PPO,
        learning_rate={"kind": "linear", "start": 1e-3, "end": 1e-4},
        clip_range=0.1,
        clip_range_vf="lin_2",
    )
    result, warned = exported(model)
    assert warned == ""
    assert type(result.lr_schedule.value_schedule) is LinearSchedule
    assert type(result.clip_range.value_schedule) is ConstantSchedule
    for rest in (1.0, 0.3, 0.0):
        assert result.lr_schedule(rest) == model.lr_schedule(rest)
        assert result.clip_range(rest) == 0.1
        assert result.clip_range_vf(rest) == pytest.approx(2 * rest)


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [({"kind": "cosine", "start": 1e-3, "end": 1e-4}, "cosine"), (lambda rest: 1e-4 + 9e-4 * rest, "of a function")],
)
def test_other_schedules_become_what_they_are_now(schedule: Any, kind: str) -> None:
    model = model_of("cartpole", PPO, learning_rate=schedule).learn(64)
    model._current_progress_remaining = 0.5
    result, warned = exported(model)
    now = model.lr_schedule(0.5)
    assert f"learning_rate: the schedule is {kind}; from now on it is {now:g}" in warned
    assert result.lr_schedule(1.0) == result.lr_schedule(0.0) == now != model.lr_schedule(1.0)


@pytest.mark.parametrize("clip", [0.5, "lin_0.5"])
def test_a_clip_range_of_values_goes_from_the_unit_to_rewards(clip: Any) -> None:
    model = model_of("cartpole", PPO, normalize_returns=True, clip_range_vf=clip).learn(64)
    result, _ = exported(model)
    assert result.clip_range_vf(1.0) == pytest.approx(0.5 * float(model.policy.return_scale.std))
    assert float(model.policy.return_scale.std) != 1.0


# --- what cannot go along ---------------------------------------------------------------------------------------------


def test_parts_that_stable_baselines3_lacks_are_told() -> None:
    _, warned = exported(model_of("cartpole", kl_penalty=True))
    assert "variance gradient scaling: there is none" in warned
    assert "KL control: there is none" in warned


def normalising(env: Any, policy: str = "MlpPolicy") -> PPO:
    return PPO(policy, env, n_steps=16, batch_size=16, device="cpu").learn(16)


@pytest.mark.parametrize("inside", [False, True])
def test_row_36_statistics_of_stable_baselines3_go_its_own_way(inside: bool, tmp_path: Path) -> None:
    """Row 36 of the failure modes: what the warning advises is done here."""
    env: Any = VecNormalize(world("pendulum"))
    model = normalising(VecFrameStack(env, 2) if inside else env)
    _, warned = exported(model)
    assert "model.get_vec_normalize_env().save(path) and load them with VecNormalize.load" in warned
    model.get_vec_normalize_env().save(str(tmp_path / "statistics"))
    program = [sys.executable, "-c", STATISTICS_WITHOUT_EVERLEARN, str(tmp_path / "statistics")]
    found = json.loads(subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert found == env.obs_rms.mean.tolist()


@pytest.mark.parametrize("has_env", [True, False])
@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, "clip_obs=10.0, epsilon=1e-08"),
        ({"clip_obs": np.inf}, "clip_obs=float('inf'), epsilon=1e-08"),
        ({"clip_obs": 0.5, "epsilon": 0.1}, "clip_obs=0.5, epsilon=0.1"),
    ],
)
def test_row_36_other_statistics_are_told_with_what_to_do(
    options: dict[str, float], written: str, has_env: bool
) -> None:
    """Row 36 of the failure modes: what the warning advises is done here."""
    model = normalising(Normaliser(world("pendulum"), **options))
    model = model if has_env else copy.deepcopy(model)
    _, warned = exported(model)
    assert (
        f"VecNormalize(venv, training=False, norm_reward=False, {written}, norm_obs_keys=None) and set mean" in warned
    )
    assert "mean and var of its obs_rms to those in model.normaliser_state['obs_rms']" in warned
    theirs = VecNormalize(world("pendulum"), training=False, norm_reward=False, norm_obs_keys=None, **options)
    statistics = model.normaliser_state["obs_rms"][""]
    theirs.obs_rms.mean, theirs.obs_rms.var = statistics["mean"].numpy(), statistics["var"].numpy()
    raw = np.array([[0.3, -0.8, 5.0]], np.float32)
    assert np.array_equal(theirs.normalize_obs(raw), model.normalize_obs(raw))


def test_row_36_statistics_of_keys_are_told_with_the_keys() -> None:
    env = Normaliser(world("dictionaries"), norm_obs_keys=["vec"])
    _, warned = exported(PPO("MultiInputPolicy", env, n_steps=16, batch_size=16, device="cpu"))
    assert "norm_obs_keys=['vec']) and set mean and var of its obs_rms[key], by key," in warned


def test_row_36_normalised_rewards_do_not_concern_who_acts() -> None:
    model = PPO("MlpPolicy", Normaliser(world("pendulum"), norm_obs=False), n_steps=16, batch_size=16, device="cpu")
    _, warned = exported(model)
    assert "its statistics of the rewards are left out" in warned
    assert "normalised observations" not in warned


def test_a_buffer_of_the_user_goes_along() -> None:
    class Own(RolloutBuffer):
        pass

    result, _ = exported(model_of("cartpole", PPO, rollout_buffer_class=Own))
    assert type(result.rollout_buffer) is Own


def test_an_adam_with_several_groups_begins_anew() -> None:
    class Grouped(SB3ActorCriticPolicy):
        def _build(self, lr_schedule: Any) -> None:
            super()._build(lr_schedule)
            first, *rest = self.parameters()
            groups = [{"params": [first]}, {"params": rest}]
            self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)

    model = PPO(Grouped, world("cartpole"), n_steps=16, batch_size=16, device="cpu").learn(16)
    model.policy_class = SB3ActorCriticPolicy
    result, warned = exported(model)
    assert "an Adam that begins anew; its parameters are others" in warned
    assert len(result.policy.optimizer.state) == 0


def test_a_policy_derived_from_ours_is_refused() -> None:
    class Own(ActorCriticPolicy):
        pass

    with pytest.raises(ArgumentError, match="Own is derived from everlearn's policy"):
        to_sb3(model_of("cartpole", PPO, Own))


def test_a_policy_of_the_user_is_itself() -> None:
    class Own(SB3ActorCriticPolicy):
        pass

    model = PPO(Own, world("cartpole"), n_steps=16, batch_size=16, device="cpu").learn(16)
    result, warned = exported(model)
    assert warned == ""
    assert type(result.policy) is Own
    assert_identical(dict(result.policy.state_dict()), dict(model.policy.state_dict()))


def test_neither_the_model_nor_the_callers_generators_change() -> None:
    model = model_of("pendulum", seed=3)
    before = digest(model.get_parameters()), digest(GlobalGenerators().state_dict())
    with pytest.warns(UserWarning, match="cannot hold everything"):
        result = to_sb3(model)
    assert digest(GlobalGenerators().state_dict()) == before[1]
    for parameter in result.policy.parameters():
        parameter.data.fill_(7.0)
    result.action_space.seed(1)
    assert digest(model.get_parameters()) == before[0]
    assert result.action_space is not model.action_space


def test_the_warning_points_at_whoever_saves(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="cannot hold everything") as caught:
        model_of("cartpole").save(tmp_path / "model", format="sb3")
    assert caught[0].filename == __file__
    assert type(stable_baselines3.PPO.load(tmp_path / "model", device="cpu").policy) is SB3ActorCriticPolicy
