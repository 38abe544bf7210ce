from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from everlearn.core.flat import FlatLayout
from everlearn.optim.block import Block
from everlearn.optim.directions import (
    AdamDirection,
    GradientDirection,
    scaled,
    subtract_,
    subtract_product_,
    subtract_ratio_,
)

FORMS = pytest.mark.parametrize("form", [float, torch.tensor], ids=["float", "tensor"])
"""A step is a float where all parameters share it, and a tensor where they do not or where it is traced."""
HYPER = {"beta1": 0.5, "beta2": 0.75, "eps": 1.0}


def block_of(grad: list[float], **changes: Any) -> Block:
    """At weight 10, with averages of which the corrected ones are 4 times the numbers and 2 and 3 squared."""
    return Block(
        **{
            "param": torch.full((2,), 10.0),
            "grad": torch.tensor(grad),
            "state": {"exp_avg": torch.tensor([1.0, 2.0]), "exp_avg_sq": torch.tensor([2.0, 4.5])},
            "weights": {"exp_avg": 0.25, "exp_avg_sq": 0.5},
            **changes,
        }
    )


def two_parameters(*values: float) -> Tensor:
    """One value for each of two parameters that are gathered into one block."""
    return torch.tensor(values)


LAYOUT = FlatLayout([torch.zeros(1), torch.zeros(1)])


def test_a_step_may_differ_from_weight_to_weight():
    update, other, step = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]), torch.tensor([3.0, 0.5])
    params = torch.full((3, 2), 10.0)
    subtract_(params[0], update, step)
    subtract_ratio_(params[1], update, other, step)
    subtract_product_(params[2], update, other, step)
    assert params.tolist() == [[7.0, 11.0], [8.5, 10.25], [4.0, 14.0]]


@FORMS
def test_a_step_is_subtracted(form):
    param = torch.tensor([10.0, 10.0])
    subtract_(param, torch.tensor([1.0, -2.0]), form(3.0))
    assert param.tolist() == [7.0, 16.0]


@FORMS
def test_a_ratio_is_subtracted(form):
    param = torch.tensor([10.0, 10.0])
    subtract_ratio_(param, torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]), form(4.0))
    assert param.tolist() == [8.0, 12.0]


@FORMS
def test_a_product_is_subtracted(form):
    param = torch.tensor([10.0, 10.0])
    subtract_product_(param, torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]), form(0.5))
    assert param.tolist() == [9.0, 14.0]


def test_factors_that_are_there_multiply():
    update = torch.tensor([1.0, 2.0])
    assert scaled(update, None, None) is update
    assert scaled(update, torch.tensor([2.0, 3.0]), None, 0.5).tolist() == [1.0, 3.0]
    assert update.tolist() == [1.0, 2.0]


def test_the_gradient_remembers_nothing():
    assert GradientDirection.averages == GradientDirection().decays(HYPER) == ()
    block = block_of([3.0, 5.0])
    GradientDirection().observe_(block, HYPER)
    assert (block.param.tolist(), block.grad.tolist()) == ([10.0, 10.0], [3.0, 5.0])


def test_the_update_of_the_gradient_is_without_the_factor_that_it_was_scaled_with():
    assert GradientDirection().update(block_of([3.0, 5.0]), HYPER).tolist() == [3.0, 5.0]
    halved = block_of([3.0, 5.0], grad_scale=two_parameters(0.5, 0.25), layout=LAYOUT)
    assert GradientDirection().update(halved, HYPER).tolist() == [6.0, 20.0]


@FORMS
def test_the_gradient_descends_by_step_gate_and_factor(form):
    for changes, gate, expected in (
        ({}, None, [4.0, 0.0]),
        ({}, torch.tensor([0.5, 0.25]), [7.0, 7.5]),
        ({"step_scale": two_parameters(0.5, 0.1), "layout": LAYOUT}, torch.tensor([0.5, 1.0]), [8.5, 9.0]),
    ):
        block = block_of([3.0, 5.0], **changes)
        GradientDirection().descend_(block, HYPER, form(2.0), gate)
        assert block.param.tolist() == pytest.approx(expected)


def test_adam_averages_the_gradient_and_its_square():
    block = block_of([3.0, 4.0])
    AdamDirection().observe_(block, HYPER)
    assert AdamDirection.averages == ("exp_avg", "exp_avg_sq")
    assert AdamDirection().decays(HYPER) == (0.5, 0.75)
    assert block.state["exp_avg"].tolist() == [2.0, 3.0]
    assert block.state["exp_avg_sq"].tolist() == [3.75, 7.375]


def test_the_update_of_adam_is_the_ratio_of_the_corrected_averages():
    update = AdamDirection().update(block_of([0.0, 0.0]), HYPER)
    assert update.tolist() == pytest.approx([4.0 / (2.0 + 1.0), 8.0 / (3.0 + 1.0)])
    weights = {"exp_avg": two_parameters(0.25, 0.5), "exp_avg_sq": two_parameters(0.5, 1.125)}
    gathered = AdamDirection().update(block_of([0.0, 0.0], weights=weights, layout=LAYOUT), HYPER)
    assert gathered.tolist() == pytest.approx([4.0 / (2.0 + 1.0), 4.0 / (2.0 + 1.0)])


@FORMS
@pytest.mark.parametrize("known", [False, True], ids=["in one operation", "from the update that is known"])
def test_adam_descends_by_step_gate_and_factor(form, known):
    for changes, gate, multiples in (
        ({}, None, (1.0, 1.0)),
        ({}, torch.tensor([0.5, 0.25]), (0.5, 0.25)),
        ({"step_scale": two_parameters(0.5, 0.1), "layout": LAYOUT}, torch.tensor([0.5, 1.0]), (0.25, 0.1)),
    ):
        block = block_of([0.0, 0.0], **changes)
        if known:
            block.update = AdamDirection().update(block, HYPER)
        AdamDirection().descend_(block, HYPER, form(1.5), gate)
        assert block.param.tolist() == pytest.approx([10.0 - 2.0 * multiples[0], 10.0 - 3.0 * multiples[1]])
        assert block.state["exp_avg"].tolist() == [1.0, 2.0], "the averages stay"
        assert block.state["exp_avg_sq"].tolist() == [2.0, 4.5]


def test_an_update_that_is_known_is_the_one_that_adam_takes():
    block = block_of([0.0, 0.0], update=torch.tensor([1.0, -1.0]))
    AdamDirection().descend_(block, HYPER, 2.0, torch.tensor([0.5, 1.0]))
    assert block.param.tolist() == [9.0, 12.0]


def test_weights_of_gathered_parameters_correct_each_its_own_average():
    weights = {"exp_avg": two_parameters(0.25, 0.5), "exp_avg_sq": two_parameters(0.5, 1.125)}
    block = block_of([0.0, 0.0], weights=weights, layout=LAYOUT)
    AdamDirection().descend_(block, HYPER, 1.5, None)
    assert_close(block.param, torch.tensor([8.0, 8.0]))
