"""What happens to each member of a generation: a pure function of records, configuration and generator."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

from everlearn.population.lazy_tuple import LazyTuple
from everlearn.population.members import Hyperparams, MemberId, Record
from everlearn.population.records import Records

if TYPE_CHECKING:
    from everlearn.population.config import PBTConfig

_TRIES = 100
_SEEDS = 2**63


@dataclass(frozen=True)
class Decision:
    """What one member does next; applying it is somebody else's.

    Args:
        member_id: Which member.
        sources: Whom it copies: the first whose state can be read. Nobody: it goes on by itself. Equal to a tuple;
            who comes after the first is found when it is asked for.
        seed: Of the generator by which its hyper-parameters are explored.
    """

    member_id: MemberId
    sources: Sequence[MemberId]
    seed: int


def decide(
    population: Sequence[Record],
    config: PBTConfig,
    generator: Generator,
    targets: Collection[MemberId] | None = None,
) -> tuple[Decision, ...]:
    """What the members of a generation do next, in the order of the population.

    The same records, configuration and state of the generator give the same decisions. The generator is advanced by the
    rule for each member in turn, so that it is all that a resumed population has to remember.

    Args:
        population: The members that count in this generation.
        config: The rules.
        generator: Of the population.
        targets: The members to decide about; None for all.
    """
    decisions, records = [], Records.of(population)
    for record in records:
        if targets is None or record.member_id in targets:
            sources = config.exploit.sources(record, records, generator)
            seed = int(generator.integers(_SEEDS))
            decisions.append(Decision(record.member_id, _ids(sources), seed))
    return tuple(decisions)


def hyperparams_after(
    decision: Decision, source_id: MemberId | None, population: Sequence[Record], config: PBTConfig
) -> dict[str, Any]:
    """The hyper-parameters with which a member goes on.

    After an exploit they are the source's, explored. Without one they stay, or with ``mutate_all`` are the member's
    own, explored; those of the best member of all stay even then.

    Args:
        decision: About whom.
        source_id: Whose state it has taken over; None if nobody's.
        population: The records of the decision, with the hyper-parameters of those who have theirs already.
        config: The rules.

    Raises:
        StateError: If one of the two is not among the records.
    """
    records = Records.of(population)
    start = records[records.positions[decision.member_id if source_id is None else source_id]]
    if source_id is None and (not config.mutate_all or _is_best(start, records)):
        return dict(start.hyperparams)
    return explored(start.hyperparams, records, config, np.random.default_rng(decision.seed))


def explored(
    hyperparams: Hyperparams, population: Sequence[Record], config: PBTConfig, generator: Generator
) -> dict[str, Any]:
    """Some hyper-parameters, changed so that they fit together; as they are if nothing that is tried does."""
    for _ in range(_TRIES):
        changed = config.explore.explored(hyperparams, config.space, population, generator)
        if config.space.fits(changed):
            return changed
    return dict(hyperparams)


def _is_best(record: Record, records: Records) -> bool:
    return record.score is not None and records.ranks[record.member_id] == 0


def _ids(sources: Sequence[Record]) -> Sequence[MemberId]:
    """Of lazy ones just as lazy; those of other rules are found at once."""
    ids = (each.member_id for each in sources)
    return LazyTuple(ids) if isinstance(sources, LazyTuple) else tuple(ids)
