"""Hostile values in files that are whole: documents, arguments, spaces, tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from tests.security.corpus import ATTACKS, Attack, family
from tests.security.own_files import changed, good, rebuilt
from tools.fuzz.archives import MANIFEST, laid_out

_NAMED = ("Corrupt", "TooLarge", "Mismatch", "Untrusted", "Unsupported")

DEEP = b"[" * 100_000 + b"]" * 100_000
TEXTS = {
    "deep": (DEEP, ("TooLarge",)),
    "deep objects": (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, ("TooLarge",)),
    "an integer of a million digits": (b'{"n_steps":' + b"9" * 10**6 + b"}", ("TooLarge",)),
    "an integer of two hundred thousand digits": (b'{"n_steps":' + b"9" * 2 * 10**5 + b"}", ("Corrupt",)),
    "a number beyond all": (b'{"gamma":1e999999}', ("Corrupt",)),
    "NaN": (b'{"gamma":NaN}', ("Corrupt",)),
    "a key twice": (b'{"n_steps":1,"n_steps":2}', ("Corrupt",)),
    "a huge string": (b'{"policy":"' + b"x" * 9 * 10**6 + b'"}', ("TooLarge",)),
    "a large string": (b'{"policy":"' + b"x" * 2 * 10**5 + b'"}', ("Mismatch", "Corrupt")),
    "a large string of escapes": (b'{"policy":"' + b'\\"' * 10**5 + b'"}', ("Mismatch", "Corrupt")),
    "half a surrogate": (b'{"policy":"\\ud800"}', ("Mismatch", "Corrupt")),
    "no utf-8": (b'{"policy":"\xff"}', ("Corrupt",)),
    "a list": (b"[1]", ("Corrupt", "Mismatch")),
    "many empty lists": (b'{"policy":[' + b"[]," * 10**6 + b"[]]}", ("TooLarge",)),
    "empty lists": (b'{"policy":[' + b"[]," * 80_000 + b"[]]}", ("Mismatch", "Corrupt", "TooLarge")),
    "empty lists for an argument": (
        b'{"policy_kwargs":[' + b"[]," * 80_000 + b"[]]}",
        ("Mismatch", "Corrupt", "TooLarge"),
    ),
}
for _case, (_text, _error) in TEXTS.items():
    ATTACKS[f"config.json: {_case}"] = Attack(
        lambda canary, text=_text: rebuilt({"config.json": text}),  # type: ignore[misc]
        _error,
        ("DistributionalPPO.load",),
    )
family(
    "manifest: deep",
    lambda canary, text: laid_out({MANIFEST: text, **good()[0]}.items()),
    {"lists": DEEP, "objects": TEXTS["deep objects"][0]},
    *("TooLarge", "Corrupt"),
)

HUGE = 10**9


def _head(**arguments: Any) -> dict[str, Any]:
    return {"value_head": {"$object": "value head:quantile", "arguments": arguments}}


SETTINGS: dict[str, dict[str, Any]] = {
    "n_steps": {"n_steps": HUGE},
    "n_steps beyond 64 bits": {"n_steps": 10**30},
    "n_envs": {"n_envs": HUGE},
    "negative n_envs": {"n_envs": -HUGE},
    "batch_size": {"batch_size": 0},
    "net_arch": {"policy_kwargs": {"net_arch": [HUGE]}},
    "net_arch of ten thousand layers": {"policy_kwargs": {"net_arch": [1] * 10_000}},
    "net_arch of wide layers": {"policy_kwargs": {"net_arch": [20_000] * 3}},
    "n_quantiles": {"value_head": {"kind": "quantile", "n_quantiles": HUGE}},
    "n_atoms": {"value_head": {"kind": "categorical", "n_atoms": HUGE}},
    "n_critics": {"n_critics": HUGE},
    "features_dim": {
        "policy": {"$class": "policy:CnnPolicy"},
        "policy_kwargs": {"features_extractor_kwargs": {"features_dim": HUGE}},
    },
    "a name that imports": {"policy": {"$class": "os:system"}},
    "a name with a path": {"optimizer_class": {"$class": "optimizer:os.system"}},
    "a name with underscores": {"policy": {"$class": "policy:__class__"}},
    "a name of another registry": {"policy": {"$class": "schedule:linear"}},
    "a name as a path": {"value_head": "everlearn.values:QuantileHead"},
    "an object with hostile arguments": _head(n_quantiles=HUGE),
    "an object with unknown arguments": _head(__class__=1),
    "an object that is no value": {"learning_rate": {"$object": "optimizer:AdaptiveUPGD", "arguments": {}}},
    "an attribute": {"predict": "x"},
    "a class": {"__class__": "x"},
    "a dictionary": {"__dict__": {}},
    "an environment": {"env": "CartPole-v1"},
    "an environment that imports": {"env": "antigravity:CartPole-v1"},
    "a device": {"device": "cuda"},
    "a set-up": {"_init_setup_model": True},
    "a number as a policy": {"policy": 3},
    "a buffer": {"rollout_buffer_class": {"$class": "policy:MlpPolicy"}},
}
family("config.json", lambda canary, values: changed("config.json", **values), SETTINGS, *_NAMED)
family(
    "config.json, read without harm",
    lambda canary, values: changed("config.json", **values),
    {"stats_window_size": {"stats_window_size": HUGE}, "tensorboard_log": {"tensorboard_log": "/nowhere/at/all"}},
)


def _space(canary: Path, space: Mapping[str, Any]) -> bytes:
    return changed("spaces.json", observation_space=space)


def _bounds(canary: Path, bounds: tuple[float, float]) -> bytes:
    """The good file with other bounds of the actions."""
    low, high = (torch.tensor([bound]) for bound in bounds)
    tensors = load(good()[0]["spaces.safetensors"])
    names = [name for name, tensor in tensors.items() if tensor.shape == (1,)]
    return rebuilt({"spaces.safetensors": save({**tensors, **dict(zip(sorted(names), (high, low), strict=True))})})


SPACES: dict[str, Any] = {
    "n beyond 64 bits": {"kind": "Discrete", "n": 10**30, "start": 0},
    "n of 10^18": {"kind": "Discrete", "n": 10**18, "start": 0},
    "negative n": {"kind": "Discrete", "n": -1, "start": 0},
    "bits": {"kind": "MultiBinary", "n": HUGE},
    "bits in two dimensions": {"kind": "MultiBinary", "n": [10**5, 10**5]},
    "no bounds": {"kind": "Box"},
    "bounds that are texts": {"kind": "Box", "low": "a", "high": "b"},
    "a kind that imports": {"kind": "os:system"},
    "a kind with underscores": {"kind": "__class__"},
    "a graph": {"kind": "Graph"},
    "many": {"kind": "Tuple", "spaces": [{"kind": "Discrete", "n": 2, "start": 0}] * 20_000},
    "named like attributes": {"kind": "Dict", "spaces": {"__class__": {"kind": "Discrete", "n": 2, "start": 0}}},
    "none": None,
}
family("spaces.json", _space, SPACES, *_NAMED)
family("bounds", _bounds, {"NaN": (float("nan"), 1.0), "crossed": (2.0, 1.0)}, *_NAMED, "NonFinite")


def _member(header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _padded(header: Mapping[str, Any], data: bytes = b"") -> bytes:
    """In exactly the form in which members are written."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return _member(text + b" " * (-len(text) % 8), data)


