"""What a configuration names and passes on, checked before anything is built from it, with its dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN

from everlearn.config import AlgorithmConfig
from everlearn.core.errors import ConfigError
from everlearn.core.registry import checked_arguments
from everlearn.gradients import VarianceGradientScaler
from everlearn.optim.registry import optimizers
from everlearn.values import heads, reductions

_EXTRACTORS: dict[str, type[BaseFeaturesExtractor]] = {
    "MlpPolicy": FlattenExtractor,
    "CnnPolicy": NatureCNN,
    "MultiInputPolicy": CombinedExtractor,
}
_OTHER_VGS_ARGUMENTS = ("parameters", "enabled", "beta", "alpha", "warmup_steps")  # the algorithm's own arguments


def checked_mappings(config: AlgorithmConfig, policy: str) -> dict[str, Any]:
    """The constructor arguments that are mappings of other constructors' arguments, converted by those.

    Args:
        config: The algorithm's section.
        policy: Name of the policy.

    Raises:
        ConfigError: For an unknown name or argument, or a value that does not fit, with its path.
    """
    heads.check(config.value_head, "algorithm.value_head")
    reductions.check(config.critic_reduction, "algorithm.critic_reduction")
    extractor = config.policy_kwargs.features_extractor_kwargs or {}
    where = "algorithm.policy_kwargs.features_extractor_kwargs"
    checked_arguments(_EXTRACTORS[policy], extractor, where, supplied=["observation_space"])
    checked: dict[str, Any] = {}
    if config.optimizer_class is not None:
        checked["optimizer_kwargs"] = _optimizer_arguments(config.optimizer_class, config.optimizer_kwargs or {})
    if config.vgs_kwargs is not None:
        where = "algorithm.vgs_kwargs"
        checked["vgs_kwargs"] = checked_arguments(
            VarianceGradientScaler, config.vgs_kwargs, where, supplied=_OTHER_VGS_ARGUMENTS
        )
    return checked


def check_device(device: str, where: str) -> None:
    """Refuse a GPU that torch does not see.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        where: The setting's name, for the message.

    Raises:
        ConfigError: If it is not there.
    """
    if not device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        raise ConfigError(f"{where}: '{device}' was asked for and torch sees no GPU. Use cpu or auto.")
    index, count = torch.device(device).index or 0, torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"{where}: '{device}' was asked for and torch sees {count} GPUs, counted from cuda:0.")


def _optimizer_arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked arguments; the ranges of their values are known to the optimizer only, which is tried on one weight."""
    where = "algorithm.optimizer_kwargs"
    arguments = optimizers.arguments(optimizers.canonical(name, "algorithm.optimizer_class"), given, where)
    try:
        optimizers[name]([torch.nn.Parameter(torch.zeros(1))], **arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {name} refuses them: {error}") from error
    return arguments
