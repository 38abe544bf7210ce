"""How a population's members stand, in words and numbers: what all that shows populations begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from everlearn.population.domains import is_number
from everlearn.population.lineage import Event
from everlearn.population.members import Hyperparams, MemberId, MetricMode, PopulationMember
from everlearn.population.population import Population
from everlearn.report.wording import number

State = Literal["done", "failed", "open"]


@dataclass(frozen=True)
class MemberRow:
    """One member.

    Attributes:
        member_id: Which.
        score: What it reported last; None where that is missing or not finite.
        change: By how much that is more than the one before; None without two of them.
        hyperparams: Value by name.
        parent: Whose state it took over last; None if nobody's.
        is_best: Whether it has the best score of those that have a state.
        step: Its training updates.
        env_steps: Environment steps that it has taken.
        speed: Environment steps per second while it was trained; None before the first.
        state: What has become of its segment in this generation.
        cause: The last line of why it has failed; None if it has not.
        has_state: Whether it has a state.
    """

    member_id: MemberId
    score: float | None
    change: float | None
    hyperparams: Hyperparams
    parent: MemberId | None
    is_best: bool
    step: int
    env_steps: int
    speed: float | None
    state: State
    cause: str | None
    has_state: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The member for a machine: strict JSON values only."""
        return {
            "member": self.member_id,
            "score": self.score,
            "change": self.change,
            "hyperparams": dict(self.hyperparams),
            "parent": self.parent,
            "best": self.is_best,
            "updates": self.step,
            "env_steps": self.env_steps,
            "env_steps_per_second": None if self.speed is None else round(self.speed, 3),
            "state": self.state,
            "cause": self.cause,
        }


def member_rows(population: Population) -> tuple[MemberRow, ...]:
    """All members, in their order."""
    rows = [member_row(population, member) for member in population.members]
    return with_best(rows, population.config.metric_mode)


def member_row(population: Population, member: PopulationMember) -> MemberRow:
    """One member; whether it is the best follows from the others."""
    place, result = population.places[member.member_id], population.results.get(member.member_id)
    error = None if result is None else result.error
    score = finite(member.performance)
    before = finite(member.history[-2].performance) if len(member.history) > 1 else None
    return MemberRow(
        member_id=member.member_id,
        score=score,
        change=None if score is None or before is None else score - before,
        hyperparams=dict(member.hyperparams),
        parent=member.parent,
        is_best=False,
        step=member.step,
        env_steps=place.env_steps,
        speed=place.env_steps / place.seconds if place.seconds > 0 else None,
        state="open" if result is None else "done" if error is None else "failed",
        cause=None if error is None else last_line(error),
        has_state=population.ledger.standings[member.member_id].has_state,
    )


def with_best(rows: Sequence[MemberRow], mode: MetricMode) -> tuple[MemberRow, ...]:
    """The same rows, of which one is the best: that of ``population.best()``."""
    best = next((row for row in ranked_rows(rows, mode) if row.has_state and row.score is not None), None)
    return tuple(replace(row, is_best=True) if row is best else row for row in rows)


def is_finished(population: Population) -> bool:
    """Whether the last generation has been trained, and not in vain: all having failed, they will try again."""
    return population.is_over and any(result.error is None for result in population.results.values())


def ranked_rows(rows: Sequence[MemberRow], mode: MetricMode) -> list[MemberRow]:
    """Best first, without a score last."""
    sign = -1.0 if mode == "max" else 1.0
    return sorted(rows, key=lambda row: (row.score is None, sign * (row.score or 0.0)))


def finite_scores(population: Population) -> list[float]:
    """What the members reported last, those that have failed left out."""
    return [each for member in population.members if (each := finite(member.performance)) is not None]


def median_score(population: Population) -> float | None:
    """The median of these; None without any."""
    scores = finite_scores(population)
    return median(scores) if scores else None


def hyperparams_before(population: Population, event: Event) -> Hyperparams:
    """With what a member had trained before something was decided about it.

    Args:
        population: In which that has been entered.
        event: What was decided; one of the population's, or equal to one.
    """
    own = reversed(population.ledger.events_of(event.member_id))
    return next((each.hyperparams for each in own if each.generation < event.generation), event.hyperparams)


def exploit_words(event: Event, before: Hyperparams) -> str:
    """``2 <- 7 (learning_rate 3e-4 -> 2.5e-4)``: who took over whom, and what changed for it.

    Args:
        event: With a source.
        before: With what the member had trained.
    """
    after = event.hyperparams
    changes = [f"{name} {value_words(before[name])} -> {value_words(after[name])}" for name in _changed(before, after)]
    words = f"{event.member_id} <- {event.source_id}"
    return f"{words} ({', '.join(changes)})" if changes else words


def value_words(value: Any) -> str:
    """A hyper-parameter in few characters: ``3e-4``, ``2.5e-4``, ``0.995``, ``0.9995``, ``64``."""
    if not is_number(value) or isinstance(value, int):
        return str(value)
    if 0 < abs(value) < 0.01 or abs(value) >= 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{_without_zeros(mantissa)}e{int(exponent)}"
    decimals = 1 - math.floor(math.log10(1 - value)) if 0.9 < value < 1 else 2 - math.floor(math.log10(abs(value) or 1))
    return _without_zeros(f"{value:.{max(decimals, 0)}f}")


def score_words(score: float | None) -> str:
    """A score; a dash where there is none."""
    return "-" if score is None else number(score)


def change_words(change: float | None) -> str:
    """A difference with its sign; nothing where there is none."""
    return "" if change is None else f"{'+' if change >= 0 else ''}{number(change)}"


def last_line(text: str) -> str:
    """The last line of an error in full: what happened, without where."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def finite(value: float | None) -> float | None:
    """The value; None where it is missing or not finite."""
    return value if value is not None and math.isfinite(value) else None


def _changed(before: Hyperparams, after: Hyperparams) -> list[str]:
    return [name for name in after if after[name] != before.get(name)]


def _without_zeros(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
