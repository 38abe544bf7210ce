"""What a user's own classes, arguments and tools bring along is saved whole, refused by name, or told."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from everlearn import PPO
from everlearn.checkpoint.errors import Mismatch, TooLarge, Untrusted
from everlearn.checkpoint.limits import Limits
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError, StateError
from everlearn.ppo import vocabulary
from everlearn.ppo.exporting import to_sb3
from everlearn.ppo.policy import ActorCriticCnnPolicy, ActorCriticPolicy
from tests.carrying import through_a_pipe
from tests.ppo.files import file_of
from tests.ppo.updates import model_of
from tests.ppo.worlds import world


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (vocabulary.extractors, vocabulary.policies):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_spellings", dict(registry._spellings))


def loaded(model: PPO, **arguments: Any) -> PPO:
    return type(model).load(io.BytesIO(file_of(model)), device="cpu", **arguments)


# --- arguments --------------------------------------------------------------------------------------------------------


class Scaling(FlattenExtractor):
    """An extractor with an argument of any kind."""

    def __init__(self, space: Any, scale: Any = None) -> None:
        super().__init__(space)
        self.scale = scale


@pytest.mark.parametrize(
    "value", [torch.ones(4), {1, 2}, b"ab", range(3), slice(2)], ids=lambda value: type(value).__name__
)
def test_an_argument_that_no_file_can_hold_is_told_and_asked_for(value: Any) -> None:
    vocabulary.extractors.add("scaling", Scaling)
    kwargs = {"features_extractor_class": Scaling, "features_extractor_kwargs": {"scale": value}}
    model = model_of("cartpole", PPO, policy_kwargs=kwargs)
    name = type(value).__name__
    with pytest.warns(UserWarning, match=rf"policy_kwargs\.features_extractor_kwargs\.scale is '{name}'"):
        content = file_of(model)
    with pytest.raises(Mismatch, match=rf"policy_kwargs\.features_extractor_kwargs\.scale was '{name}'"):
        PPO.load(io.BytesIO(content))
    again = PPO.load(io.BytesIO(content), device="cpu", custom_objects={"policy_kwargs": {"net_arch": [8], **kwargs}})
    assert again.policy.features_extractor.scale is value


def test_keys_that_are_no_texts_stay_what_they_are() -> None:
    vocabulary.extractors.add("scaling", Scaling)
    scale = {1: 2, (0, 1): "x", "$tuple": 3, None: [4.5]}
    kwargs = {"features_extractor_class": Scaling, "features_extractor_kwargs": {"scale": scale}}
    again = loaded(model_of("cartpole", PPO, policy_kwargs=kwargs))
    assert again.policy.features_extractor.scale == scale


def test_excluding_what_every_file_holds_is_an_error_and_so_is_a_text() -> None:
    model = model_of("cartpole", PPO)
    with pytest.raises(ArgumentError, match=r"exclude=\['num_timesteps', 'observation_space'\] is part of every file"):
        model.save(io.BytesIO(), exclude=["observation_space", "num_timesteps", "gamma"])
    with pytest.raises(ArgumentError, match="give lists of names, not a text"):
        model.save(io.BytesIO(), exclude="gamma")
    model.save(io.BytesIO(), exclude=["num_timesteps"], include=["num_timesteps"])


def test_policy_kwargs_that_were_excluded_can_be_brought_along() -> None:
    model = model_of("cartpole", PPO)
    model.save(stream := io.BytesIO(), exclude=["policy_kwargs"])
    again = PPO.load(stream, device="cpu", policy_kwargs={"net_arch": [8]})
    assert digest(again.get_parameters()["policy"]) == digest(model.get_parameters()["policy"])


def test_arguments_of_another_kind_are_the_callers_mistake() -> None:
    content = file_of(model_of("cartpole", PPO))
    with pytest.raises(ArgumentError, match=r"custom_objects=.* is no dictionary"):
        PPO.load(io.BytesIO(content), custom_objects=["gamma"])
    with pytest.raises(ArgumentError, match=r"limits=\{\}: give everlearn\.checkpoint\.limits\.Limits"):
        PPO.load(io.BytesIO(content), limits={})
    with pytest.raises(ArgumentError, match="verbose='a' is of another kind"):
        PPO.load(io.BytesIO(content), env=world("cartpole"), verbose="a")
    with pytest.raises(RuntimeError, match="xyz"):
        PPO.load(io.BytesIO(content), device="xyz")
    with pytest.raises(Mismatch) as caught:
        PPO.load(io.BytesIO(content), device="cpu", optimizer_kwargs={"foo": 1})
    assert caught.value.__notes__ == ["These arguments were given and may be the reason: optimizer_kwargs."]


# --- parts of a subclass ----------------------------------------------------------------------------------------------


class Remembering(PPO):
    """A subclass with a tensor and a module of its own."""

    part = "memory"

    def _setup_model(self) -> None:
        super()._setup_model()
        self.log_temperature = torch.zeros(2, requires_grad=True)
        setattr(self, self.part, nn.Linear(2, 2))

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        parts, tensors = super()._get_torch_save_params()
        return [*parts, self.part], [*tensors, "log_temperature"]


def test_tensors_and_modules_of_a_subclass_come_back() -> None:
    model = model_of("cartpole", Remembering)
    with torch.no_grad():
        model.log_temperature += 5
        model.memory.weight += 1
    again = loaded(model)
    assert again.log_temperature.tolist() == [5.0, 5.0]
    assert again.log_temperature.requires_grad
    assert torch.equal(again.memory.weight, model.memory.weight)
    assert "variables" not in again.get_parameters()
    again.log_temperature = torch.zeros(3)
    with pytest.raises(StateError, match="variables of the state have the shapes"):
        again.state_tree()["variables"].load_state_dict(model.state_tree()["variables"].state_dict())
    again.log_temperature = 5.0
    with pytest.raises(StateError, match=r"'log_temperature' of _get_torch_save_params is 5\.0, which is no tensor"):
        file_of(again)
    with pytest.raises(Mismatch):
        PPO.load(io.BytesIO(file_of(model)))


@pytest.mark.parametrize("name", ["config", "spaces", "data", "optimizer", "probe", "vgs", "counters", "normaliser"])
def test_a_part_of_a_subclass_may_not_be_called_like_another(name: str) -> None:
    model = model_of("cartpole", type("Colliding", (Remembering,), {"part": name}))
    with pytest.raises(StateError, match=rf"'{name}' of _get_torch_save_params\(\) has another meaning in files"):
        file_of(model)


# --- compiled policies ------------------------------------------------------------------------------------------------


def test_a_compiled_policy_is_exported_and_takes_parameters_or_stays_as_it_was() -> None:
    model = model_of("pendulum", PPO)
    plain = to_sb3(model).policy.state_dict()
    model.policy = torch.compile(model.policy, backend="eager")
    assert digest(to_sb3(model).policy.state_dict()) == digest(plain)
    before = digest(model.get_parameters())
    model.set_parameters(model.get_parameters())
    model.set_parameters({"policy": model.policy.state_dict()}, exact_match=False)
    changed = {name: weight + 1 for name, weight in model.policy.state_dict().items()}
    with pytest.raises(KeyError):
        model.set_parameters({"policy": changed, "policy.optimizer": {"state": {}}})
    assert digest(model.get_parameters()) == before


# --- policies alone, and what is large --------------------------------------------------------------------------------


class Fixed(FlattenExtractor):
    """An extractor with a layer that is no part of its state."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        layer = nn.Linear(4, 4)
        nn.init.constant_(layer.weight, 0.25)
        self.hidden = [layer]


