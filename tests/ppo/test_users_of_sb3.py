"""What users of Stable-Baselines3 save and load comes back, or somebody says so."""

from __future__ import annotations

import datetime
import io
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import ConstantSchedule

from everlearn import PPO
from everlearn.checkpoint.errors import Mismatch, TooLarge
from everlearn.checkpoint.limits import Limits
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError
from everlearn.ppo.vocabulary import extractors
from tests.ppo.files import file_of, rewritten
from tests.ppo.together import everything
from tests.ppo.updates import model_of
from tests.ppo.worlds import world


def again(model: PPO, **arguments: Any) -> PPO:
    return type(model).load(io.BytesIO(file_of(model)), device="cpu", **arguments)


@pytest.mark.parametrize("name", ["gamma", "ent_coef", "learning_rate", "clip_range", "n_steps"])
def test_what_is_excluded_is_not_in_the_file(name: str) -> None:
    model = model_of("pendulum", PPO, **{name: {"n_steps": 16}.get(name, 0.25)})
    model.save(stream := io.BytesIO(), exclude=[name])
    loaded = PPO.load(stream, device="cpu")
    assert (
        loaded.get_hyperparameters()[name]
        == model_of("pendulum", PPO, **DEFAULTS.get(name, {})).get_hyperparameters()[name]
    )


DEFAULTS: dict[str, dict[str, Any]] = {"n_steps": {"n_steps": 2048}}


def test_excluding_the_policy_means_the_attribute_which_is_no_argument() -> None:
    model = model_of("pendulum", PPO)
    model.save(stream := io.BytesIO(), exclude=["policy"])
    assert digest(PPO.load(stream, device="cpu").get_parameters()) == digest(model.get_parameters())


def test_what_a_monitor_keeps_besides_numbers_and_texts_is_left_out() -> None:
    model = model_of("pendulum", PPO).learn(32)
    episode = {"r": np.float32(1.5), "l": 3, "t": 0.1, "date": datetime.date(2026, 1, 2), "tags": {1}, "day": "Monday"}
    model.ep_info_buffer.append(episode)
    assert again(model).ep_info_buffer[-1] == {"r": 1.5, "l": 3, "t": 0.1, "day": "Monday"}


class Curious(PPO):
    """A subclass with a network of its own, as SB3 lets users add one."""

    def _setup_model(self) -> None:
        super()._setup_model()
        if not hasattr(self, "icm"):
            self.icm = torch.nn.Linear(2, 1)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, variables = super()._get_torch_save_params()
        return [*names, "icm"], variables


def test_a_network_of_a_subclass_comes_back_and_its_base_says_that_it_lacks_it() -> None:
    model = model_of("pendulum", Curious)
    assert torch.equal(again(model).icm.weight, model.icm.weight)
    with pytest.raises(Mismatch, match=r"a PPO has no part 'icm'. Load it with .* 'Curious'"):
        PPO.load(io.BytesIO(file_of(model)))


class Forgetful(PPO):
    """Keeps an argument under another name."""

    def __init__(self, *args: Any, bonus: float = 1.0, **kwargs: Any) -> None:
        self._bonus = bonus
        super().__init__(*args, **kwargs)


class Doubling(PPO):
    """Makes something else of its argument."""

    def __init__(self, *args: Any, scale: float = 1.0, **kwargs: Any) -> None:
        self.scale = 2 * scale
        super().__init__(*args, **kwargs)


def test_arguments_of_a_subclass_that_do_not_come_back_are_named() -> None:
    with pytest.warns(UserWarning, match="argument 'bonus' of Forgetful is no attribute of that name"):
        file_of(model_of("pendulum", Forgetful, bonus=9.0))
    model = model_of("pendulum", Doubling, scale=3.0)
    with pytest.warns(UserWarning, match=r"has scale=6.0; the loaded Doubling makes 12.0 of it"):
        again(model)


class Falling(ConstantSchedule):
    """No constant, whatever it is derived from."""

    def __call__(self, progress_remaining: float) -> float:
        return self.val * progress_remaining


def test_a_schedule_that_only_derives_from_a_constant_is_a_function() -> None:
    with pytest.warns(UserWarning, match="learning_rate is 'Falling', which has no name"):
        file_of(model_of("pendulum", PPO, learning_rate=Falling(1e-3)))


