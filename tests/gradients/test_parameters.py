import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.gradients.parameters import read_parameters
from tests.gradients.feeding import parameters_of


def test_plain_parameters_have_neither_names_nor_groups():
    parameters = parameters_of((2,), (3,))
    assert read_parameters(iter(parameters)) == (parameters, None, None)


def test_named_parameters_keep_their_names():
    layer = nn.Linear(2, 3)
    assert read_parameters(layer.named_parameters()) == ([layer.weight, layer.bias], ["weight", "bias"], None)


def test_groups_number_their_parameters():
    first, second, third = parameters_of((1,), (2,), (3,))
    found = read_parameters([{"params": iter([first, second]), "lr": 0.1}, {"params": third}])
    assert found == ([first, second, third], None, [0, 0, 1])


def test_groups_may_hold_named_parameters():
    first, second = parameters_of((1,), (2,))
    found = read_parameters([{"params": [("actor", first)]}, {"params": [("critic", second)]}])
    assert found == ([first, second], ["actor", "critic"], [0, 1])


def test_the_groups_of_an_optimizer_keep_the_names_it_was_given():
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.SGD(layer.named_parameters(), lr=0.1)
    assert read_parameters(optimizer.param_groups) == ([layer.weight, layer.bias], ["weight", "bias"], [0, 0])


def test_an_empty_list_and_a_used_generator_are_refused():
    used = iter(parameters_of((1,)))
    list(used)
    for empty in ([], used, [{"params": []}]):
        with pytest.raises(ArgumentError, match="no parameters"):
            read_parameters(empty)


def test_one_tensor_is_a_list_of_one():
    (parameter,) = parameters_of((2, 2))
    assert read_parameters(parameter).tensors == [parameter]


def test_a_mixture_and_a_stranger_are_refused():
    (parameter,) = parameters_of((1,))
    with pytest.raises(ArgumentError, match="holds a tuple"):
        read_parameters([parameter, ("name", parameter)])
    with pytest.raises(ArgumentError, match="holds a str"):
        read_parameters(["weight"])


def test_a_repeated_tensor_or_name_is_refused():
    first, second = parameters_of((1,), (1,))
    with pytest.raises(ArgumentError, match="one tensor twice"):
        read_parameters([first, second, first])
    with pytest.raises(ArgumentError, match="'weight' twice"):
        read_parameters([("weight", first), ("weight", second)])
