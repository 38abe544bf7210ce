"""A scaler as it is without arguments, and what it tells of several parameters."""

import pytest
import torch

from everlearn.gradients import VarianceGradientScaler
from tests.gradients.feeding import feed, parameters_of, random_steps


def test_the_defaults_are_these():
    scaler = VarianceGradientScaler(parameters_of((2,)))
    names = ("enabled", "beta", "alpha", "warmup_steps", "eps", "min_scale", "scope", "mode")
    assert [getattr(scaler, name) for name in names] == [True, 0.99, 0.1, 100, 1e-8, 0.1, "tensor", "noise"]


def test_the_variance_is_the_mean_over_the_elements_of_all_parameters():
    scaler = VarianceGradientScaler(parameters_of((1,), (3,)), beta=0.5)
    feed(scaler, [[torch.tensor([1.0]), torch.zeros(3)], [torch.tensor([3.0]), torch.zeros(3)]])
    assert scaler.grad_var_ema == pytest.approx(2.0 / 4)  # of the first element, as for two numbers


def test_what_is_told_are_numbers():
    scaler = VarianceGradientScaler(parameters_of((2,), (3,)), warmup_steps=0)
    feed(scaler, random_steps(3, (2,), (3,)))
    assert {type(value) for value in scaler.diagnostics().values()} == {float}


def test_the_warning_of_lost_statistics_points_at_the_caller():
    scaler = VarianceGradientScaler(parameters_of((2,)))
    feed(scaler, random_steps(3, (2,)))
    with pytest.warns(UserWarning, match="the statistics of 3 steps are lost") as caught:
        scaler.update_parameters(parameters_of((5,)))
    assert caught[0].filename == __file__
