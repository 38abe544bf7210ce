"""The members of a population: the handles that a user holds, and the frozen records by which strategies decide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import quote

from everlearn.core.errors import ArgumentError, ConfigError

MemberId = int | str
MetricMode = Literal["max", "min"]
Hyperparams = Mapping[str, Any]
LONGEST_ID = 100
"""Characters of a member's id as it stands in the names of files."""


@dataclass(frozen=True)
class Report:
    """What a member has said of itself once.

    Args:
        step: Its training updates so far.
        performance: Its score; None where there was none.
        generation: How many decisions it had been through.
    """

    step: int
    performance: float | None
    generation: int


@dataclass
class PopulationMember:
    """One member as the user holds it; its values are those of now.

    Args:
        member_id: A number or a text, no other member's.
        hyperparams: Value by name.
        performance: The score it reported last.
        step: Its training updates then.
        checkpoint_path: The file that holds its state, or, after an exploit, the one that its state came from.
        parent: Whose state it took over last.
        generation: How many decisions it has been through.
        history: All that it has reported.
    """

    member_id: MemberId
    hyperparams: dict[str, Any]
    performance: float | None = None
    step: int = 0
    checkpoint_path: Path | str | None = None
    parent: MemberId | None = None
    generation: int = 0
    history: list[Report] = field(default_factory=list)


@dataclass(frozen=True)
class Observation:
    """What some hyper-parameters brought: one point for models of the space.

    Args:
        time: The generation in which they were in force.
        hyperparams: Value by name.
        gain: By how much the score rose per training update, higher is better.
    """

    time: int
    hyperparams: Hyperparams
    gain: float


@dataclass(frozen=True)
class Record:
    """A member at the moment of a decision; nothing in it changes.

    Args:
        member_id: Which.
        hyperparams: Value by name; the record keeps a copy that cannot be written to.
        score: Higher is better; None if it is missing or not finite.
        step: Its training updates.
        generation: How many decisions it has been through.
        has_state: Whether there is a state of it that another could take over.
        samples: Its scores since its last decision, oldest first.
        observations: What its hyper-parameters have brought, for explore rules that learn from it.
    """

    member_id: MemberId
    hyperparams: Hyperparams
    score: float | None = None
    step: int = 0
    generation: int = 0
    has_state: bool = True
    samples: tuple[float, ...] = ()
    observations: tuple[Observation, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hyperparams", MappingProxyType(dict(self.hyperparams)))

    @property
    def can_be_source(self) -> bool:
        """Whether others may take it over: it has a state, and a score that is finite."""
        return self.has_state and self.score is not None

    def can_be_source_of(self, target: Record) -> bool:
        """Whether another may: its score is higher too, than any if the other has none."""
        if not self.has_state or self.score is None:
            return False
        return target.score is None or self.score > target.score


def score_of(performance: float | None, metric_mode: MetricMode) -> float | None:
    """The performance with its sign turned where lower is better; None if it is missing or not finite."""
    if performance is None or not math.isfinite(performance):
        return None
    return performance if metric_mode == "max" else -performance


def file_part(member_id: MemberId) -> str:
    """A member's id as part of a file's name: whatever leads elsewhere is quoted (row 38 of the failure-mode table).

    Raises:
        ArgumentError: If it is no id.
    """
    if isinstance(member_id, bool) or not isinstance(member_id, int | str) or member_id == "":
        raise ArgumentError(f"member_id={member_id!r} is none. Give a whole number or a text.")
    try:
        quoted = quote(str(member_id), safe="")
    except UnicodeEncodeError:
        raise ArgumentError(f"member_id={member_id!r} is no proper text. Give another one.") from None
    if len(quoted) > LONGEST_ID:
        raise ArgumentError(
            f"member_id={str(member_id)[:40]!r}... is too long for the name of a file: {len(quoted)} characters, "
            f"{LONGEST_ID} are possible. Give a shorter one."
        )
    return quoted


def require_distinct(member_ids: Iterable[MemberId]) -> None:
    """Refuse ids whose files could have the same name, upper and lower case being one (row 23).

    Raises:
        ConfigError: Naming the id.
        ArgumentError: If one is no id.
    """
    seen: set[str] = set()
    for member_id in member_ids:
        name = file_part(member_id).casefold()
        if name in seen:
            raise ConfigError(f"Two members have the id {member_id!r}. Give each its own, of which case is no part.")
        seen.add(name)


def ranked(population: Sequence[Record]) -> list[Record]:
    """Best first; without a score last; equals in the order in which they came."""
    return sorted(population, key=lambda record: (record.score is None, -(record.score or 0.0)))