def _tensor(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"log_std": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


TENSORS: dict[str, Callable[[], bytes]] = {
    "a hundred thousand tensors": lambda: _member(
        {f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(100_000)}
    ),
    "a header of a hundred megabytes": lambda: _member(b"{}" + b" " * (100 * 10**6 - 2)),
    "a header that claims a hundred megabytes": lambda: _member(b"{}", length=100 * 10**6),
    "a header that claims all": lambda: _member(b"{}", length=2**64 - 1),
    "a shape of 10^18": lambda: _member(_tensor([10**18], [0, 4]), b"\0" * 4),
    "a shape whose product is small": lambda: _member(_tensor([2**32, 2**32], [0, 0])),
    "a million dimensions": lambda: _member(_tensor([1] * 10**6, [0, 4]), b"\0" * 4),
    "no elements and endless sides": lambda: _padded(_tensor([0, 2**40, 2**40], [0, 0])),
    "a thousand dimensions": lambda: _padded(_tensor([1] * 1_000, [0, 4]), b"\0" * 4),
    "a negative shape": lambda: _member(_tensor([-1], [0, 4]), b"\0" * 4),
    "offsets beyond the end": lambda: _member(_tensor([1], [0, 2**40]), b"\0" * 4),
    "offsets that cross": lambda: _member(_tensor([1], [4, 0]), b"\0" * 4),
    "overlapping": lambda: _member(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}, b"\0" * 4
    ),
    "another type": lambda: _member(_tensor([1], [0, 8], "F64"), b"\0" * 8),
    "an unknown type": lambda: _member(_tensor([1], [0, 4], "os:system"), b"\0" * 4),
    "NaN": lambda: _member(_tensor([1], [0, 4]), b"\0\0\xc0\x7f"),
    "a deep header": lambda: _member(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "nothing": lambda: b"",
}
family(
    "policy.safetensors",
    lambda canary, make: rebuilt({"policy.safetensors": make()}),
    TENSORS,
    *(*_NAMED, "NonFinite"),
)
MARKS: dict[str, Any] = {
    "a tensor that is missing": {"log_std": {"$tensor": "../x"}},
    "a tensor whose name is a list": {"log_std": {"$tensor": ["a"]}},
    "an unknown mark": {"log_std": {"$import": "os"}},
    "two marks": {"log_std": {"$tensor": "log_std", "$array": "log_std"}},
    "a huge integer": {"log_std": {"$int": "9" * 10**6}},
    "a float that is a program": {"log_std": {"$float": "__import__('os')"}},
    "an object": {"log_std": {"$object": "os:system", "arguments": {"command": "true"}}},
}
family("policy.json", lambda canary, values: changed("policy.json", **values), MARKS, *_NAMED)
