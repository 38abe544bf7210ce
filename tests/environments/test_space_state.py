"""Spaces as plain data and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from everlearn.core.digest import digest
from everlearn.core.errors import StateError
from everlearn.environments.space_state import space_from, space_state

SPACES = [
    spaces.Box(-np.inf, np.inf, (3,)),
    spaces.Box(0, 255, (4, 4, 1), np.uint8),
    spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 7.0]), dtype=np.float64),
    spaces.Box(0, 1, ()),
    spaces.Discrete(3),
    spaces.Discrete(5, start=-2),
    spaces.Discrete(3, dtype=np.int32),
    spaces.Discrete(5, start=1, dtype=np.uint8),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiDiscrete([[2, 3]], start=np.array([[1, 2]]), dtype=np.uint16),
    spaces.MultiDiscrete(np.array([[1, 2], [3, 4]]), start=np.array([[0, 1], [0, 5]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Dict(b=spaces.Discrete(2), a=spaces.Box(0, 1, (2,))),
    spaces.Tuple([spaces.Discrete(2), spaces.Dict(x=spaces.MultiBinary(2))]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_equal(space: spaces.Space[Any]) -> None:
    state = space_state(space)
    again = space_from(state)
    assert again == space
    assert (again.shape, again.dtype, type(again)) == (space.shape, space.dtype, type(space))
    assert getattr(again.sample(), "dtype", None) == getattr(space.sample(), "dtype", None)
    assert digest(space_state(again)) == digest(state)


def test_a_discrete_space_of_a_file_of_before_has_the_usual_type() -> None:
    again = space_from({"kind": "Discrete", "n": 3, "start": 1})
    assert again == spaces.Discrete(3, start=1)
    assert again.dtype == np.int64


def test_a_space_that_no_file_holds_is_refused_by_its_path() -> None:
    with pytest.raises(StateError, match=r"'observation_space\.words' is a Text"):
        space_state(spaces.Dict(words=spaces.Text(5)), "observation_space")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"kind": "Text"},
        {"kind": "Box"},
        {"kind": "Box", "low": 3, "high": 4},
        {"kind": "Box", "low": np.zeros(2), "high": np.ones(3)},
        {"kind": "Discrete", "n": 0, "start": 0},
        {"kind": "Discrete", "n": "three", "start": 0},
        {"kind": "Discrete", "n": 10**30, "start": 0},
        {"kind": "Discrete", "n": 3, "start": 0, "dtype": "object"},
        {"kind": "Discrete", "n": 3, "start": 0, "dtype": []},
        {"kind": "MultiDiscrete", "nvec": [1, 2], "start": [0, 0]},
        {"kind": "MultiDiscrete", "nvec": np.array([0, 2]), "start": np.array([0, 0])},
        {"kind": "MultiBinary", "n": -1},
        {"kind": "MultiBinary", "n": [2, "x"]},
        {"kind": "Dict", "spaces": [1]},
        {"kind": "Dict", "spaces": {"a": 5}},
        {"kind": "Tuple", "spaces": 5},
        [],
        None,
    ],
    ids=str,
)
def test_data_that_make_no_space_are_an_error(state: Any) -> None:
    with pytest.raises(StateError, match=r"space"):
        space_from(state)
