"""Arguments as plain data: classes and objects by the names of in-process registries, never by an import path.

A file names what this process has registered; what has no name is *opaque*: the file says what it was, and whoever
loads the file brings it along (``custom_objects``).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common import torch_layers
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from everlearn.core.errors import ConfigError
from everlearn.core.registry import Registry
from everlearn.optim.registry import optimizers
from everlearn.ppo.divergence import divergence_controls
from everlearn.ppo.kl import kl_controls
from everlearn.ppo.policy import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from everlearn.ppo.schedules import schedules
from everlearn.values import heads, reductions

policies: Registry[SB3ActorCriticPolicy] = Registry("policy")
policies.add("MlpPolicy", ActorCriticPolicy)
policies.add("CnnPolicy", ActorCriticCnnPolicy)
policies.add("MultiInputPolicy", MultiInputActorCriticPolicy)
policies.add("SB3MlpPolicy", sb3_policies.ActorCriticPolicy)
policies.add("SB3CnnPolicy", sb3_policies.ActorCriticCnnPolicy)
policies.add("SB3MultiInputPolicy", sb3_policies.MultiInputActorCriticPolicy)

extractors: Registry[BaseFeaturesExtractor] = Registry("features extractor")
extractors.add("flatten", torch_layers.FlattenExtractor)
extractors.add("nature_cnn", torch_layers.NatureCNN)
extractors.add("combined", torch_layers.CombinedExtractor)

activations: Registry[nn.Module] = Registry("activation function")
for _name, _activation in {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
    "relu6": nn.ReLU6,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "hardtanh": nn.Hardtanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "logsigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
}.items():
    activations.add(_name, _activation)

rollout_buffers: Registry[RolloutBuffer] = Registry("rollout buffer")
rollout_buffers.add("rollout_buffer", RolloutBuffer)
rollout_buffers.add("dict_rollout_buffer", DictRolloutBuffer)

torch_optimizers: Registry[torch.optim.Optimizer] = Registry("optimizer of torch")
torch_optimizers.add("rmsprop_tf_like", RMSpropTFLike)
for _name in ("Adadelta", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"):
    torch_optimizers.add(_name, getattr(torch.optim, _name))

REGISTRIES: dict[str, Registry[Any]] = {
    registry.kind: registry
    for registry in (
        policies,
        extractors,
        activations,
        rollout_buffers,
        optimizers,
        torch_optimizers,
        heads,
        reductions,
        kl_controls,
        divergence_controls,
        schedules,
    )
}
"""By kind: where a name in a file is looked up."""

CLASS, OBJECT, OPAQUE, TUPLE, FLOAT, ITEMS = "$class", "$object", "$opaque", "$tuple", "$float", "$items"


def described(value: Any) -> Any:
    """An argument as plain data: itself where it is plain, else by the name of its class, else as opaque."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if type(value) is float and not math.isfinite(value):
        return {FLOAT: str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        items = [described(item) for item in value]
        return items if isinstance(value, list) else {TUPLE: items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: described(item) for key, item in value.items()}
        return {ITEMS: [[described(key), described(item)] for key, item in value.items()]}
    if isinstance(value, type):
        name = _name_of(value)
        return opaque(value) if name is None else {CLASS: name}
    return _described_object(value)


def _described_object(value: Any) -> Any:
    """By its class and its constructor's arguments, which it has as attributes; or as opaque."""
    name = _name_of(type(value))
    if name is None:
        return opaque(value)
    parameters = inspect.signature(type(value)).parameters.values()
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return opaque(value)
    from everlearn.core.signatures import signature_model  # which loads pydantic

    fields = signature_model(type(value)).model_fields
    if not all(hasattr(value, field) for field in fields):
        return opaque(value)
    return {OBJECT: name, "arguments": {field: described(getattr(value, field)) for field in fields}}


def opaque(value: Any) -> dict[str, str]:
    """What stands for a value that has no name."""
    return {OPAQUE: getattr(value, "__name__", type(value).__name__)}


def _name_of(entry: type) -> str | None:
    for kind, registry in REGISTRIES.items():
        name = registry.name_of(entry)
        if name is not None:
            return f"{kind}:{name}"
    return None


def resolved(data: Any, path: str) -> Any:
    """The argument that plain data stand for.

    Args:
        data: As ``described`` has made it, with nothing opaque.
        path: Its place in the file, for messages.

    Raises:
        ConfigError: If a name is not registered, or arguments do not fit.
    """
    if isinstance(data, list):
        return [resolved(item, f"{path}.{index}") for index, item in enumerate(data)]
    if not isinstance(data, Mapping):
        return data
    if TUPLE in data:
        return tuple(resolved(data[TUPLE], path))
    if ITEMS in data:
        return _mapping(data[ITEMS], path)
    if FLOAT in data:
        return _not_finite(data[FLOAT], path)
    if CLASS in data:
        registry, name = _entry(data[CLASS], path)
        return registry[name]
    if OBJECT in data:
        registry, name = _entry(data[OBJECT], path)
        arguments = resolved(data.get("arguments"), f"{path}.arguments")
        if not isinstance(arguments, Mapping):
            raise ConfigError(f"{path}: the arguments of '{name}' are missing.")
        return registry[name](**registry.arguments(name, arguments, path))
    return {key: resolved(item, f"{path}.{key}") for key, item in data.items()}


def _mapping(pairs: Any, path: str) -> dict[Any, Any]:
    """The mapping of some pairs, whose keys are not plain texts."""
    pairs = resolved(pairs, path)
    if not (isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)):
        raise ConfigError(f"{path}: {pairs!r} are no pairs of a key and a value.")
    if not all(isinstance(key, str | int | float | bool | tuple | None) for key, _ in pairs):
        raise ConfigError(f"{path}: the keys of {pairs!r} are no keys.")
    return dict(pairs)


def _not_finite(text: Any, path: str) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ConfigError(f"{path}: {text!r} is no number.")
    return float(text)


def _entry(name: Any, path: str) -> tuple[Registry[Any], str]:
    kind, _, entry = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in REGISTRIES:
        raise ConfigError(f"{path}: {name!r} names nothing. There are names of: {', '.join(REGISTRIES)}.")
    try:
        return REGISTRIES[kind], REGISTRIES[kind].canonical(entry, path)
    except ConfigError as error:
        raise ConfigError(f"{error} If it is a class of yours, import the module that registers it.") from None


def opaque_places(data: Any, path: str) -> Iterator[tuple[str, str]]:
    """Path and name of everything in some data that is opaque."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from opaque_places(item, f"{path}.{index}")
    elif isinstance(data, Mapping):
        if OPAQUE in data:
            yield path, str(data[OPAQUE])
        else:
            for key, item in data.items():
                yield from opaque_places(item, f"{path}.{key}")
