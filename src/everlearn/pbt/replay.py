"""One agent trained along the hyper-parameters that led to a member of a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.callbacks import BaseCallback

from everlearn.core.errors import ConfigError
from everlearn.pbt.run import PopulationRun
from everlearn.population.lineage import Stretch, schedule
from everlearn.population.members import MemberId, PopulationMember
from everlearn.population.population import Population
from everlearn.ppo.algorithm import PPO
from everlearn.report import Display
from everlearn.runs.run import Run
from everlearn.runs.running import train


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

    It tells whether the schedule is what made the member good, or its luck: weights and random numbers are new.

    Args:
        run: The population's directory.
        out: The new run's; None takes the next free ``runs/ENVIRONMENT-ALGORITHM-n``.
        member: Whose schedule; None for the best member's.
        seed: Of the new training; None for the population's.
        settings: Dotted key to value, which replaces what the population's configuration says.
        overwrite: Replace an earlier run in ``out``.
        display: Shows the progress.

    Returns:
        The new run.

    Raises:
        ConfigError: If there is no such population or member.

    Source: Jaderberg et al. 2017, section 4.4.
    """
    population = PopulationRun(run)
    standing = population.population()
    chosen = _chosen(standing, member, population.path)
    stretches = schedule(standing.ledger.events, chosen.member_id, chosen.step)
    if not stretches:
        raise ConfigError(
            f"{population.path}: member {chosen.member_id} has not trained yet. Wait for its first segment."
        )
    config = population.config
    assert config.algorithm.n_steps is not None
    updates = sum(stretch.updates for stretch in stretches)
    single = config.model_copy(update={"population": None})
    replaced = {
        "total_timesteps": updates * config.algorithm.n_steps * config.env.n_envs,
        "seed": config.seed if seed is None else seed,
        **(settings or {}),
    }
    follower = ScheduleFollower(stretches)
    return train(single, out, settings=replaced, overwrite=overwrite, callback=follower, display=display)


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


@final
class ScheduleFollower(BaseCallback):
    """Puts the hyper-parameters of each stretch in force when it begins.

    Args:
        stretches: In their order.
    """

    affects_training = True

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        super().__init__()
        self._stretches = stretches
        ends = [*accumulate(stretch.updates for stretch in stretches)]
        self._begins = dict(zip([0, *ends[:-1]], stretches, strict=True))
        self._updates = 0

    def _on_rollout_start(self) -> None:
        stretch = self._begins.get(self._updates)
        self._updates += 1
        if stretch is not None:
            assert isinstance(self.model, PPO)
            for name, value in stretch.hyperparams.items():
                self.model.set_hyperparameter(name, value)

    def _on_step(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        """How many updates are done."""
        return {"updates": self._updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._updates = state_dict["updates"]
