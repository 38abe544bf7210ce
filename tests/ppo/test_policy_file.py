"""A policy alone in a file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from everlearn import PPO
from everlearn.checkpoint.errors import Mismatch, Unsupported
from everlearn.core.digest import digest
from everlearn.core.errors import NonFiniteError
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
