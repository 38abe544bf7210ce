import pytest
import torch

from everlearn.core.errors import ArgumentError
from everlearn.optim import AdaptiveUPGD
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
ADAM = {"lr": 0.003, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}


class TestConformance(OptimizerConformance):
    @pytest.fixture
    def make_optimizer(self) -> MakeOptimizer:
        return lambda params: AdaptiveUPGD(params, lr=1e-3, scope="tensor")


def test_the_official_preset_follows_the_released_code():
    arguments = ("lr", "weight_decay", "beta_utility", "sigma", "betas", "eps", "step_multiplier")
    assert_follows("adaptive_upgd_rl", AdaptiveUPGD, arguments)


def test_without_gate_and_noise_it_is_adamw_bit_for_bit():
    adaptive = AdaptiveUPGD(random_parameters(*MIXED), sigma=0.0, scope="none", **ADAM)
    adamw = torch.optim.AdamW(random_parameters(*MIXED), foreach=False, **ADAM)
    for seed in range(200):
        gradients = random_gradients(held(adaptive), seed % 10)
        take_step(adaptive, gradients)
        take_step(adamw, gradients)
    assert same(values(adaptive), values(adamw))


def test_a_useless_weight_beside_useful_ones_takes_the_step_of_adamw_bit_for_bit():
    """B10: its utility is zero because it is put back to zero before every step; the others' utilities are not."""
    adaptive = AdaptiveUPGD(random_parameters((5, 3), (4, 4)), sigma=0.0, **ADAM)
    adamw = torch.optim.AdamW(random_parameters((5, 3), (4, 4)), foreach=False, **ADAM)
    for seed in range(200):
        gradients = random_gradients(held(adaptive), seed)
        for optimizer in (adaptive, adamw):
            held(optimizer)[0].detach().zero_()
            take_step(optimizer, gradients)
        assert torch.equal(held(adaptive)[0], held(adamw)[0])
    assert adaptive.diagnostics()["eta"] > 0
    assert not torch.equal(held(adaptive)[1], held(adamw)[1])


def test_betas_are_another_name_for_beta1_and_beta2():
    by_pair = AdaptiveUPGD(random_parameters((3, 3)), lr=0.01, betas=(0.5, 0.7), seed=0)
    by_name = AdaptiveUPGD(random_parameters((3, 3)), lr=0.01, beta1=0.5, beta2=0.7, seed=0)
    for seed in range(5):
        for optimizer in (by_pair, by_name):
            take_step(optimizer, random_gradients(held(optimizer), seed))
    assert same(values(by_pair), values(by_name))


@pytest.mark.parametrize("single", [{"beta1": 0.8}, {"beta2": 0.99}])
def test_betas_beside_beta1_or_beta2_are_refused(single):
    with pytest.raises(ArgumentError, match="Give one or the other"):
        AdaptiveUPGD(random_parameters((2,)), betas=(0.9, 0.99), **single)
