"""The first members of a population: drawn, or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.random import Generator

from everlearn.core.errors import ConfigError
from everlearn.population.config import PBTConfig
from everlearn.population.members import PopulationMember, require_distinct


def drawn_members(config: PBTConfig, generator: Generator) -> list[PopulationMember]:
    """Members numbered from 0, each with hyper-parameters drawn from the whole space."""
    return [PopulationMember(number, config.space.sample(generator)) for number in range(config.population_size)]


def given_members(config: PBTConfig, initial: Sequence[PopulationMember | Mapping[str, Any]]) -> list[PopulationMember]:
    """The given members, or members numbered from 0 with the given hyper-parameters.

    Raises:
        ConfigError: If they are not as many as the configuration says, two have the same id, or a hyper-parameter is
            missing, unknown or outside of its range.
    """
    if len(initial) != config.population_size:
        raise ConfigError(
            f"initial has {len(initial)} members, population_size={config.population_size}. Give as many."
        )
    members = [
        each if isinstance(each, PopulationMember) else PopulationMember(number, dict(each))
        for number, each in enumerate(initial)
    ]
    require_distinct(member.member_id for member in members)
    checked = [config.space.checked(each.hyperparams, f"member {each.member_id!r}") for each in members]
    for member, hyperparams in zip(members, checked, strict=True):
        member.hyperparams = hyperparams
    return members
