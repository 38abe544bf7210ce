"""Arguments as plain data: classes and objects by the names of in-process registries, never by an import path.

A file names what this process has registered; what has no name is *opaque*: the file says what it was, and whoever
loads the file brings it along (``custom_objects``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common import torch_layers
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from everlearn.core.errors import ConfigError
from everlearn.core.registry import Registry, signature_model
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

CLASS, OBJECT, OPAQUE = "$class", "$object", "$opaque"


def described(value: Any) -> Any:
    """An argument as plain data: itself where it is plain, else by the name of its class, else as opaque."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return type(value)([described(item) for item in value]) if type(value) in (list, tuple) else opaque(value)
    if isinstance(value, Mapping):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, type):
        name = _name_of(value)
        return opaque(value) if name is None else {CLASS: name}
    return _described_object(value)


def _described_object(value: Any) -> Any:
    """By its class and its constructor's arguments, which it has as attributes; or as opaque."""
    name = _name_of(type(value))
    if name is None:
        return opaque(value)
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
    if isinstance(data, list | tuple):
        return type(data)(resolved(item, f"{path}.{index}") for index, item in enumerate(data))
    if not isinstance(data, Mapping):
        return data
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


def _entry(name: Any, path: str) -> tuple[Registry[Any], str]:
    kind, _, entry = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in REGISTRIES:
        raise ConfigError(f"{path}: {name!r} names nothing. There are names of: {', '.join(REGISTRIES)}.")
    return REGISTRIES[kind], REGISTRIES[kind].canonical(entry, path)


def opaque_places(data: Any, path: str) -> Iterator[tuple[str, str]]:
    """Path and name of everything in some data that is opaque."""
    if isinstance(data, list | tuple):
        for index, item in enumerate(data):
            yield from opaque_places(item, f"{path}.{index}")
    elif isinstance(data, Mapping):
        if OPAQUE in data:
            yield path, str(data[OPAQUE])
        else:
            for key, item in data.items():
                yield from opaque_places(item, f"{path}.{key}")
