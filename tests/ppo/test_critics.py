"""The critics: what their loss reaches, how they are built, that they stay apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import Tensor, nn
from torch.testing import assert_close

from everlearn import PPO
from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.ppo.loss import Minibatch
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.update import EagerRunner
from everlearn.values import CriticEnsemble
from tests.ppo.policies import ACTOR, CRITICS, KINDS, names_of
from tests.ppo.updates import coefficients_of, learned, minibatch_for, model_of


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> PPO:
    return model_of(**KINDS[request.param])


def reached(model: PPO, loss: Tensor) -> set[str]:
    """The parameters to which the loss alone sends a gradient that is not zero."""
    model.policy.zero_grad()
    loss.backward()
    named = model.policy.named_parameters()
    return {name for name, parameter in named if parameter.grad is not None and parameter.grad.abs().max() > 0}


# --- gradients --------------------------------------------------------------------------------------------------------


def test_b22_the_critic_loss_alone_reaches_extractor_trunk_and_head_of_every_critic(model: PPO) -> None:
    """B22."""
    minibatch = minibatch_for(model, 0)
    distributions = model.evaluator(minibatch.observations, minibatch.actions).distributions
    found = reached(model, model.evaluator.ensemble.loss(distributions, minibatch.returns).mean())
    expected = names_of(model.policy, CRITICS)
    if model.policy.share_features_extractor:
        expected |= names_of(model.policy, ("features_extractor.",))
    assert found == expected


def test_b22_the_policy_loss_alone_reaches_the_actor_and_no_critic(model: PPO) -> None:
    """B22."""
    minibatch = minibatch_for(model, 0)
    evaluation = model.evaluator(minibatch.observations, minibatch.actions)
    loss = -(evaluation.log_prob * minibatch.advantages).mean()
    assert reached(model, loss) == names_of(model.policy, (*ACTOR, "features_extractor."))


@pytest.mark.parametrize("head", ["scalar", "quantile", "categorical"])
def test_b22_holds_for_every_head_with_value_clipping(head: str) -> None:
    """B22."""
    model = model_of(value_head=head, n_critics=3)
    minibatch = minibatch_for(model, 0)
    distributions = model.evaluator(minibatch.observations, minibatch.actions).distributions
    loss = model.evaluator.ensemble.loss(distributions, minibatch.returns, minibatch.old_values, 0.5).mean()
    assert reached(model, loss) == names_of(model.policy, CRITICS)


def test_b21_everything_that_enters_the_critic_loss_has_the_batchs_leading_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B21."""
    seen: list[tuple[Any, ...]] = []
    original = CriticEnsemble.loss

    def watched(
        self: CriticEnsemble, distributions: Any, returns: Tensor, old: Tensor | None = None, clip: Any = None
    ) -> Tensor:
        loss = original(self, distributions, returns, old, clip)
        if old is not None:  # an update, not the loss on the kept batch
            means = {tuple(distribution.mean.shape) for distribution in distributions}
            seen.append((means, tuple(returns.shape), tuple(old.shape), tuple(loss.shape)))
        return loss

    monkeypatch.setattr(CriticEnsemble, "loss", watched)
    with pytest.warns(UserWarning, match="truncated mini-batch"):
        model = model_of(n_steps=20, batch_size=16, n_epochs=1, clip_range_vf=0.5)
    model.learn(20)
    assert seen == [({(size,)}, (size,), (size, 2), (size,)) for size in (16, 4)]


def test_b21_old_outputs_of_each_critic_are_indexed_as_the_samples_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """B21."""
    minibatches: list[Minibatch] = []

    def keep(self: EagerRunner, minibatch: Minibatch, coefficients: Any) -> Any:
        minibatches.append(minibatch)
        zero = torch.zeros(())
        names = ("policy_gradient_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")
        return dict.fromkeys(names, zero), "moved"

    monkeypatch.setattr(EagerRunner, "update", keep)
    model = model_of("pendulum", n_epochs=1)
    model.learn(32)
    assert len(minibatches) == 2
    for minibatch in minibatches:  # nothing has been learned, so what critics say now is what they said then
        evaluation = model.evaluator(minibatch.observations, minibatch.actions)
        expected = torch.stack([distribution.mean for distribution in evaluation.distributions], -1)
        assert minibatch.old_values.std(dim=0).min() > 1e-3, "rows can be told apart"
        assert_close(expected, minibatch.old_values, rtol=1e-4, atol=1e-5)


# --- critics ----------------------------------------------------------------------------------------------------------


def test_b25_what_shapes_critic_0_shapes_every_critic() -> None:
    """B25."""
    arch = {"net_arch": {"pi": [6], "vf": [9, 5]}, "activation_fn": nn.ReLU}
    model = model_of(n_critics=3, value_head={"kind": "quantile", "n_quantiles": 7, "kappa": 0.3}, policy_kwargs=arch)
    policy = model.policy
    assert [str(critic.trunk) for critic in policy.critics] == [str(policy.mlp_extractor.value_net)] * 2
    assert [tuple(net.weight.shape) for net in policy.value_nets()] == [(7, 5)] * 3
    minibatch = minibatch_for(model, 0)
    distributions = model.evaluator(minibatch.observations, minibatch.actions).distributions
    assert [distribution.kappa for distribution in distributions] == [0.3] * 3


def gains(module: nn.Module) -> list[float]:
    """The singular values of each weight, where all of a weight are the same."""
    weights = [parameter.flatten(1) for parameter in module.parameters() if parameter.dim() > 1]
    values = [torch.linalg.svdvals(weight) for weight in weights]
    return [value.mean().item() if value.std(correction=0) < 1e-4 else torch.nan for value in values]


