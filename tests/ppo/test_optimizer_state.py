"""An optimizer's state by the names of the parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from everlearn import PPO
from everlearn.core.digest import digest
from everlearn.core.errors import StateError
from everlearn.ppo.optimizer_state import state_by_name, state_by_number
from tests.ppo.together import everything
from tests.ppo.updates import model_of


@pytest.mark.parametrize("kind", [lambda: everything().learn(32), lambda: model_of("pendulum", PPO).learn(32)])
def test_the_state_by_name_becomes_the_state_by_number_again(kind: Any) -> None:
    model = kind()
    named = state_by_name(model.policy.optimizer, model.policy)
    names = {name for name, _ in model.policy.named_parameters()}
    assert set(named["state"]) == names == {name for group in named["param_groups"] for name in group["params"]}
    again = state_by_number(named, model.policy.optimizer, model.policy)
    assert digest(again) == digest(model.policy.optimizer.state_dict())


def test_another_order_of_the_parameters_does_not_matter() -> None:
    model = model_of("pendulum", PPO).learn(32)
    named = state_by_name(model.policy.optimizer, model.policy)
    other = torch.optim.Adam(reversed(list(model.policy.parameters())))
    other.load_state_dict(state_by_number(named, other, model.policy))
    for parameter, state in model.policy.optimizer.state.items():
        assert torch.equal(other.state[parameter]["exp_avg"], state["exp_avg"])


def test_a_parameter_that_is_not_the_policys_has_its_number() -> None:
    model = model_of("pendulum", PPO)
    own, stranger = next(model.policy.named_parameters()), torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([own[1], stranger], lr=1.0)
    assert state_by_name(optimizer, model.policy)["param_groups"][0]["params"] == [own[0], "parameter 1"]


@pytest.mark.parametrize("change", [list.pop, lambda names: names.append("x"), lambda names: names.append(names[0])])
def test_a_state_for_other_parameters_is_refused(change: Any) -> None:
    model = model_of("pendulum", PPO)
    named = copy.deepcopy(state_by_name(model.policy.optimizer, model.policy))
    change(named["param_groups"][0]["params"])
    with pytest.raises(StateError, match="other groups of parameters"):
        state_by_number(named, model.policy.optimizer, model.policy)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"weight_decay": 0.1}),
        ("adamw", {"amsgrad": True}),
        ("sgd", {"momentum": 0.9}),
        ("upgd", {"sigma": 0.01}),
        ("adaptive_upgd", {"sigma": 0.01, "noise": "table"}),
        ("upgdw", {"scope": "tensor"}),
    ],
)
def test_b27_a_reset_forgets_the_gradients_and_keeps_the_options(name: str, options: dict[str, Any]) -> None:
    model = model_of("pendulum", optimizer_class=name, optimizer_kwargs=options)
    new = digest(model.policy.optimizer.state_dict()["state"])
    model.learn(32)
    model.set_hyperparameter("learning_rate", 0.125)
    model.learn(32)
    before = model.policy.optimizer.state_dict()
    assert digest(before["state"]) != new
    model.reset_optimizer()
    after = model.policy.optimizer.state_dict()
    assert digest(after["state"]) == new
    assert digest({**after, "state": {}}) == digest({**before, "state": {}})
    model.learn(32)
