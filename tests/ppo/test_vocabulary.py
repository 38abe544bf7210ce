"""Arguments as plain data: names of registries, never import paths."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

from everlearn.core.errors import ConfigError
from everlearn.optim.registry import optimizers
from everlearn.ppo.divergence import divergence_controls
from everlearn.ppo.kl import kl_controls
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.ppo.schedules import schedules
from everlearn.ppo.vocabulary import REGISTRIES, described, extractors, opaque_places, resolved
from everlearn.values import heads, reductions

OBJECTS = [
    *(heads.build(name) for name in heads),
    *(reductions.build(name) for name in reductions),
    *(kl_controls.build(name) for name in kl_controls),
    *(divergence_controls.build(name) for name in divergence_controls),
    schedules.build({"kind": "cosine", "start": 3e-4, "end": 1e-5}),
    schedules.build({"kind": "piecewise", "points": [(0.0, 1.0), (1.0, 0.5)]}),
]


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_every_registered_object_is_described_and_built_again(thing: Any) -> None:
    data = described(thing)
    assert not list(opaque_places(data, ""))
    again = resolved(data, "thing")
    assert type(again) is type(thing)
    assert described(again) == data


@pytest.mark.parametrize(
    "entry", [entry for registry in REGISTRIES.values() for entry in map(registry.__getitem__, registry)]
)
def test_every_registered_class_is_described_and_found_again(entry: type) -> None:
    assert resolved(described(entry), "entry") is entry


def test_plain_values_and_containers_are_themselves() -> None:
    value = {"net_arch": {"pi": [64, 64], "vf": []}, "flag": None, "text": "lin_3e-4", "n": 3}
    assert described(value) == value
    assert resolved(described(value), "value") == value
    beyond_json = {"betas": (0.9, (0.99,)), "clip": math.inf, "sizes": [(1, 2)]}
    assert resolved(json.loads(json.dumps(described(beyond_json), allow_nan=False)), "value") == beyond_json
    assert described({"scale": np.float32(0.5), "folder": Path("logs")}) == {"scale": 0.5, "folder": "logs"}
    assert resolved(described({"activation_fn": nn.ReLU, "layers": [nn.Tanh]}), "x") == {
        "activation_fn": nn.ReLU,
        "layers": [nn.Tanh],
    }


class Mine(BaseFeaturesExtractor):
    """An extractor of a user."""


def test_what_has_no_name_is_opaque_until_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"features_extractor_class": Mine, "features_extractor_kwargs": {"scale": lambda x: x}}
    assert list(opaque_places(described(arguments), "policy_kwargs")) == [
        ("policy_kwargs.features_extractor_class", "Mine"),
        ("policy_kwargs.features_extractor_kwargs.scale", "<lambda>"),
    ]
    monkeypatch.setattr(extractors, "_entries", dict(extractors._entries))
    monkeypatch.setattr(extractors, "_spellings", dict(extractors._spellings))
    extractors.add("mine", Mine)
    assert described(Mine) == {"$class": "features extractor:mine"}
    assert resolved({"$class": "features extractor:mine"}, "x") is Mine


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"$class": "os.system"}, "'os.system' names nothing"),
        ({"$class": "builtins:eval"}, "'builtins:eval' names nothing"),
        ({"$class": "optimizer:torch.load"}, "no optimizer 'torch.load'"),
        ({"$class": ["optimizer:adam"]}, "names nothing"),
        ({"$object": "value head:quantile", "arguments": {"n_quantiles": 0}}, "n_quantiles"),
        ({"$object": "value head:quantile", "arguments": {"quantiles": 5}}, "unknown key"),
        ({"$object": "value head:quantile", "arguments": [5]}, "arguments of 'quantile' are missing"),
        ({"deep": [{"$class": "policy:nothing"}]}, r"x\.deep\.0: There is no policy 'nothing'"),
    ],
)
def test_a_name_that_is_not_registered_is_an_error_at_its_place(data: Any, complaint: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=complaint):
        resolved(data, "x")


def test_names_of_our_own_and_of_sb3_are_there() -> None:
    assert described(ActorCriticPolicy) == {"$class": "policy:MlpPolicy"}
    assert described(NatureCNN) == {"$class": "features extractor:nature_cnn"}
    assert described(torch.optim.Adam) == {"$class": "optimizer:adam"}
    assert optimizers["adam"] is torch.optim.Adam
