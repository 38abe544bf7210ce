import pytest

from everlearn.optim import UPGDW, AdaptiveUPGD
from everlearn.testing.optimizers import (
    MakeOptimizer,
    OptimizerConformance,
    random_parameters,
    same,
    take_steps,
    values,
)


class TestConformance(OptimizerConformance):
    @pytest.fixture
    def make_optimizer(self) -> MakeOptimizer:
        return lambda params: UPGDW(params, lr=1e-3)


def test_it_is_adaptive_upgd_with_beta2_as_the_decay_of_the_utility():
    options = {"lr": 0.01, "betas": (0.8, 0.7), "eps": 1e-6, "weight_decay": 0.1, "sigma": 0.1, "seed": 0}
    upgdw = UPGDW(random_parameters((5, 3), (5,)), **options)
    adaptive = AdaptiveUPGD(random_parameters((5, 3), (5,)), beta_utility=0.7, **options)
    for optimizer in (upgdw, adaptive):
        take_steps(optimizer, range(5))
    assert same(values(upgdw), values(adaptive))


def test_a_changed_beta2_changes_the_decay_of_the_utility():
    """Population based training changes it on the way."""
    upgdw = UPGDW(random_parameters((5, 3)), lr=0.01, betas=(0.9, 0.99), seed=0)
    adaptive = AdaptiveUPGD(
        random_parameters((5, 3)), lr=0.01, betas=(0.9, 0.99), beta_utility=0.99, weight_decay=0.01, seed=0
    )
    for beta in (0.99, 0.5):
        upgdw.param_groups[0]["beta2"] = beta
        adaptive.param_groups[0] |= {"beta2": beta, "beta_utility": beta}
        for optimizer in (upgdw, adaptive):
            take_steps(optimizer, range(3))
    assert same(values(upgdw), values(adaptive))
