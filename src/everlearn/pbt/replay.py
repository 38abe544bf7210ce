"""One agent trained along the hyper-parameters that led to a member of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everlearn.config import StretchConfig
from everlearn.core.errors import ConfigError
from everlearn.core.hyperparameter_names import argument_name
from everlearn.pbt.run import PopulationRun
from everlearn.population.lineage import Stretch, schedule
from everlearn.population.members import MemberId, PopulationMember
from everlearn.population.population import Population
from everlearn.report import Display
from everlearn.runs.run import Run
from everlearn.runs.running import train

_SIZES = ("total_timesteps", "n_steps", "n_envs", "hyperparameter_schedule", "population")
"""Settings that say what an update is, and how many there are."""


def replay(
    run: str | Path,
    out: str | Path | None = None,
    *,
    member: MemberId | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    display: Display | None = None,
) -> Run:
    """Train one agent from the beginning, with the hyper-parameters that the state of a member has seen one by one.

    It tells whether the schedule is what made the member good, or its luck: weights and random numbers are new. The
    schedule is part of the new run's configuration (``hyperparameter_schedule``), which repeats and resumes it.

    Args:
        run: The population's directory.
        out: The new run's; None takes the next free ``runs/ENVIRONMENT-ALGORITHM-n``.
        member: Whose schedule; None for the best member's.
        seed: Of the new training; None for the population's.
        settings: Dotted key to value, which replaces what the population's configuration says; nothing that is in the
            schedule.
        overwrite: Replace an earlier run in ``out``.
        display: Shows the progress.

    Returns:
        The new run.

    Raises:
        ConfigError: If there is no such population or member, or a setting contradicts the schedule.

    Source: Jaderberg et al. 2017, section 4.4.
    """
    population = PopulationRun(run)
    standing, config = population.population(), population.config
    chosen = _chosen(standing, member, population.path)
    stretches = schedule(standing.ledger.events, chosen.member_id, chosen.step)
    if not stretches:
        raise ConfigError(f"{population.path}: member {chosen.member_id} has not trained yet. Wait for it.")
    _refuse_contradictions(settings or {}, stretches)
    assert config.algorithm.n_steps is not None
    updates = sum(stretch.updates for stretch in stretches)
    followed = [StretchConfig(updates=each.updates, hyperparams=dict(each.hyperparams)) for each in stretches]
    single = config.model_copy(update={"population": None, "hyperparameter_schedule": followed})
    replaced = {
        "total_timesteps": updates * config.algorithm.n_steps * config.env.n_envs,
        "seed": config.seed if seed is None else seed,
        **(settings or {}),
    }
    return train(single, out, settings=replaced, overwrite=overwrite, display=display)


def _refuse_contradictions(settings: Mapping[str, Any], stretches: Sequence[Stretch]) -> None:
    scheduled = {argument_name(name) for name in stretches[0].hyperparams}
    for key in settings:
        name = argument_name(key.removeprefix("algorithm."))
        if name in scheduled:
            raise ConfigError(f"{key}: it is in the schedule that is replayed. Leave it out.")
        if key.rpartition(".")[2] in _SIZES:
            raise ConfigError(f"{key}: a replay has as many updates, of the same size, as the schedule. Leave it out.")


def _chosen(population: Population, member: MemberId | None, path: Path) -> PopulationMember:
    if member is None:
        best = population.best()
        if best is None:
            raise ConfigError(f"{path}: no member has a score yet. Name one: --member ID (member in Python).")
        return best
    known = [each.member_id for each in population.members]
    if member not in known:
        raise ConfigError(f"{path}: there is no member {member!r}, only {', '.join(map(str, known))}.")
    return population.ledger.member(member)
