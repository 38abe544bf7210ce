from typing import Any

import pytest
import torch

from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.optim.block import Block
from everlearn.optim.scopes import scope_etas
from everlearn.testing.optimizers import held, take_step
from tests.optim.gating import UNIT_STEP, at_zero, taken

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]
HALF, FULL, NEUTRAL = 0.7551, 0.5379, 1.0
"""Multipliers of a weight with half of the largest utility, with all of it, and with none."""


def groups(*options: dict[str, Any]) -> list[dict[str, Any]]:
    """One group of two weights for each set of options."""
    return [{"params": at_zero((2,)), **each} for each in options]


def taken_by_second(optimizer, *utilities) -> list[float]:
    """What the second weight of each parameter takes; the first has the utility 0."""
    return [shares[1].item() for shares in taken(optimizer, *([0.0, utility] for utility in utilities))]


@pytest.mark.parametrize("kind", FAMILY)
def test_global_is_one_maximum_for_all_groups(kind):
    optimizer = kind(groups({"label": "actor"}, {"label": "critic"}), **UNIT_STEP)
    assert taken_by_second(optimizer, 2.0, 4.0) == pytest.approx([HALF, FULL], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_group_is_one_maximum_for_all_groups_of_a_label(kind):
    """One maximum for actor and critic would let the larger loss switch the other's gate off."""
    labels = ({"label": "actor"}, {"label": "critic"}, {"label": "actor"})
    optimizer = kind(groups(*labels), scope="group", **UNIT_STEP)
    assert taken_by_second(optimizer, 2.0, 400.0, 4.0) == pytest.approx([HALF, FULL, FULL], abs=1e-4)


def test_groups_without_a_label_share_with_no_other():
    optimizer = UPGD(groups({}, {}), scope="group", **UNIT_STEP)
    assert taken_by_second(optimizer, 2.0, 4.0) == pytest.approx([FULL, FULL], abs=1e-4)


def test_a_label_that_is_called_like_a_scope_is_a_label():
    optimizer = UPGD(groups({"label": "global", "scope": "group"}, {"scope": "global"}), **UNIT_STEP)
    assert taken_by_second(optimizer, 2.0, 4.0) == pytest.approx([FULL, FULL], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_tensor_is_a_maximum_for_each_parameter(kind):
    optimizer = kind(at_zero((2,), (2,)), scope="tensor", **UNIT_STEP)
    assert taken_by_second(optimizer, 2.0, 4.0) == pytest.approx([FULL, FULL], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_row_divides_by_the_norm_over_the_last_dimension(kind):
    """0.6 and 0.8 of the norm in every row, whatever the other rows are."""
    (shares,) = taken(kind(at_zero((2, 2)), scope="row", **UNIT_STEP), [[3.0, 4.0], [-30.0, 40.0]])
    assert shares.tolist() == [pytest.approx([0.7087, 0.6201], abs=1e-4), pytest.approx([1.2913, 0.6201], abs=1e-4)]


@pytest.mark.parametrize("kind", FAMILY)
def test_none_is_no_gate_and_no_multiplier(kind):
    optimizer = kind(at_zero((2,)), scope="none", step_multiplier=1.0, **UNIT_STEP)
    assert taken_by_second(optimizer, 4.0) == pytest.approx([NEUTRAL])


def test_groups_may_differ_in_scope():
    options = ({"scope": "global"}, {"scope": "tensor"}, {"scope": "none"}, {"scope": "global"})
    optimizer = UPGD(groups(*options), **UNIT_STEP)
    assert taken_by_second(optimizer, 2.0, 100.0, 100.0, 4.0) == pytest.approx([HALF, FULL, NEUTRAL, FULL], abs=1e-4)


def test_a_parameter_without_gradient_does_not_count_for_the_maximum():
    useful, other = at_zero((2,), (2,))
    optimizer = UPGD([useful, other], **UNIT_STEP)
    optimizer.state[useful]["avg_utility"].fill_(400.0)
    optimizer.state[other]["avg_utility"].fill_(4.0)
    take_step(optimizer, [None, other.detach() + 1])
    assert (-other).tolist() == pytest.approx([FULL, FULL], abs=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_a_gate_that_is_switched_on_late_begins_afresh(kind):
    """Steps without a gate see no utility, so they do not count for its average."""
    optimizer = kind(at_zero((2,)), scope="none", **UNIT_STEP)
    for _ in range(50):
        take_step(optimizer, [torch.zeros(2)])
    optimizer.param_groups[0]["scope"] = "global"
    held(optimizer)[0].detach().copy_(torch.tensor([4.0, 2.0]))
    take_step(optimizer, [-torch.ones(2)])
    assert optimizer.diagnostics()["eta"].item() == pytest.approx(4.0)


def block_on(device: str) -> tuple[Block, dict[str, Any]]:
    weights = torch.zeros(2, device=device)
    return Block(weights, weights, {"avg_utility": weights}, {"avg_utility": 1.0}), UPGD([weights]).param_groups[0]


def test_blocks_on_several_devices_share_one_maximum_which_each_has_on_its_own():
    """The device without memory stands for a second one: what moves onto it is seen, though not its value."""
    maxima = [[torch.tensor(3.0, device="meta")], [torch.tensor(5.0)]]
    etas = scope_etas([block_on("meta"), block_on("meta")], maxima)
    assert [eta.device.type for eta in etas] == ["meta", "meta"]
    (eta,) = scope_etas([block_on("meta")], [[torch.tensor(5.0)]])
    assert eta.device.type == "meta"


def test_every_block_needs_its_maxima():
    with pytest.raises(ValueError, match="shorter"):
        scope_etas([block_on("cpu"), block_on("cpu")], [[torch.tensor(1.0)]])
