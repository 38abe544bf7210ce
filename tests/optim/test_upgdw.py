import pytest

from everlearn.optim import UPGDW
from everlearn.testing.optimizers import MakeOptimizer, OptimizerConformance


class TestConformance(OptimizerConformance):
    @pytest.fixture
    def make_optimizer(self) -> MakeOptimizer:
        return lambda params: UPGDW(params, lr=1e-3)
