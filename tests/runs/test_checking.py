from typing import Any

import pytest
import torch

from everlearn.core.errors import ConfigError
from everlearn.runs.checking import check_device, check_names
from tests.runs.tiny import tiny


def test_a_gpu_beyond_the_last_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        check_device(device, "device")
    with pytest.raises(ConfigError, match="device: 'cuda:2' was asked for and torch sees 2 GPUs, counted from cuda:0"):
        check_device("cuda:2", "device")


GOOD = {
    "learning_rate": {"kind": "cosine", "start": 1e-3, "end": 1e-5},
    "clip_range": {"kind": "piecewise", "points": [[0.0, 0.3], [1.0, 0.1]]},
    "kl_penalty": {"kind": "pid"},
    "divergence": {"kind": "restore", "patience": 3},
    "value_head": {"kind": "quantile", "n_quantiles": 8},
    "env.wrappers": ["ClipAction"],
}


def test_registered_names_and_arguments_that_they_have_pass() -> None:
    check_names(tiny(**GOOD))
    check_names(tiny(kl_penalty=True))
    check_names(tiny(kl_penalty=False, clip_range_vf={"kind": "linear", "start": 0.2}))


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"env.id": "CartPoll-v1"}, "env.id: there is no environment 'CartPoll-v1'. Did you mean CartPole-v1"),
        (
            {"env.wrappers": ["ClipAktion"]},
            "env.wrappers.0: There is no wrapper 'ClipAktion'. Did you mean 'ClipAction'",
        ),
        ({"name": "PP0"}, "algorithm.name: There is no algorithm 'PP0'. Did you mean 'PPO'?"),
        ({"policy_kwargs.activation_fn": "rellu"}, "activation_fn: There is no activation function 'rellu'"),
        ({"learning_rate": {"kind": "cosin", "start": 1}}, "algorithm.learning_rate: There is no schedule 'cosin'"),
        ({"learning_rate": {"kind": "cosine"}}, "algorithm.learning_rate.start: Field required"),
        (
            {"clip_range": {"kind": "linear", "start": 1, "end_fraction": 2}},
            "algorithm.clip_range: end_fraction=2.0 is outside (0, 1]",
        ),
        ({"value_head": {"kind": "quantile", "n": 3}}, "algorithm.value_head.n: unknown key"),
        ({"critic_reduction": "men"}, "algorithm.critic_reduction: There is no"),
        ({"kl_penalty": "pidd"}, "algorithm.kl_penalty: There is no"),
        ({"kl_penalty": {"kind": "pid", "targett": 1}}, "algorithm.kl_penalty.targett: unknown key"),
        ({"divergence": {"kind": "stop", "patience": 0}}, "algorithm.divergence: patience=0 is outside [1, inf)"),
        ({"optimizer_kwargs": {"sigma": 1}}, "algorithm.optimizer_kwargs.sigma: unknown key"),
    ],
)
def test_a_name_or_argument_that_nothing_has_is_named_with_its_path(overrides: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_names(tiny(**overrides))
    assert complaint in str(refusal.value)
    assert len(str(refusal.value).split("\n")) == 1


def test_all_complaints_about_names_come_together() -> None:
    with pytest.raises(ConfigError) as refusal:
        check_names(tiny(**{"env.id": "Nothing-v0", "name": "PP0", "value_head": "men", "vgs_kwargs": {"foo": 1}}))
    paths = [line.partition(":")[0] for line in str(refusal.value).split("\n")]
    assert paths == ["env.id", "algorithm.name", "algorithm.value_head", "algorithm.vgs_kwargs.foo"]


def test_no_complaint_of_a_section_hides_another() -> None:
    wrong = {
        "env.wrappers": ["ClipAktion", "ClipAction", "TimeLimitt"],
        "name": "PP0",
        "policy_kwargs.activation_fn": "rellu",
        "learning_rate": "lin_1e-3",
        "clip_range": {"kind": "cosin"},
        "clip_range_vf": {"kind": "linnear"},
        "value_head": "kwantile",
        "critic_reduction": "men",
        "kl_penalty": "pidd",
        "divergence": "stopp",
        "policy": "MlpPolicy",
        "policy_kwargs.features_extractor_kwargs": {"foo": 1},
        "optimizer_class": "adam",
        "optimizer_kwargs": {"sigma": 1, "tau": 2},
        "vgs_kwargs": {"foo": 1, "bar": 2},
    }
    with pytest.raises(ConfigError) as refusal:
        check_names(tiny(**wrong))
    paths = [line.partition(":")[0].removeprefix("algorithm.") for line in str(refusal.value).split("\n")]
    assert paths == [
        "env.wrappers.0",
        "env.wrappers.2",
        "name",
        "policy_kwargs.activation_fn",
        "clip_range",
        "clip_range_vf",
        "value_head",
        "critic_reduction",
        "kl_penalty",
        "divergence",
        "policy_kwargs.features_extractor_kwargs.foo",
        "optimizer_kwargs.sigma",
        "optimizer_kwargs.tau",
        "vgs_kwargs.foo",
        "vgs_kwargs.bar",
    ]
