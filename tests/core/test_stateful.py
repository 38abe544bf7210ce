import numpy as np
import pytest
import torch

from everlearn.core.errors import StateError
from everlearn.core.stateful import Part, Role, Stateful, StateTree, snapshot


class Counter:
    """A part that notes when it is restored."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.name, self.journal, self.count = name, journal, 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]
        self.journal.append(self.name)


@pytest.fixture
def journal() -> list[str]:
    return []


@pytest.fixture
def tree(journal: list[str]) -> StateTree:
    roles = {"generators": Role.RANDOM, "policy": Role.LEARNED, "counters": Role.LOOP}
    return StateTree({name: Part(Counter(name, journal), role) for name, role in roles.items()})


def test_torch_modules_and_optimizers_are_stateful() -> None:
    module = torch.nn.Linear(2, 1)
    assert isinstance(module, Stateful)
    assert isinstance(torch.optim.Adam(module.parameters()), Stateful)
    assert not isinstance(object(), Stateful)


def test_the_state_has_one_entry_per_part_in_the_given_order(tree: StateTree) -> None:
    tree["policy"].count = 3
    state = tree.state_dict()
    assert list(state) == list(tree) == ["generators", "policy", "counters"]
    assert state == {"generators": {"count": 0}, "policy": {"count": 3}, "counters": {"count": 0}}


def test_a_tree_takes_over_the_state_of_another(tree: StateTree) -> None:
    tree.load_state_dict({"generators": {"count": 1}, "policy": {"count": 2}, "counters": {"count": 3}})
    assert [tree[name].count for name in tree] == [1, 2, 3]


def test_random_parts_are_restored_last(tree: StateTree, journal: list[str]) -> None:
    tree.load_state_dict(tree.state_dict())
    assert journal == ["policy", "counters", "generators"]


def test_a_missing_part_is_an_error_before_anything_changes(tree: StateTree, journal: list[str]) -> None:
    with pytest.raises(StateError, match=r"lacks \['policy'\]; its parts: generators, counters\."):
        tree.load_state_dict({"generators": {"count": 1}, "counters": {"count": 1}})
    assert journal == []


def test_an_unknown_part_is_an_error_before_anything_changes(tree: StateTree, journal: list[str]) -> None:
    with pytest.raises(StateError, match=r"'polcy' that has no place here\. Did you mean 'policy'\?"):
        tree.load_state_dict({**tree.state_dict(), "polcy": {}})
    assert journal == []


def test_a_subset_holds_the_parts_of_the_given_roles(tree: StateTree) -> None:
    subset = tree.subset([Role.LEARNED, Role.RANDOM])
    assert list(subset) == ["generators", "policy"]
    assert subset["policy"] is tree["policy"]
    assert subset.role("generators") is Role.RANDOM


def test_a_state_does_not_change_when_its_parts_do() -> None:
    module = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(module.parameters())
    tree = StateTree({"policy": Part(module, Role.LEARNED), "optimizer": Part(optimizer, Role.LEARNED)})
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = tree.state_dict()
    weight = module.weight.detach().clone()
    moment = optimizer.state[module.weight]["exp_avg"].clone()

    optimizer.step()

    assert not torch.equal(module.weight, weight)
    assert torch.equal(state["policy"]["weight"], weight)
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], moment)


def test_a_snapshot_shares_nothing_and_keeps_kinds() -> None:
    state = {"a": [torch.ones(2), (1, torch.zeros(1))], "b": {"c": np.ones(2)}}
    copied = snapshot(state)
    state["a"][0].fill_(5.0)
    state["a"][1][1].fill_(5.0)
    state["b"]["c"][0] = 5.0
    assert copied["a"][0].tolist() == [1.0, 1.0]
    assert copied["a"][1] == (1, torch.zeros(1))
    assert copied["b"]["c"].tolist() == [1.0, 1.0]


class Refusing(Counter):
    """Takes over a state and then complains, as a module does whose parameters do not all fit."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        if state_dict["count"] == 13:
            raise StateError("13 is not wanted")


def test_a_part_that_does_not_fit_leaves_every_part_as_it_was():
    journal = []
    first, second = Counter("first", journal), Refusing("second", journal)
    tree = StateTree({"first": Part(first, Role.LEARNED), "second": Part(second, Role.HYPER)})
    first.count, second.count = 1, 2
    with pytest.raises(StateError, match="13 is not wanted"):
        tree.load_state_dict({"first": {"count": 5}, "second": {"count": 13}})
    assert (first.count, second.count) == (1, 2)
