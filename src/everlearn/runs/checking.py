"""What a configuration names and passes on, checked before anything is built from it, with its dotted path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN

from everlearn.config import AlgorithmConfig, RunConfig, RuntimeConfig
from everlearn.core.errors import ConfigError
from everlearn.core.registry import Registry
from everlearn.core.signatures import checked_arguments, validated
from everlearn.environments.build import check_id
from everlearn.environments.wrappers import wrappers
from everlearn.gradients import VarianceGradientScaler
from everlearn.optim.registry import optimizers
from everlearn.ppo.divergence import divergence_controls
from everlearn.ppo.kl import kl_controls
from everlearn.ppo.schedules import schedules
from everlearn.ppo.vocabulary import activations
from everlearn.runs.names import algorithms
from everlearn.values import heads, reductions

Check = Callable[[], object]

_EXTRACTORS: dict[str, type[BaseFeaturesExtractor]] = {
    "MlpPolicy": FlattenExtractor,
    "CnnPolicy": NatureCNN,
    "MultiInputPolicy": CombinedExtractor,
}
_OTHER_VGS_ARGUMENTS = ("parameters", "enabled", "beta", "alpha", "warmup_steps")  # the algorithm's own arguments


def check_names(config: RunConfig) -> None:
    """Refuse names that nothing is registered under, and arguments that what they name does not have.

    The environment is not built. All complaints come in one error.

    Raises:
        ConfigError: One line per complaint, each beginning with its dotted path.
    """
    complaints = []
    for check in _checks(config):
        try:
            check()
        except ConfigError as error:
            complaints.append(str(error))
    if complaints:
        raise ConfigError("\n".join(dict.fromkeys(complaints)))


def _checks(config: RunConfig) -> Iterator[Check]:
    """Each refuses with ``ConfigError``, whatever the others say."""
    yield partial(check_id, config.env.id)
    for index, spec in enumerate(config.env.wrappers):
        yield partial(wrappers.check, spec, f"env.wrappers.{index}")
    given = config.algorithm
    yield partial(algorithms.canonical, given.name, "algorithm.name")
    if given.policy_kwargs.activation_fn is not None:
        where = "algorithm.policy_kwargs.activation_fn"
        yield partial(activations.canonical, given.policy_kwargs.activation_fn, where)
    yield from _part_checks(given)
    yield from _mapping_checks(given)


def _part_checks(given: AlgorithmConfig) -> Iterator[Check]:
    for name in ("learning_rate", "clip_range", "clip_range_vf"):
        spec = getattr(given, name)
        if isinstance(spec, Mapping):
            yield partial(_try, schedules, spec, f"algorithm.{name}")
    yield partial(heads.check, given.value_head, "algorithm.value_head")
    yield partial(reductions.check, given.critic_reduction, "algorithm.critic_reduction")
    parts: dict[str, Registry[Any]] = {"kl_penalty": kl_controls, "divergence": divergence_controls}
    for name, registry in parts.items():
        spec = getattr(given, name)
        if isinstance(spec, str | Mapping):
            yield partial(_try, registry, spec, f"algorithm.{name}")


def _mapping_checks(given: AlgorithmConfig) -> Iterator[Check]:
    if given.policy is not None:
        yield partial(_check_extractor, given, given.policy)
    yield partial(_check_optimizer, given)
    if given.vgs_kwargs is not None:
        yield partial(_scaler_arguments, given.vgs_kwargs)


def _check_extractor(given: AlgorithmConfig, policy: str) -> None:
    arguments = given.policy_kwargs.features_extractor_kwargs or {}
    where = "algorithm.policy_kwargs.features_extractor_kwargs"
    checked_arguments(_EXTRACTORS[policy], arguments, where, supplied=["observation_space"])


def _check_optimizer(given: AlgorithmConfig) -> None:
    name = given.optimizer_class
    if name is None:
        algorithm = algorithms[algorithms.canonical(given.name, "algorithm.name")]
        name = algorithm.defaults.optimizer_class
    if name is not None:
        _optimizer_arguments(name, given.optimizer_kwargs or {})


def _try(registry: Registry[Any], spec: str | Mapping[str, Any], where: str) -> None:
    """Check a specification by its signature, then build it: ranges are known to the constructor only."""
    registry.check(spec, where)
    try:
        registry.build(spec)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def checked_mappings(config: AlgorithmConfig, policy: str | None) -> dict[str, Any]:
    """The constructor arguments that are mappings of other constructors' arguments, converted by those.

    Args:
        config: The algorithm's section.
        policy: Name of the policy; None if that is not known yet, and then its extractor's arguments are not checked.

    Raises:
        ConfigError: For an unknown name or argument, or a value that does not fit, with its path.
    """
    if policy is not None:
        _check_extractor(config, policy)
    checked: dict[str, Any] = {}
    if config.optimizer_class is not None:
        checked["optimizer_kwargs"] = _optimizer_arguments(config.optimizer_class, config.optimizer_kwargs or {})
    if config.vgs_kwargs is not None:
        checked["vgs_kwargs"] = _scaler_arguments(config.vgs_kwargs)
    return checked


def check_device(device: str, where: str) -> None:
    """Refuse a GPU that torch does not see.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        where: The setting's name, for the message.

    Raises:
        ConfigError: If it is not there, or no device has such a name.
    """
    validated(RuntimeConfig, {"device": device}, "")
    if not device.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        raise ConfigError(f"{where}: '{device}' was asked for and torch sees no GPU. Use cpu or auto.")
    index, count = torch.device(device).index or 0, torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"{where}: '{device}' was asked for and torch sees {count} GPUs, counted from cuda:0.")


def _scaler_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    where = "algorithm.vgs_kwargs"
    return checked_arguments(VarianceGradientScaler, given, where, supplied=_OTHER_VGS_ARGUMENTS)


def _optimizer_arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked arguments; the ranges of their values are known to the optimizer only, which is tried on one weight."""
    where = "algorithm.optimizer_kwargs"
    arguments = optimizers.arguments(optimizers.canonical(name, "algorithm.optimizer_class"), given, where)
    try:
        optimizers[name]([torch.nn.Parameter(torch.zeros(1))], **arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {name} refuses them: {error}") from error
    return arguments