@pytest.fixture
def own_extractors(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("_entries", "_spellings"):
        monkeypatch.setattr(extractors, part, dict(getattr(extractors, part)))


class Normed(BaseFeaturesExtractor):
    """Uses a layer that no file holds."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 3)
        hidden = torch.nn.Linear(3, 3)
        torch.nn.init.constant_(hidden.weight, 0.5)
        torch.nn.init.zeros_(hidden.bias)
        self.target = [hidden]  # a list hides it from state_dict

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.target[0](observations)


class Wide(Normed):
    """Holds much besides its weights."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.register_buffer("table", torch.zeros(8_000_000), persistent=False)


@pytest.mark.usefixtures("own_extractors")
def test_layers_of_a_users_class_that_no_file_holds_are_initialised() -> None:
    extractors.add("normed", Normed)
    model = model_of("pendulum", PPO, policy_kwargs={"features_extractor_class": Normed})
    assert again(model).policy.features_extractor.target[0].weight.unique().tolist() == [0.5]


@pytest.mark.usefixtures("own_extractors")
def test_the_allowance_for_a_network_can_be_raised() -> None:
    extractors.add("wide", Wide)
    model = model_of("pendulum", PPO, policy_kwargs={"features_extractor_class": Wide})
    with pytest.raises(TooLarge, match=r"raise limits=Limits\(network=...\)"):
        again(model)
    assert again(model, limits=Limits(network=20)).policy.features_extractor.table.numel() == 8_000_000


def test_a_compiled_policy_learns_saves_and_takes_parameters_of_a_file(tmp_path: Any) -> None:
    model = everything().learn(32)
    model.policy = torch.compile(model.policy, backend="eager")
    model.save(tmp_path / "model")
    other = everything(seed=4)
    other.policy = torch.compile(other.policy, backend="eager")
    other.set_parameters(tmp_path / "model", device="cpu")
    assert digest(other.policy._orig_mod.state_dict()) == digest(model.policy._orig_mod.state_dict())
    assert type(other.evaluator.ensemble.head) is type(everything().evaluator.ensemble.head)
    other.learn(32)


def test_the_same_policy_arguments_may_be_given_again() -> None:
    arguments = {"net_arch": [8], "optimizer_kwargs": {"betas": (0.8, 0.9)}}
    model = model_of("pendulum", PPO, policy_kwargs=arguments, optimizer_class=torch.optim.Adam, optimizer_kwargs=None)
    assert again(model, policy_kwargs=arguments).policy_kwargs == arguments


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"gamma": 5.0}, "gamma=5.0 is outside"), ({"verbose": None}, "verbose=None"), ({"seed": {}}, "seed={}")],
)
def test_a_callers_mistake_is_the_callers(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        again(model_of("pendulum", PPO), **arguments)


def test_a_custom_learning_rate_rules_over_the_optimizers() -> None:
    model = model_of("pendulum", PPO, optimizer_class="adam", optimizer_kwargs={"lr": 1e-2})
    assert again(model, custom_objects={"learning_rate": 7e-3}).lr_schedule(1.0) == 7e-3


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members["optimizer.json"].update(param_groups=[]),
        lambda members: members["optimizer.json"].pop("state"),
        lambda members: members["policy.json"].pop("log_std"),
    ],
)
def test_parameters_of_a_file_that_do_not_fit_are_refused_whole(change: Any) -> None:
    model = model_of("pendulum", PPO).learn(32)
    before = digest(model.get_parameters())
    with pytest.raises(Mismatch):
        model.set_parameters(rewritten(file_of(model), change))
    assert digest(model.get_parameters()) == before


def test_an_infinite_gradient_norm_and_numbers_of_numpy_come_back() -> None:
    model = model_of(
        "pendulum",
        PPO,
        max_grad_norm=np.inf,
        stats_window_size=np.int64(9),
        policy_kwargs={"log_std_init": np.float64(-1)},
    )
    loaded = again(model, env=world("pendulum"))
    assert (loaded.max_grad_norm, loaded._stats_window_size) == (np.inf, 9)
    loaded.learn(32)
