"""Everything on: critics, UPGD, variance scaling and the unit of returns."""

from __future__ import annotations

import math
from typing import Any

from everlearn import PPO
from tests.ppo.updates import learned, leaves, model_of

EVERYTHING: dict[str, Any] = {
    "clip_range_vf": 0.5,
    "vgs_warmup_steps": 5,
    "optimizer_kwargs": {"adaptive_noise": True},
}
KINDS: dict[str, dict[str, Any]] = {
    "discrete actions": {"place": "cartpole"},
    "actions of the real line": {},
    "gSDE": {"use_sde": True, "sde_sample_freq": 4},
    "images": {"place": "images", "policy": "CnnPolicy"},
    "dictionaries": {"place": "dictionaries", "policy": "MultiInputPolicy"},
    "categorical": {"value_head": "categorical", "n_critics": 3, "critic_reduction": "lcb"},
    "UPGD, scalar": {"value_head": "scalar", "optimizer_class": "upgd"},
    "Adam, truncated": {"optimizer_class": "adam", "optimizer_kwargs": {}, "critic_reduction": "truncated"},
}


def everything(place: str = "pendulum", **arguments: Any) -> PPO:
    return model_of(place, **{**EVERYTHING, **arguments})


def assert_finite(model: PPO) -> None:
    assert [name for name, tensor in leaves(learned(model)).items() if not tensor.isfinite().all()] == []
    logged = {name: value for name, value in model.logger.name_to_value.items() if isinstance(value, float)}
    assert [name for name, value in logged.items() if not math.isfinite(value)] == []