class Tabled(FlattenExtractor):
    """An extractor with a table far beyond its weights."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.register_buffer("table", torch.zeros(9_000_000), persistent=False)


def policy_file(policy: ActorCriticPolicy) -> io.BytesIO:
    policy.save(stream := io.BytesIO())
    return stream


def test_layers_of_a_users_extractor_that_no_file_holds_are_initialised() -> None:
    vocabulary.extractors.add("fixed", Fixed)
    model = model_of("cartpole", PPO, policy_kwargs={"features_extractor_class": Fixed})
    for policy in (loaded(model).policy, ActorCriticPolicy.load(policy_file(model.policy))):
        assert policy.features_extractor.hidden[0].weight.unique().tolist() == [0.25]


def test_a_policy_may_be_pinned_and_its_limits_raised() -> None:
    vocabulary.extractors.add("tabled", Tabled)
    model = model_of("cartpole", PPO, policy_kwargs={"features_extractor_class": Tabled})
    content = policy_file(model.policy)
    with pytest.raises(TooLarge, match=r"raise limits=Limits\(network=\.\.\.\)"):
        ActorCriticPolicy.load(content)
    again = ActorCriticPolicy.load(content, limits=Limits(network=10.0))
    assert digest(again.state_dict()) == digest(model.policy.state_dict())
    with pytest.raises(Untrusted):
        ActorCriticPolicy.load(content, sha256="0" * 64)
    for copied in (copy.deepcopy(model), through_a_pipe(model)):
        assert digest(copied.get_parameters()) == digest(model.get_parameters())


def test_a_policy_is_of_the_class_that_saved_it() -> None:
    content = policy_file(model_of("cartpole", PPO).policy)
    with pytest.raises(Mismatch, match=r"holds a 'ActorCriticPolicy', not a ActorCriticCnnPolicy\. Load it with Actor"):
        ActorCriticCnnPolicy.load(content)


class Flavoured(ActorCriticPolicy):
    """A policy with an argument that it does not name."""

    def __init__(self, *args: Any, flavour: str = "x", **kwargs: Any) -> None:
        self.flavour = flavour
        super().__init__(*args, **kwargs)


def test_an_argument_that_a_policy_does_not_name_is_told() -> None:
    vocabulary.policies.add("flavoured", Flavoured)
    model = model_of("cartpole", PPO, Flavoured, policy_kwargs={"flavour": "y"})
    with pytest.warns(UserWarning, match="The argument 'flavour' of Flavoured is not among its _get_constructor_param"):
        policy_file(model.policy)
    assert loaded(model).policy.flavour == "y"
