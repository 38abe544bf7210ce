"""What acts in a policy's place does what the policy does, draws what it draws, and stands aside elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common import policies as sb3
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import Tensor, nn
from torch.testing import assert_close

from everlearn.ppo import acting
from everlearn.ppo.acting import Actor, actor_for
from everlearn.ppo.policy import ActorCriticPolicy

VECTORS = spaces.Box(-np.inf, np.inf, (5,), np.float64)
CONTINUOUS = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS: dict[str, spaces.Space[Any]] = {
    "continuous": CONTINUOUS,
    "a matrix": spaces.Box(-1, 1, (2, 2), np.float64),
    "one choice": spaces.Discrete(4),
    "several choices": spaces.MultiDiscrete([3, 2, 5]),
    "switches": spaces.MultiBinary(4),
}
POLICIES: dict[str, dict[str, Any]] = {
    "scalar": {},
    "no hidden layer": {"net_arch": []},
    "deep and uneven": {"net_arch": {"pi": [7], "vf": [6, 5, 4]}, "activation_fn": nn.ReLU},
    "two extractors": {"share_features_extractor": False},
    "quantiles": {"value_head": "quantile", "n_critics": 2, "normalize_returns": True},
    "classes": {"value_head": "categorical", "n_critics": 3, "critic_reduction": "lcb"},
    "pessimists": {"n_critics": 2, "critic_reduction": "min"},
    "pooled": {"value_head": "quantile", "n_critics": 2, "critic_reduction": "truncated", "normalize_returns": True},
    "ELU": {"activation_fn": nn.ELU},
    "GELU": {"activation_fn": nn.GELU},
    "LeakyReLU": {"activation_fn": nn.LeakyReLU},
    "SiLU": {"activation_fn": nn.SiLU},
    "wide": {"net_arch": [200, 200]},
}


def policy_of(
    actions: spaces.Space[Any] = CONTINUOUS, observations: spaces.Space[Any] = VECTORS, **arguments: Any
) -> ActorCriticPolicy:
    """A policy that has learned something, so that no output is near 0."""
    torch.manual_seed(0)
    policy = ActorCriticPolicy(observations, actions, lambda _: 1e-3, **{"net_arch": [16, 16], **arguments})
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if policy.return_scale is not None:
            policy.return_scale.mean.fill_(-3.0)
            policy.return_scale.std.fill_(7.0)
    return policy.eval()


def observed(batch: int = 8, seed: int = 0, shape: tuple[int, ...] = (5,)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, *shape))


def acting_for(policy: ActorCriticPolicy, example: np.ndarray) -> Actor:
    actor = actor_for(policy, example)
    assert actor is not None
    return actor


def drawn_from(seed: int, act: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Tensor]:
    """What comes out with the generator at a seed, and where it is afterwards."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return act(), torch.get_rng_state()


def assert_agree(actor: Actor, policy: ActorCriticPolicy, observations: np.ndarray, seed: int = 0) -> None:
    mine, my_state = drawn_from(seed, lambda: actor(observations))
    theirs, their_state = drawn_from(seed, lambda: policy(torch.as_tensor(observations)))
    for one, other in zip(mine, theirs, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5)  # shapes and dtypes too
    if not isinstance(policy.action_space, spaces.Box):
        assert torch.equal(mine[0], theirs[0])
    assert torch.equal(my_state, their_state)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("actions", ACTIONS)
def test_actions_values_log_probabilities_and_draws_are_the_policys(actions: str, kind: str) -> None:
    policy = policy_of(ACTIONS[actions], **POLICIES[kind])
    for batch in (1, 3, 8):
        actor = acting_for(policy, observed(batch))
        for seed in range(5):
            assert_agree(actor, policy, observed(batch, seed), seed)


@pytest.mark.parametrize("actions", ["one choice", "several choices", "switches"])
def test_large_logits_are_no_matter(actions: str) -> None:
    policy = policy_of(ACTIONS[actions])
    with torch.no_grad():
        policy.action_net.bias.copy_(torch.linspace(100.0, 101.0, len(policy.action_net.bias)))
    assert_agree(acting_for(policy, observed()), policy, observed())


def test_a_layer_may_have_no_bias() -> None:
    policy = policy_of()
    policy.action_net = nn.Linear(16, 3, bias=False)
    assert_agree(acting_for(policy, observed()), policy, observed())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16])
def test_observations_may_have_any_dtype_and_strides(dtype: type) -> None:
    policy = policy_of(observations=spaces.Box(-9, 9, (2, 3), dtype))
    observations = (5 * observed(shape=(3, 2))).astype(dtype).swapaxes(1, 2)
    assert_agree(acting_for(policy, observations), policy, observations)


def test_results_stay_as_they_are_when_it_acts_again() -> None:
    actor = acting_for(policy_of(), observed())
    first = actor(observed())
    copies = [each.clone() for each in first]
    actor(observed(seed=1))
    assert_close(first, tuple(copies), rtol=0, atol=0)
    assert not any(each.requires_grad for each in first)


