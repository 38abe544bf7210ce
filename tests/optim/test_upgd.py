import pytest
import torch

from everlearn.optim import UPGD
from everlearn.testing.optimizers import (
    MakeOptimizer,
    OptimizerConformance,
    held,
    random_gradients,
    random_parameters,
    same,
    take_step,
    values,
)
from tests.optim.vectors import assert_follows

MIXED = [(5, 3), (5,), (), (300, 120), (2, 3, 1)]


class TestConformance(OptimizerConformance):
    @pytest.fixture
    def make_optimizer(self) -> MakeOptimizer:
        return lambda params: UPGD(params, lr=1e-2, noise="table", adaptive_noise=True)


@pytest.mark.parametrize("name", ["upgd_global", "upgd_local", "upgd_nonprotecting"])
def test_the_official_preset_follows_the_released_code(name):
    arguments = ("lr", "weight_decay", "beta_utility", "sigma", "step_multiplier", "scope", "protect")
    assert_follows(name, UPGD, arguments)


def step_of_decoupled_sgd(sgd: torch.optim.SGD, gradients: list[torch.Tensor], weight_decay: float) -> None:
    with torch.no_grad():
        for param in held(sgd):
            param.mul_(1 - sgd.param_groups[0]["lr"] * weight_decay)
    take_step(sgd, gradients)


def test_without_gate_and_noise_it_is_sgd_with_decoupled_decay_bit_for_bit():
    upgd = UPGD(random_parameters(*MIXED), lr=0.01, weight_decay=0.1, sigma=0.0, scope="none")
    sgd = torch.optim.SGD(random_parameters(*MIXED), lr=0.01, foreach=False)
    for seed in range(200):
        gradients = random_gradients(held(upgd), seed % 10)
        take_step(upgd, gradients)
        step_of_decoupled_sgd(sgd, gradients, weight_decay=0.1)
    assert same(values(upgd), values(sgd))


def test_a_useless_weight_beside_useful_ones_takes_the_step_of_sgd_bit_for_bit():
    """B10: its utility is zero because it is put back to zero before every step; the others' utilities are not."""
    upgd = UPGD(random_parameters((5, 3), (4, 4)), lr=0.01, weight_decay=0.1, sigma=0.0)
    sgd = torch.optim.SGD(random_parameters((5, 3), (4, 4)), lr=0.01, foreach=False)
    for seed in range(200):
        for optimizer in (upgd, sgd):
            held(optimizer)[0].detach().zero_()
        gradients = random_gradients(held(upgd), seed)
        take_step(upgd, gradients)
        step_of_decoupled_sgd(sgd, gradients, weight_decay=0.1)
        assert torch.equal(held(upgd)[0], held(sgd)[0])
    assert upgd.diagnostics()["eta"] > 0
    assert not torch.equal(held(upgd)[1], held(sgd)[1])
