import copy
from typing import Any

import pytest
import torch
from torch import nn

from everlearn.core.digest import digest
from everlearn.core.errors import StateError
from everlearn.core.stateful import Stateful
from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.testing.optimizers import random_parameters, same, take_steps, values

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]
SHAPES = [(3, 4), (5,)]


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("noise", ["generator", "table"])
def test_a_loaded_state_brings_its_source_of_noise(kind, noise):
    saved = kind(random_parameters(*SHAPES), lr=0.1, sigma=1.0, noise=noise)
    take_steps(saved, range(3))
    loaded = kind([nn.Parameter(value) for value in values(saved)], seed=5)
    loaded.load_state_dict(saved.state_dict())
    for optimizer in (saved, loaded):
        take_steps(optimizer, range(3, 6))
    assert same(values(loaded), values(saved))


def without(state: dict[str, Any], *path: Any) -> dict[str, Any]:
    """A copy of a state that lacks the entry at ``path``."""
    state = copy.deepcopy(state)
    *parents, last = path
    holder: Any = state
    for key in parents:
        holder = holder[key]
    del holder[last]
    return state


def misfits(kind: type[UtilityOptimizer]) -> dict[str, dict[str, Any]]:
    """States that do not fit an optimizer over ``SHAPES``."""

    def state_over(*shapes: tuple[int, ...], other: Any = kind) -> dict[str, Any]:
        return copy.deepcopy(other(random_parameters(*shapes)).state_dict())

    fitting = state_over(*SHAPES)
    return {
        "of another shape": state_over((3, 4), (6,)),
        "of a transposed parameter": state_over((4, 3), (5,)),
        "of fewer parameters": state_over((3, 4)),
        "of more parameters": state_over((3, 4), (5,), (5,)),
        "of more groups": kind([{"params": [param]} for param in random_parameters(*SHAPES)]).state_dict(),
        "of AdamW": state_over(*SHAPES, other=torch.optim.AdamW),
        "of SGD": state_over(*SHAPES, other=torch.optim.SGD),
        "of another member": state_over(*SHAPES, other=AdaptiveUPGD if kind is UPGD else UPGD),
        "of a sibling": state_over(*SHAPES, other=UPGD if kind is UPGDW else UPGDW),
        "without a parameter": without(fitting, "state", 1),
        "without an average": without(fitting, "state", 1, "avg_utility"),
        "without a counter": without(fitting, "state", 0, "step"),
        "without noise": without(fitting, "noise"),
        "with foreign noise": {**fitting, "noise": {"kind": "dice"}},
        "without a hyper-parameter": without(fitting, "param_groups", 0, "sigma"),
    }


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("misfit", list(misfits(UPGD)))
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(kind, misfit):
    optimizer = kind(random_parameters(*SHAPES), lr=0.01, seed=0)
    take_steps(optimizer, range(2))
    unharmed, before = copy.deepcopy(optimizer), optimizer.state_dict()
    with pytest.raises(StateError):
        optimizer.load_state_dict(misfits(kind)[misfit])
    assert same(optimizer.state_dict(), before)
    for each in (optimizer, unharmed):
        take_steps(each, range(2, 4))
    assert same(values(optimizer), values(unharmed))


def test_an_optimizer_can_be_a_part_of_a_state_tree():
    assert isinstance(UPGD(random_parameters((2,))), Stateful)


def test_a_deep_copy_takes_hooks_and_groups_like_an_original():
    optimizer = copy.deepcopy(AdaptiveUPGD(random_parameters((2,)), lr=0.1, sigma=0.0))
    calls: list[str] = []
    optimizer.register_step_post_hook(lambda *_: calls.append("stepped"))
    optimizer.add_param_group({"params": random_parameters((3,))})
    take_steps(optimizer, range(2))
    assert calls == ["stepped", "stepped"]
    assert optimizer.param_groups[1]["lr"] == 0.1


def test_b1_a_state_is_loaded_again_and_again() -> None:
    """B1: what torch adds to an optimizer when it loads is nothing that a state has to bring."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaptiveUPGD([weight])
    fresh = optimizer.state_dict()
    for _ in range(2):
        take_steps(optimizer, range(1))
        optimizer.load_state_dict(fresh)
        assert digest(optimizer.state_dict()) == digest(fresh)
