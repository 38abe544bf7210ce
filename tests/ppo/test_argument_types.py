"""Values that nobody has checked, held to a constructor's annotations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from everlearn import PPO
from everlearn.core.errors import ArgumentError
from everlearn.ppo.argument_types import fitting
from everlearn.values import heads


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1),
        ("learning_rate", "lin_3e-4"),
        ("learning_rate", {"kind": "cosine", "start": 1.0}),
        ("learning_rate", lambda progress: progress),
        ("gamma", 1),
        ("seed", None),
        ("optimizer_class", torch.optim.Adam),
        ("optimizer_class", "adam"),
        ("value_head", heads.build("quantile")),
        ("value_head", "quantile"),
        ("kl_penalty", True),
        ("policy_kwargs", {"net_arch": [64], "activation_fn": torch.nn.ReLU}),
        ("rollout_buffer_class", None),
        ("an argument of a subclass", object()),
    ],
)
def test_what_the_constructor_takes_passes(name: str, value: Any) -> None:
    assert fitting(PPO, name, value) == value


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("verbose", True, 1), ("use_sde", 1, True), ("sde_sample_freq", 4.0, 4), ("n_steps", 64.0, 64)],
)
def test_what_says_the_same_becomes_the_kind_that_is_meant(name: str, value: Any, meant: Any) -> None:
    found = fitting(PPO, name, value)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", [1.0]),
        ("gamma", "much"),
        ("n_steps", 2.5),
        ("use_sde", 7),
        ("seed", {}),
        ("verbose", "loud"),
        ("tensorboard_log", 5),
        ("policy_kwargs", [1]),
        ("value_head", 5),
        ("rollout_buffer_class", dict),
        ("optimizer_class", int),
    ],
)
def test_anything_else_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}=.* is of another kind"):
        fitting(PPO, name, value)