def test_b25_every_critic_starts_orthogonal_with_critic_0s_gains() -> None:
    """B25."""
    policy = model_of("images", policy="CnnPolicy", n_critics=2, policy_kwargs={"net_arch": [8]}).policy
    critic = policy.critics[0]
    first = [policy.vf_features_extractor, policy.mlp_extractor.value_net, policy.value_net]
    second = [critic.features_extractor, critic.trunk, critic.value_net]
    expected = [gains(module) for module in first]
    assert expected == [pytest.approx([2**0.5] * 4), pytest.approx([2**0.5]), pytest.approx([1.0])]
    assert [gains(module) for module in second] == [pytest.approx(values) for values in expected]


def test_b25_without_ortho_init_no_critic_starts_orthogonal() -> None:
    """B25."""
    policy = model_of(policy_kwargs={"ortho_init": False}).policy
    modules = [policy.value_net, policy.critics[0].trunk, policy.critics[0].value_net]
    assert all(torch.isnan(torch.tensor(gains(module))).all() for module in modules)


def test_b25_the_learning_rate_is_one_for_all_critics() -> None:
    """B25."""
    model = model_of(n_critics=3, learning_rate=1e-3)
    model.learn(32)
    groups = [group for group in model.policy.optimizer.param_groups if group["label"] == "critics"]
    assert {group["lr"] for group in groups} == {1e-3}
    assert sum(len(group["params"]) for group in groups) == len(names_of(model.policy, CRITICS))


def test_b25_the_value_coefficient_scales_the_gradient_of_every_critic_alike() -> None:
    """B25."""
    gradients = []
    for vf_coef in (0.5, 1.5):
        model = model_of(n_critics=2)
        minibatch = minibatch_for(model, 0)
        EagerRunner(model.evaluator, torch.optim.SGD(model.policy.parameters(), lr=0.0), None).update(
            minibatch, coefficients_of(vf_coef=vf_coef, max_grad_norm=float("inf"))
        )
        gradients.append([net.weight.grad.clone() for net in model.policy.value_nets()])
    for small, large in zip(*gradients, strict=True):
        assert_close(large, 3 * small)


def test_critics_share_nothing_and_start_apart() -> None:
    model = model_of("images", policy="CnnPolicy", n_critics=3, policy_kwargs={"net_arch": [8]})
    own = [dict(critic.named_parameters()) for critic in model.policy.critics]
    memory = {parameter.data_ptr() for parameter in model.policy.parameters()}
    assert len(memory) == len(list(model.policy.parameters()))
    for name, weight in own[0].items():
        if weight.dim() > 1:
            assert not torch.equal(weight, own[1][name]), f"{name} starts equal in two critics"
    assert any(name.startswith("features_extractor.") for name in own[0])


def test_critics_stay_apart_beyond_the_last_layer_when_they_learn_the_same() -> None:
    model = model_of("pendulum", n_steps=64, n_epochs=10)
    model.learn(128)
    minibatch = minibatch_for(model, 0)
    ensemble = model.evaluator.ensemble
    distributions = model.evaluator(minibatch.observations, minibatch.actions).distributions
    assert ensemble.disagreement(distributions).min() > 0
    assert not torch.equal(model.policy.mlp_extractor.value_net[0].weight, model.policy.critics[0].trunk[0].weight)


def test_critic_0_and_the_actor_start_as_without_further_critics() -> None:
    alone, together = learned(model_of(n_critics=1))["parameters"], learned(model_of(n_critics=3))["parameters"]
    assert all(torch.equal(tensor, together[name]) for name, tensor in alone.items())
    assert {name.split(".")[1] for name in together.keys() - alone.keys()} == {"0", "1"}


def test_a_shared_critic_extractor_is_shared_and_warned_of() -> None:
    with pytest.warns(UserWarning, match="critics on one latent agree almost always"):
        model = model_of("images", policy="CnnPolicy", policy_kwargs={"share_critic_extractor": True})
    assert model.policy.critics[0].features_extractor is model.policy.vf_features_extractor


@pytest.mark.parametrize(
    ("net_arch", "widths"),
    [([], []), ([6], [6]), ({"pi": [4], "vf": [9, 5]}, [9, 5]), ({"pi": [4], "vf": []}, []), ({"pi": [4]}, [])],
)
def test_each_form_of_net_arch_gives_every_critic_its_trunk(net_arch: Any, widths: list[int]) -> None:
    model = model_of(policy_kwargs={"net_arch": net_arch})
    trunks = [model.policy.mlp_extractor.value_net, model.policy.critics[0].trunk]
    assert [[layer.out_features for layer in trunk if isinstance(layer, nn.Linear)] for trunk in trunks] == [widths] * 2
    assert model.learn(32).skipped_updates == 0


def test_the_default_architectures_are_sb3s() -> None:
    policies = [model_of(policy_kwargs={"net_arch": None}), model_of("images", policy="CnnPolicy")]
    widths = [
        [layer.out_features for layer in model.policy.critics[0].trunk if isinstance(layer, nn.Linear)]
        for model in policies
    ]
    assert widths == [[64, 64], []]


class OwnTrunk(ActorCriticPolicy):
    """A trunk that net_arch does not describe."""

    def _build_mlp_extractor(self) -> None:
        class Extractor(MlpExtractor):
            pass

        self.mlp_extractor = Extractor(self.features_dim, [5], nn.Tanh)


def test_a_trunk_that_net_arch_does_not_describe_cannot_be_built_twice() -> None:
    assert model_of(policy=OwnTrunk, n_critics=1).learn(32).skipped_updates == 0
    with pytest.raises(ArgumentError, match=r"n_critics=2 .* its own Extractor. Use n_critics=1, or"):
        model_of(policy=OwnTrunk, n_critics=2)


def test_an_unknown_head_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'quantile'"):
        model_of(value_head="quantil")
