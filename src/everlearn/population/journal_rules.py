"""The rules of a population as its journal keeps them: it goes on by those by which it has begun, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from everlearn.checkpoint import strict_json
from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.config import PBTConfig
from everlearn.population.space import SearchSpace

_ELSEWHERE = ("checkpoint_dir", "hyperparams", "hyperparam_mutations", "constraint")
"""What decides nothing, or is said by the space."""


def rules_of(config: PBTConfig, settings: Mapping[str, Any]) -> dict[str, str]:
    """What a population follows from, as texts; of an object its class.

    Args:
        config: By which it is decided.
        settings: By which its members train.
    """
    rules = {each.name: _said(getattr(config, each.name)) for each in fields(config) if each.name not in _ELSEWHERE}
    for each in config.space:
        rules[f"hyperparams.{each.name}"] = ", ".join(_said(getattr(each, part.name)) for part in fields(each)[1:])
    return rules | {name: _said(value) for name, value in settings.items()}


def require_same_rules(
    config: PBTConfig, settings: Mapping[str, Any], total_updates: int, about: Mapping[str, Any]
) -> None:
    """Refuse to go on with a population by other rules.

    Args:
        config: The rules now.
        settings: By which members train now.
        total_updates: Training updates of a member, now.
        about: What the population has begun with.

    Raises:
        ConfigError: Naming what is different.
    """
    then = {"total_updates": str(about["total_updates"]), **about["rules"]}
    now = {"total_updates": str(total_updates), **rules_of(config, settings)}
    for name in [*then, *now]:
        if then.get(name) != now.get(name):
            raise ConfigError(
                f"The population has begun with {name}: {then.get(name)}, and the configuration says {now.get(name)}. "
                "Resume it with its own, or begin another one."
            )


def require_plain(space: SearchSpace) -> None:
    """Refuse values that a journal cannot keep.

    Raises:
        ConfigError: Naming the hyper-parameter.
    """
    for each in space:
        for value in (*(each.values or ()), each.default):
            try:
                strict_json.dumps(value)
            except (ArgumentError, TypeError) as error:
                raise ConfigError(
                    f"{each.name}: the value {value!r} cannot be kept in a journal. Give finite numbers, texts, True, "
                    "False, None, and lists of these."
                ) from error


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_said(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_said, value))}]"
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else type(value).__name__
