import inspect
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from everlearn.core.errors import ConfigError
from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD, optimizers
from everlearn.testing.optimizers import random_parameters

CLASSES = {
    "upgd": UPGD,
    "upgdw": UPGDW,
    "adaptive_upgd": AdaptiveUPGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def test_these_are_the_optimizers():
    assert dict.fromkeys(optimizers) == dict.fromkeys(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_name_and_a_class_belong_together(name):
    assert optimizers[name] is CLASSES[name]
    assert optimizers.name_of(CLASSES[name]) == name


@pytest.mark.parametrize("spelling", ["AdaptiveUPGD", "adaptive_upgd", "adaptive-upgd", "ADAPTIVE UPGD"])
def test_any_spelling_finds_it(spelling):
    assert optimizers[spelling] is AdaptiveUPGD
    assert isinstance(optimizers.build(spelling, params=random_parameters((2,))), AdaptiveUPGD)


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'adaptive_upgd'"):
        optimizers["adaptive_ugpd"]


@pytest.mark.parametrize("name", CLASSES)
def test_the_spec_has_every_argument_but_the_parameters(name):
    expected = inspect.signature(CLASSES[name]).parameters.keys() - {"params"} | {"kind"}
    assert optimizers.spec_model(name).model_fields.keys() == expected
    assert optimizers.spec_model(name)().kind == name


@pytest.mark.parametrize("name", CLASSES)
def test_a_mapping_builds_the_optimizer_with_its_arguments(name):
    optimizer = optimizers.build({"kind": name, "lr": 0.5}, params=random_parameters((2,)))
    assert type(optimizer) is CLASSES[name]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_numbers_and_pairs_are_read_as_yaml_gives_them():
    spec: dict[str, Any] = {"kind": "UPGDW", "lr": "3e-4", "betas": [0.8, 0.9], "scope": "row", "adaptive_noise": True}
    group = optimizers.build(spec, params=random_parameters((2,))).param_groups[0]
    assert (group["lr"], group["beta1"], group["beta2"]) == (3e-4, 0.8, 0.9)
    assert (group["scope"], group["adaptive_noise"]) == ("row", True)


def test_an_unknown_argument_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'sigma'"):
        optimizers.arguments("upgd", {"sigmar": 0.1})


@pytest.mark.parametrize("wrong", [{"scope": "rows"}, {"preset": "papers"}, {"noise": "dice"}, {"lr": "fast"}])
def test_a_value_of_a_wrong_kind_is_refused(wrong):
    with pytest.raises(ValidationError):
        optimizers.spec_model("adaptive_upgd")(**wrong)


DEFAULTS = {
    "upgd": {"lr": 1e-5, "weight_decay": 0.001, "beta_utility": 0.999, "sigma": 0.001},
    "adaptive_upgd": {
        "lr": 1e-5,
        "weight_decay": 0.001,
        "beta_utility": 0.999,
        "sigma": 0.001,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "adaptive_noise": False,
        "noise_beta": 0.999,
        "min_noise_std": 1e-6,
    },
    "upgdw": {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_arguments_come_in_this_order_with_these_defaults(name):
    """Users of the earlier system and of AdamW may give them by position."""
    parameters = inspect.signature(CLASSES[name]).parameters
    assert list(parameters)[: len(DEFAULTS[name]) + 1] == ["params", *DEFAULTS[name]]
    assert {argument: parameters[argument].default for argument in DEFAULTS[name]} == DEFAULTS[name]
