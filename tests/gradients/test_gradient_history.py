"""The history of gradients by itself: what a scaler never gives it, and what its errors name."""

import re

import pytest
import torch

from everlearn.core.errors import StateError
from everlearn.gradients.history import GradientHistory
from tests.gradients.feeding import parameters_of


def history_of(*shapes: tuple[int, ...], names: list[str] | None = None) -> GradientHistory:
    return GradientHistory(names, parameters_of(*shapes))


def test_every_parameter_needs_a_gradient_or_none_and_a_name():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        history_of((2,), (3,)).copy_of([torch.zeros(2)])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        history_of((2,), (3,), names=["only"]).state_dict()


def test_without_any_gradient_the_mean_gradient_is_zero_and_not_nan():
    assert history_of((2,)).copy_of([None]).mean_absolute.item() == 0.0


def test_an_error_names_five_missing_and_five_unknown_tensors_at_most():
    unknown = {f"x{index}": torch.zeros(1) for index in range(9)}
    named = "['mean.0', 'ss.0', 'c', 'q', 'grad_mean_ema'] are missing, ['x0', 'x1', 'x2', 'x3', 'x4'] are unknown"
    with pytest.raises(StateError, match=re.escape(named)):
        history_of((2,)).load_state_dict(unknown)
