"""The policy: groups of its parameters, what leaves it, how it is saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from everlearn import PPO, AdaptiveUPGD, DistributionalPPO
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.values import QuantileHead
from tests.ppo.policies import ACTOR, CRITICS, KINDS, names_of
from tests.ppo.updates import minibatch_for, model_of
from tests.ppo.worlds import world


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> PPO:
    return model_of(**KINDS[request.param])


# --- groups of parameters ---------------------------------------------------------------------------------------------


def test_every_parameter_is_in_exactly_one_group(model: PPO) -> None:
    grouped = [parameter for group in model.policy.optimizer.param_groups for parameter in group["params"]]
    assert len(grouped) == len({id(parameter) for parameter in grouped})
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.policy.parameters()}


def test_groups_carry_the_part_of_the_network(model: PPO) -> None:
    found = {
        name: group["label"]
        for group in model.policy.optimizer.param_groups
        for name, parameter in model.policy.named_parameters()
        if any(parameter is member for member in group["params"])
    }
    shared = "shared" if model.policy.share_features_extractor else "actor"
    expected = dict.fromkeys(names_of(model.policy, ("features_extractor.",)), shared)
    expected |= dict.fromkeys(names_of(model.policy, CRITICS), "critics")
    assert found == expected | dict.fromkeys(names_of(model.policy, ACTOR), "actor")


def test_biases_and_log_std_take_neither_decay_nor_noise(model: PPO) -> None:
    named = {id(parameter): name for name, parameter in model.policy.named_parameters()}
    for group in model.policy.optimizer.param_groups:
        names = [named[id(parameter)] for parameter in group["params"]]
        plain = [name.endswith("bias") or name == "log_std" for name in names]
        assert plain == [group["sigma"] == 0.0 and group["weight_decay"] == 0.0] * len(names)


def test_a_foreign_optimizer_gets_sb3s_one_group_in_sb3s_order() -> None:
    model = model_of(optimizer_class="adam")
    (group,) = model.policy.optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(p) for p in model.policy.parameters()]


# --- what leaves the policy -------------------------------------------------------------------------------------------


def with_scale(model: PPO, mean: float, std: float) -> None:
    model.policy.return_scale.mean.fill_(mean)
    model.policy.return_scale.std.fill_(std)


def test_values_leave_in_reward_units(model: PPO) -> None:
    minibatch = minibatch_for(model, 0)
    policy = model.policy
    distributions = policy.predict_distributions(minibatch.observations)
    expected = 100.0 + 10.0 * torch.stack([distribution.mean for distribution in distributions]).mean(0)
    with_scale(model, 100.0, 10.0)
    assert_close(policy.predict_values(minibatch.observations).squeeze(1), expected)
    assert_close(policy(minibatch.observations)[1].squeeze(1), expected)
    assert_close(policy.evaluate_actions(minibatch.observations, minibatch.actions)[0].squeeze(1), expected)
    assert policy.predict_values(minibatch.observations).shape == (len(minibatch.returns), 1)


def test_the_three_ways_to_a_distribution_agree(model: PPO) -> None:
    minibatch = minibatch_for(model, 1)
    direct = model.policy.predict_distributions(minibatch.observations)
    evaluated = model.policy.evaluate(minibatch.observations, minibatch.actions).distributions
    for left, right in zip(direct, evaluated, strict=True):
        assert_close(left.quantiles, right.quantiles)


def test_actions_are_those_of_a_policy_with_one_scalar_critic() -> None:
    plain, full = model_of("pendulum", algorithm=PPO), model_of("pendulum")
    minibatch = minibatch_for(plain, 0)
    torch.manual_seed(1)
    expected = plain.policy(minibatch.observations)
    torch.manual_seed(1)
    found = full.policy(minibatch.observations)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[2], expected[2])


# --- saving -----------------------------------------------------------------------------------------------------------

SAVED: dict[str, dict[str, Any]] = {
    "scalar": {"algorithm": PPO},
    "quantile": {"value_head": {"kind": "quantile", "n_quantiles": 5}, "critic_reduction": "min"},
    "an object": {"value_head": QuantileHead(9), "n_critics": 3},
    "categorical": {
        "value_head": {"kind": "categorical", "n_atoms": 11},
        "critic_reduction": {"kind": "lcb", "c": 2.0},
    },
    "two extractors": KINDS["two extractors"],
    "gSDE": KINDS["gSDE"],
}


@pytest.mark.parametrize("case", SAVED)
def test_a_saved_policy_loads_with_the_same_arguments_and_outputs(case: str, tmp_path: Any) -> None:
    model = model_of(**SAVED[case])
    if model.policy.return_scale is not None:
        with_scale(model, 100.0, 10.0)
    model.policy.save(tmp_path / "policy")
    loaded = type(model.policy).load(tmp_path / "policy", device="cpu")
    minibatch = minibatch_for(model, 0)
    expected, found = model.evaluator, Evaluator(loaded)
    assert (found.ensemble.head, found.ensemble.reduction) == (expected.ensemble.head, expected.ensemble.reduction)
    evaluations = [each(minibatch.observations, minibatch.actions) for each in (found, expected)]
    assert torch.equal(evaluations[0].log_prob, evaluations[1].log_prob)
    assert_close(*(torch.stack([each.mean for each in evaluation.distributions]) for evaluation in evaluations))
    values = (policy.predict_values(minibatch.observations) for policy in (loaded, model.policy))
    assert torch.equal(*values), "in reward units"


def test_the_policies_are_named_as_in_sb3() -> None:
    for name, place in (("MlpPolicy", "cartpole"), ("CnnPolicy", "images"), ("MultiInputPolicy", "dictionaries")):
        assert isinstance(PPO(name, world(place), device="cpu").policy, ActorCriticPolicy)


def test_a_policy_makes_its_optimizer_once(monkeypatch) -> None:
    made: list[int] = []
    initialise = AdaptiveUPGD.__init__

    def counted(*args: Any, **options: Any) -> None:
        made.append(1)
        initialise(*args, **options)

    monkeypatch.setattr(AdaptiveUPGD, "__init__", counted)
    model = model_of(algorithm=DistributionalPPO)
    assert made == [1]
    assert model.policy.optimizer_class is AdaptiveUPGD
    assert isinstance(model.policy.optimizer, AdaptiveUPGD)
