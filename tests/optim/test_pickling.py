"""B12: an optimizer that was pickled goes on as if it had not been."""

import copy

import pytest
import torch

from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.testing.optimizers import held, random_parameters, same, take_steps, tensors_in, values
from tests.carrying import through_a_pipe

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("noise", ["generator", "table"])
def test_b12_a_pickled_optimizer_keeps_its_state_in_float32_and_goes_on_bit_for_bit(kind, dtype, noise):
    optimizer = kind(random_parameters((3, 4), (4,), dtype=dtype), lr=0.1, sigma=0.1, noise=noise)
    take_steps(optimizer, range(3))
    pickled = through_a_pipe(optimizer)
    assert {param.dtype for param in held(pickled)} == {dtype}
    assert same(pickled.state_dict(), optimizer.state_dict())
    averages = [tensor for tensor in tensors_in(pickled.state_dict()["state"]) if tensor.dim() > 0]
    assert averages
    assert all(torch.promote_types(tensor.dtype, torch.float32) == tensor.dtype for tensor in averages)
    before = copy.deepcopy(values(optimizer))
    for each in (optimizer, pickled):
        take_steps(each, range(3, 6))
    assert same(values(pickled), values(optimizer))
    assert not same(values(pickled), before)