def test_a_change_of_parameters_in_place_is_seen_at_once_and_new_parameters_after_a_refresh() -> None:
    policy = policy_of(value_head="quantile", n_critics=2, normalize_returns=True)
    actor = acting_for(policy, observed())
    with torch.no_grad():
        for tensor in (*policy.parameters(), policy.return_scale.mean, policy.return_scale.std):
            tensor.mul_(1.1)
    assert_agree(actor, policy, observed())
    other = policy_of(value_head="quantile", n_critics=2, normalize_returns=True)
    policy.load_state_dict({name: tensor * 0.9 for name, tensor in other.state_dict().items()}, assign=True)
    actor.refresh()
    assert_agree(actor, policy, observed())


@pytest.mark.parametrize("actions", ACTIONS)
def test_outputs_that_are_not_finite_are_left_to_the_policy_before_anything_is_drawn(actions: str) -> None:
    policy = policy_of(ACTIONS[actions])
    actor = acting_for(policy, observed())
    with torch.no_grad():
        policy.action_net.bias[0] = torch.nan
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"[Ee]xpected"):
        actor(observed())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("log_std", [-200.0, torch.nan])
def test_a_standard_deviation_that_is_none_is_left_to_the_policy(log_std: float) -> None:
    policy = policy_of()
    actor = acting_for(policy, observed())
    with torch.no_grad():
        policy.log_std[1] = log_std
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="Expected parameter scale"):
        actor(observed())
    assert torch.equal(torch.get_rng_state(), before)


def test_large_layers_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which numpy's libraries would take threads that the user has not given."""
    policy = policy_of()
    calls: list[int] = []
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *args: (calls.append(args[1].numel()), linear(*args))[1])
    acting_for(policy, observed())(observed())
    assert calls == []
    monkeypatch.setattr(acting, "SMALL", 8 * 16 * 16 - 1)
    assert_agree(acting_for(policy, observed()), policy, observed())
    assert calls[:2] == [16 * 16] * 2


# --- policies that only act for themselves ----------------------------------------------------------------------------


class Scaled(FlattenExtractor):
    def forward(self, observations: Tensor) -> Tensor:
        return 2 * super().forward(observations)


class OwnPolicy(ActorCriticPolicy):
    """A user's."""


def hooked() -> ActorCriticPolicy:
    policy = policy_of()
    policy.action_net.register_forward_hook(lambda *_: None)
    return policy


def hooked_before() -> ActorCriticPolicy:
    policy = policy_of()
    policy.mlp_extractor.register_forward_pre_hook(lambda *_: None)
    return policy


def replaced() -> ActorCriticPolicy:
    policy = policy_of()
    policy.value_net.forward = lambda latent: latent.sum(1, keepdim=True)
    return policy


def parametrised() -> ActorCriticPolicy:
    policy = policy_of()
    nn.utils.parametrizations.weight_norm(policy.action_net)
    return policy


def doubled() -> ActorCriticPolicy:
    return policy_of().double()


def with_another_trunk() -> ActorCriticPolicy:
    class Trunk(MlpExtractor):
        pass

    policy = policy_of()
    policy.mlp_extractor = Trunk(5, [16, 16], nn.Tanh)
    return policy


PICTURES = spaces.Box(0, 255, (36, 36, 3), np.uint8)
PARTS = spaces.Dict({"vector": VECTORS})
OTHERS: dict[str, Callable[[], Any]] = {
    "SB3's": lambda: sb3.ActorCriticPolicy(VECTORS, CONTINUOUS, lambda _: 1e-3),
    "a subclass": lambda: OwnPolicy(VECTORS, CONTINUOUS, lambda _: 1e-3),
    "no actor-critic": lambda: nn.Linear(5, 3),
    "compiled": lambda: torch.compile(policy_of(), backend="eager"),
    "gSDE": lambda: policy_of(use_sde=True),
    "another extractor": lambda: policy_of(features_extractor_class=Scaled),
    "another activation": lambda: policy_of(activation_fn=nn.RReLU),
    "another trunk": with_another_trunk,
    "one with a hook": hooked,
    "one with a hook before": hooked_before,
    "one with a changed layer": replaced,
    "one with a normed layer": parametrised,
    "float64": doubled,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_policy_acts_for_itself(kind: str) -> None:
    assert actor_for(OTHERS[kind](), observed()) is None


@pytest.mark.parametrize(
    ("space", "observations"),
    [
        (PICTURES, np.zeros((2, 36, 36, 3), np.uint8)),
        (spaces.Discrete(5), np.zeros(2, np.int64)),
        (spaces.MultiBinary(5), np.zeros((2, 5), np.int8)),
        (VECTORS, np.zeros((2, 4))),
        (VECTORS, torch.zeros(2, 5)),
    ],
)
def test_observations_that_are_no_vectors_are_the_policys(space: spaces.Space[Any], observations: Any) -> None:
    assert actor_for(policy_of(observations=space), observations) is None


def test_pictures_as_they_are_are_vectors() -> None:
    policy = policy_of(observations=PICTURES, normalize_images=False)
    pictures = np.random.default_rng(0).integers(0, 4, (2, 36, 36, 3)).astype(np.uint8)
    assert_agree(acting_for(policy, pictures), policy, pictures)


def test_it_fits_observations_of_the_examples_shape_while_the_policy_is_plain() -> None:
    policy = policy_of()
    actor = acting_for(policy, observed(8))
    assert actor.fits(observed(8, seed=1))
    assert not actor.fits(observed(7))
    assert not actor.fits({"vector": observed(8)})
    policy.value_net.register_forward_hook(lambda *_: None)
    assert not actor.fits(observed(8))
