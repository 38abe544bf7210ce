"""A small model of every kind of policy, and the names of their parts."""

from __future__ import annotations

from typing import Any

from torch import nn

KINDS: dict[str, dict[str, Any]] = {
    "vectors": {},
    "gSDE": {"place": "pendulum", "use_sde": True},
    "images": {"place": "images", "policy": "CnnPolicy"},
    "two extractors": {
        "place": "images",
        "policy": "CnnPolicy",
        "policy_kwargs": {"share_features_extractor": False},
    },
    "dictionaries": {"place": "dictionaries", "policy": "MultiInputPolicy", "policy_kwargs": {"net_arch": [8]}},
}
CRITICS = ("mlp_extractor.value_net.", "value_net.", "critics.", "vf_features_extractor.")
ACTOR = ("mlp_extractor.policy_net.", "action_net.", "log_std")


def names_of(policy: nn.Module, prefixes: tuple[str, ...]) -> set[str]:
    return {name for name, _ in policy.named_parameters() if name.startswith(prefixes)}
