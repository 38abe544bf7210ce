import numpy as np
import pytest
import torch

from everlearn.core.errors import NonFiniteError
from everlearn.core.finite import require_finite, require_finite_state


def test_finite_values_and_integers_pass():
    require_finite("observation", {"image": np.full((2, 3), 255, dtype=np.uint8), "speed": np.zeros(2)}, step=1)


def test_the_first_bad_environment_and_its_values_are_named():
    values = np.array([[0.0, 1.0], [2.0, np.inf], [np.nan, 0.0]])
    with pytest.raises(NonFiniteError, match=r"Environment 1 returned a non-finite reward at its step 7: \[ 2. inf\]"):
        require_finite("reward", values, step=7)


def test_the_key_of_a_dictionary_is_named():
    with pytest.raises(NonFiniteError, match="Environment 0 returned a non-finite observation 'speed'"):
        require_finite("observation", {"place": np.zeros(2), "speed": np.array([np.nan, 0.0])}, step=1)


def test_values_of_one_environment_name_it():
    with pytest.raises(NonFiniteError, match="Environment 5 returned a non-finite terminal observation"):
        require_finite("terminal observation", np.array([0.0, np.nan]), step=1, environment=5)


def test_a_state_names_the_tensor_that_is_not_finite():
    state = {"policy": {"weight": torch.ones(2), "count": torch.tensor(3), "bias": torch.tensor([0.0, torch.inf])}}
    with pytest.raises(NonFiniteError, match=r"'policy\.bias' is not finite"):
        require_finite_state(state)


def test_a_sum_that_overflows_is_no_infinity():
    require_finite_state({"weight": torch.full((2,), 3e38), "texts": ["a"], "number": float("nan")})
