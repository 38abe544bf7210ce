"""The tree of a model's state is whole: nothing that learning changes is outside it without a reason."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from everlearn import PPO
from everlearn.core.digest import digest
from everlearn.core.stateful import Attributes, Role
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.state import OUTSIDE
from tests.ppo.together import everything
from tests.ppo.updates import model_of
from tests.ppo.worlds import world

ARGUMENTS: dict[str, Any] = {"kl_penalty": "pid", "learning_rate": "lin_0.001", "target_kl": 0.5}


def in_normalised_pendulum(**arguments: Any) -> PPO:
    model = everything(**{**ARGUMENTS, **arguments})
    model.set_env(Normaliser(world("pendulum")))
    model.env.seed(0)
    return model


def fingerprint(value: Any) -> Any:
    """Something equal for equal values and different for different ones, for whatever a model may hold."""
    if hasattr(value, "state_dict") and not isinstance(value, type):
        return digest(value.state_dict())
    if isinstance(value, torch.Tensor | np.ndarray):
        return digest(value)
    if isinstance(value, dict):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, list | tuple | deque):
        return [fingerprint(item) for item in value]
    if hasattr(value, "__dict__") and not callable(value):
        return {key: fingerprint(item) for key, item in vars(value).items()}
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def test_b8_every_attribute_that_learning_changes_is_in_the_tree_or_has_a_reason() -> None:
    """B8."""
    model = in_normalised_pendulum()
    before = {name: fingerprint(value) for name, value in vars(model).items()}
    model.learn(96)
    changed = {name for name, value in vars(model).items() if fingerprint(value) != before.get(name, "not there")}
    tree = model.state_tree()
    parts = [tree[name] for name in tree]
    covered = {name for name, value in vars(model).items() if any(value is part for part in parts)}
    covered |= {name for part in parts for name in getattr(part, "attributes", ())}
    covered |= {"_vec_normalize_env"}
    assert {"policy", "variance_gradient_scaler", "kl_controller", "num_timesteps", "_probe"} <= changed & covered
    assert changed - covered - OUTSIDE.keys() == set()
    between = {"_at_clean_point", "_goes_on", "_pause_at", "_waiting"}  # while learn is under way, or begins
    assert OUTSIDE.keys() - changed <= {"_warned_of_behaviour", "lr_schedule", *between}


def test_every_part_has_its_role_and_parameters_are_a_subset_with_the_policy_first() -> None:
    model = in_normalised_pendulum()
    tree = model.state_tree()
    assert {name: tree.role(name).value for name in tree} == {
        "policy": "learned",
        "policy.optimizer": "learned",
        "vgs_state": "learned",
        "kl_penalty_state": "learned",
        "normaliser": "learned",
        "interface": "hyper",
        "hyperparameters": "hyper",
        "progress": "hyper",
        "divergence": "hyper",
        "counters": "loop",
        "course": "loop",
        "observations": "loop",
        "environments": "simulation",
        "episodes": "loop",
        "callbacks": "record",
        "records": "record",
        "probe": "record",
        "generators": "random",
    }
    learned = list(tree.subset([Role.LEARNED]))
    assert list(model.get_parameters()) == learned[:-1] == ["policy", "policy.optimizer", *learned[2:-1]]


def test_parts_that_are_off_are_not_there() -> None:
    tree = model_of(algorithm=PPO).state_tree()
    assert not {"vgs_state", "kl_penalty_state", "normaliser"} & set(tree)


def test_parameters_are_flat_mappings_of_tensors() -> None:
    for name, part in in_normalised_pendulum().learn(32).get_parameters().items():
        if name != "policy.optimizer":
            assert all(isinstance(value, torch.Tensor) for value in part.values()), name


def test_b1_interrupted_and_continued_in_another_object_is_as_if_never_interrupted() -> None:
    """B1, B6, B8: everything but the simulators goes over in memory; these stay in place."""
    straight, first = (in_normalised_pendulum().learn(64) for _ in range(2))
    state = first.state_tree().state_dict()
    env = first.env
    second = everything(seed=99, **{**ARGUMENTS, "kl_penalty": {"kind": "pid", "target": 3.0}})
    second.set_env(env)
    second.state_tree().load_state_dict(state)
    after = second.state_tree().state_dict()
    assert digest(after) == digest(state)
    for model in (straight, second):
        torch.manual_seed(1)
        np.random.seed(1)
        model.learn(64, reset_num_timesteps=False)
    names = [name for name in straight.state_tree() if name not in ("generators", "episodes")]
    one, other = straight.state_tree().state_dict(), second.state_tree().state_dict()
    assert [name for name in names if digest(one[name]) != digest(other[name])] == []


def test_a_state_is_plain_data_that_later_learning_does_not_change() -> None:
    model = in_normalised_pendulum().learn(32)
    state = model.state_tree().state_dict()
    before = digest(state)  # refuses what is no plain data
    model.learn(32, reset_num_timesteps=False)
    assert digest(state) == before != digest(model.state_tree().state_dict())


def test_schedules_that_are_functions_are_named_and_stay_with_a_warning() -> None:
    model = model_of(algorithm=PPO, learning_rate=lambda progress: 1e-3 * progress)
    state = model.state_tree().state_dict()
    assert state["hyperparameters"]["learning_rate"] == {"opaque": "<lambda>"}
    other = model_of(algorithm=PPO, learning_rate=0.5)
    with pytest.warns(UserWarning, match="learning_rate was the function '<lambda>'"):
        other.state_tree().load_state_dict(state)
    assert other.learning_rate == 0.5


def test_hyperparameters_in_force_come_over_whatever_the_order_of_their_sizes() -> None:
    model = model_of("pendulum", PPO, n_steps=64, batch_size=64)
    other = model_of("pendulum", PPO, n_steps=8, batch_size=8)
    other.state_tree().load_state_dict(model.state_tree().state_dict())
    assert other.get_hyperparameters() == model.get_hyperparameters()


def test_attributes_are_restored_together_or_not_at_all() -> None:
    class Thing:
        one, two = 1, 2

    thing = Thing()
    part = Attributes(thing, ["one", "two"])
    state = copy.deepcopy(part.state_dict())
    thing.one = 5
    with pytest.raises(ValueError, match="lacks"):
        part.load_state_dict({"one": 7})
    assert thing.one == 5
    part.load_state_dict(state)
    assert (thing.one, thing.two) == (1, 2)
