"""A policy alone in a file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import FlattenExtractor

from everlearn import PPO
from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.codec import members_of
from everlearn.checkpoint.errors import Mismatch, NonFinite, Unsupported
from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError
from everlearn.core.registry import Registry
from everlearn.core.rng import GlobalGenerators
from everlearn.ppo import vocabulary
from everlearn.ppo.policy import ActorCriticPolicy
from tests.ppo.files import rewritten, with_config
from tests.ppo.together import KINDS, everything
from tests.ppo.updates import model_of


def saved(policy: ActorCriticPolicy) -> bytes:
    stream = io.BytesIO()
    policy.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_comes_back_and_acts_as_before(kind: str) -> None:
    model = everything(**KINDS[kind]).learn(32)
    again = type(model.policy).load(io.BytesIO(saved(model.policy)), device="cpu")
    assert digest(again.state_dict()) == digest(model.policy.state_dict())
    observations = model.env.reset()
    assert np.array_equal(
        again.predict(observations, deterministic=True)[0], model.policy.predict(observations, deterministic=True)[0]
    )
    assert again.ortho_init == model.policy.ortho_init
    tensors = model.policy.obs_to_tensor(observations)[0]
    assert torch.equal(again.predict_values(tensors), model.policy.predict_values(tensors))


def test_a_policy_is_saved_at_a_path_too(tmp_path: Any) -> None:
    policy = model_of("cartpole", PPO).policy
    policy.save(tmp_path / "policy")
    assert [path.name for path in tmp_path.iterdir()] == ["policy.zip"]
    assert digest(type(policy).load(str(tmp_path / "policy")).state_dict()) == digest(policy.state_dict())


def test_a_policy_that_is_not_finite_is_neither_saved_nor_loaded() -> None:
    policy = model_of("cartpole", PPO).policy
    content = saved(policy)
    with torch.no_grad():
        policy.action_net.weight[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"'policy\.action_net\.weight' is not finite"):
        saved(policy)
    policy.load_state_dict(ActorCriticPolicy.load(io.BytesIO(content)).state_dict())


def test_a_class_without_a_name_is_asked_for() -> None:
    class Mine(torch.nn.Tanh):
        pass

    content = saved(model_of("cartpole", PPO, policy_kwargs={"activation_fn": Mine}).policy)
    with pytest.raises(Mismatch, match=r"activation_fn was 'Mine', which has no name in a file"):
        ActorCriticPolicy.load(io.BytesIO(content))


class Extractor(FlattenExtractor):
    """It has no name in a file."""


@pytest.mark.parametrize(
    ("argument", "value", "registry"),
    [
        ("features_extractor_class", Extractor, "extractors"),
        ("activation_fn", type("Unheard", (torch.nn.Tanh,), {}), "activations"),
        ("optimizer_class", type("Unheard", (torch.optim.SGD,), {}), "torch_optimizers"),
    ],
)
def test_a_class_without_a_name_is_told_the_registry_that_gives_it_one(
    argument: str, value: type, registry: str
) -> None:
    content = saved(model_of("cartpole", PPO, policy_kwargs={argument: value}).policy)
    assert isinstance(getattr(vocabulary, registry), Registry)
    remedy = rf"before saving, with everlearn\.ppo\.vocabulary\.{registry}\.add\(name, {value.__name__}\)"
    with pytest.raises(Mismatch, match=remedy) as caught:
        ActorCriticPolicy.load(io.BytesIO(content))
    assert "custom_objects" not in str(caught.value)


def test_a_class_that_was_registered_as_advised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary.extractors, "_entries", dict(vocabulary.extractors._entries))
    monkeypatch.setattr(vocabulary.extractors, "_spellings", dict(vocabulary.extractors._spellings))
    vocabulary.extractors.add("one_of_a_test", Extractor)
    content = saved(model_of("cartpole", PPO, policy_kwargs={"features_extractor_class": Extractor}).policy)
    assert type(ActorCriticPolicy.load(io.BytesIO(content)).features_extractor) is Extractor


def test_noise_that_depends_on_the_state_is_drawn_from_the_trained_deviations() -> None:
    policy = model_of("pendulum", PPO, use_sde=True).policy
    with torch.no_grad():
        policy.log_std.fill_(-9.0)
    before = digest(GlobalGenerators().state_dict())
    again = ActorCriticPolicy.load(io.BytesIO(saved(policy)), device="cpu")
    assert 0 < float(again.action_dist.exploration_mat.detach().abs().max()) < 0.01
    assert digest(GlobalGenerators().state_dict()) == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_weights_that_are_not_finite_is_refused(value: float) -> None:
    policy = model_of("cartpole", PPO).policy
    weights = {name: weight.clone() for name, weight in policy.state_dict().items()}
    weights["action_net.weight"][0, 0] = value
    archive = read_archive(io.BytesIO(saved(policy)))
    members = {**archive.members, **members_of("policy", weights)}
    about = {key: part for key, part in archive.manifest.items() if key not in ("files", "content_id")}
    with pytest.raises(NonFinite, match=r"'policy\.action_net\.weight' is not finite"):
        ActorCriticPolicy.load(io.BytesIO(b"".join(pack(members, about))))


def test_a_model_is_no_policy_and_a_harmful_policy_is_refused() -> None:
    model = model_of("cartpole", PPO)
    model.save(stream := io.BytesIO())
    with pytest.raises(Unsupported, match="it holds a 'model'"):
        ActorCriticPolicy.load(stream)
    content = saved(model.policy)
    with pytest.raises(Mismatch, match=r"config\.json"):
        ActorCriticPolicy.load(with_config(content, observation_space="x"))
    with pytest.raises(Mismatch, match=r"lacks action_net\.bias"):
        ActorCriticPolicy.load(rewritten(content, lambda members: members["policy.json"].pop("action_net.bias")))
