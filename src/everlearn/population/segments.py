"""What a member is told to train, and what comes of it: plain data, for other processes and for the journal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from everlearn.core.errors import StateError
from everlearn.population.members import Hyperparams, MemberId

_LEADING_ELSEWHERE = frozenset("/\\:\0")
"""Characters that no name of a file has that belongs into a directory."""


@dataclass(frozen=True)
class Checkpoint:
    """A file with a member's whole state.

    Args:
        name: Of the file, in the directory of the population's members.
        sha256: Of all its bytes, in hexadecimal.
        policy_digest: The fingerprint of the policy in it.
        parts: Names of the learned parts in it.

    Raises:
        StateError: If the name leads out of that directory (row 38 of the failure modes).
    """

    name: str
    sha256: str
    policy_digest: str
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or _LEADING_ELSEWHERE.intersection(self.name):
            raise StateError(f"{self.name!r} is no name of a member's file. Restore the journal from a copy.")


@dataclass(frozen=True)
class Copy:
    """What a member takes over before it trains.

    Args:
        source_id: Whose state.
        checkpoint: Where that is.
        copied: All that was learned, or the weights with what gives them their meaning.
        optimizer: Whether the optimizer's state comes along.
        seed: Of the generators with which the copy goes on: no two members draw the same numbers.
    """

    source_id: MemberId
    checkpoint: Checkpoint
    copied: Literal["everything", "weights"]
    optimizer: Literal["copy", "reset"]
    seed: int


@dataclass(frozen=True)
class Task:
    """A segment: what one member trains from one decision to the next.

    Args:
        member_id: Which member.
        generation: How many decisions it has been through.
        step: Training updates (a rollout and its epochs) that it has behind it.
        updates: Training updates to do.
        seed: Of a member that begins.
        hyperparams: Value by name.
        checkpoint: Its state; None for one that begins; that of its copy for one that goes on where the other stood,
            with the other's counters, in new episodes.
        copy: What it takes over before; None if it goes on with its own.
    """

    member_id: MemberId
    generation: int
    step: int
    updates: int
    seed: int
    hyperparams: Hyperparams
    checkpoint: Checkpoint | None = None
    copy: Copy | None = None

    def failed(self, error: str) -> Result:
        """What comes of the segment where it could not be trained."""
        return Result(self.member_id, self.generation, self.step, error=error)


@dataclass(frozen=True)
class Result:
    """What came of a segment.

    Args:
        member_id: Whose.
        generation: As in the task.
        step: The member's training updates after it.
        performance: Its score; None where there is none.
        samples: Scores of the episodes behind it, oldest first, for rules that compare by them.
        env_steps: Environment steps that it took.
        seconds: Time that it took.
        checkpoint: The member's state after it; None if it failed.
        records: What was logged, one mapping of names to numbers for each record, with ``step``.
        error: Why it failed; None if it did not.
        interruptions: What happened meanwhile and was lived with.
    """

    member_id: MemberId
    generation: int
    step: int
    performance: float | None = None
    samples: tuple[float, ...] = ()
    env_steps: int = 0
    seconds: float = 0.0
    checkpoint: Checkpoint | None = None
    records: tuple[Mapping[str, float], ...] = ()
    error: str | None = None
    interruptions: tuple[str, ...] = field(default=())

    def interrupted(self, what: str) -> Result:
        """The same, and something happened before."""
        return replace(self, interruptions=(what, *self.interruptions))


def plain_task(task: Task) -> dict[str, Any]:
    """The task as JSON has it."""
    return {**asdict(replace(task, hyperparams={})), "hyperparams": dict(task.hyperparams)}


def task_from(plain: Mapping[str, Any]) -> Task:
    """The task of ``plain_task``."""
    return Task(
        **{
            **plain,
            "hyperparams": {name: _without_lists(value) for name, value in plain["hyperparams"].items()},
            "checkpoint": checkpoint_from(plain["checkpoint"]),
            "copy": copy_from(plain["copy"]),
        }
    )


def plain_result(result: Result) -> dict[str, Any]:
    """The result as strict JSON has it, which knows no NaN: such a performance is a text."""
    return {
        **asdict(replace(result, records=(), samples=())),
        "performance": plain_number(result.performance),
        "samples": [plain_number(each) for each in result.samples],
        "records": [{name: plain_number(value) for name, value in record.items()} for record in result.records],
    }


def result_from(plain: Mapping[str, Any]) -> Result:
    """The result of ``plain_result``."""
    return Result(
        **{
            **plain,
            "performance": number_from(plain["performance"]),
            "checkpoint": checkpoint_from(plain["checkpoint"]),
            "samples": tuple(map(number_from, plain["samples"])),
            "records": tuple({name: number_from(value) for name, value in each.items()} for each in plain["records"]),
            "interruptions": tuple(plain["interruptions"]),
        }
    )


def checkpoint_from(plain: Mapping[str, Any] | None) -> Checkpoint | None:
    """The checkpoint that ``dataclasses.asdict`` made plain."""
    return None if plain is None else Checkpoint(**{**plain, "parts": tuple(plain["parts"])})


def copy_from(plain: Mapping[str, Any] | None) -> Copy | None:
    """The copy that ``dataclasses.asdict`` made plain."""
    return None if plain is None else Copy(**{**plain, "checkpoint": checkpoint_from(plain["checkpoint"])})


def plain_number(value: float | None) -> float | str | None:
    """The number as strict JSON has it, which knows neither NaN nor infinity: these are texts."""
    return value if value is None or math.isfinite(value) else str(float(value))


def number_from(plain: float | str | None) -> Any:
    """The number of ``plain_number``."""
    return float(plain) if isinstance(plain, str) else plain


def _without_lists(value: Any) -> Any:
    """Lists are tuples, as everywhere among the values of hyper-parameters; JSON has lost which they were."""
    if isinstance(value, list | tuple):
        return tuple(map(_without_lists, value))
    return {key: _without_lists(each) for key, each in value.items()} if isinstance(value, Mapping) else value
