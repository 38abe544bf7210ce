"""Who came from whom, and by which hyper-parameters: read off the list of what has been decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from everlearn.core.errors import ArgumentError
from everlearn.population.members import Hyperparams, MemberId, MetricMode, Observation, score_of


@dataclass(frozen=True)
class Event:
    """What was decided about a member, or its beginning, which has generation 0.

    Args:
        member_id: The member.
        generation: How many decisions it had been through with this one.
        step: Its training updates then.
        performance: What it had reported; None where there was nothing.
        hyperparams: With what it went on.
        source_id: Whose state it took over; None if nobody's.
        source_step: The source's training updates when that state was saved.
        source_performance: What the source had reported.
        checkpoint_format: Of the file that the state came from; None if from none.
        passed_over: Better sources whose state could not be read, and why.
        explored: Whether its hyper-parameters are others than those from which it goes on.
    """

    member_id: MemberId
    generation: int
    step: int
    performance: float | None
    hyperparams: Hyperparams
    source_id: MemberId | None = None
    source_step: int | None = None
    source_performance: float | None = None
    checkpoint_format: str | None = None
    passed_over: tuple[str, ...] = ()
    explored: bool = False

    @property
    def start(self) -> float | None:
        """The performance from which the member went on."""
        return self.performance if self.source_id is None else self.source_performance


@dataclass(frozen=True)
class Stretch:
    """A part of the training of some state, under the same hyper-parameters all along.

    Args:
        member_id: Who trained it.
        first_step: That member's training updates at the beginning.
        last_step: And at the end.
        hyperparams: What was in force.
    """

    member_id: MemberId
    first_step: int
    last_step: int
    hyperparams: Hyperparams

    @property
    def updates(self) -> int:
        """Training updates."""
        return self.last_step - self.first_step


def schedule(events: Sequence[Event], member_id: MemberId, step: int) -> tuple[Stretch, ...]:
    """All the training that the state of a member has had, from the first weights on, whoever did it.

    To train one agent along these stretches is to train it by the schedule of hyper-parameters that this member has
    found (Jaderberg et al. 2017, section 4.4). Stretches without an update are left out, equal neighbours are one.

    Args:
        events: All of the population, in their order.
        member_id: Whose state.
        step: That member's training updates now.

    Raises:
        ArgumentError: If there is no event of the member.
    """
    stretches: list[Stretch] = []
    for event, end in _line(events, member_id, step):
        if event.step >= end:
            continue
        stretch = Stretch(event.member_id, event.step, end, event.hyperparams)
        if stretches and stretches[-1] == replace(stretch, first_step=end, last_step=stretches[-1].last_step):
            stretch = replace(stretch, last_step=stretches.pop().last_step)
        stretches.append(stretch)
    return tuple(reversed(stretches))


def ancestry(events: Sequence[Event], member_id: MemberId) -> tuple[Event, ...]:
    """The exploits by which a member came by its state, oldest first.

    Args:
        events: All of the population, in their order.
        member_id: Whose state.

    Raises:
        ArgumentError: If there is no event of the member.
    """
    exploits = [event for event, _ in _line(events, member_id, 0) if event.source_id is not None]
    return tuple(reversed(exploits))


def _line(events: Sequence[Event], member_id: MemberId, step: int) -> Iterator[tuple[Event, int]]:
    """The decisions that a state has been through, newest first, each with the step at which the next came."""
    if not any(event.member_id == member_id for event in events):
        raise ArgumentError(f"There is no event of member {member_id!r}. Name a member of this population.")
    end, saved_at = step, None
    for event in reversed(events):
        # A state that was saved at some step is from before whatever was decided at that step.
        if event.member_id != member_id or (saved_at is not None and event.step >= saved_at):
            continue
        yield event, end
        if event.source_id is None or event.source_step is None:
            end = min(end, event.step)
        else:
            member_id, end, saved_at = event.source_id, event.source_step, event.source_step


def observations(events: Sequence[Event], member_id: MemberId, metric_mode: MetricMode) -> tuple[Observation, ...]:
    """What the hyper-parameters of a member have brought between two decisions, per training update.

    Stretches at whose beginning or end there was no finite performance, or without an update, are left out.

    Args:
        events: All of the population, in their order.
        member_id: Which member.
        metric_mode: Whether higher or lower is better.
    """
    own = [event for event in events if event.member_id == member_id]
    found = []
    for before, after in pairwise(own):
        start, end = score_of(before.start, metric_mode), score_of(after.performance, metric_mode)
        if start is not None and end is not None and after.step > before.step:
            gain = (end - start) / (after.step - before.step)
            found.append(Observation(after.generation, before.hyperparams, gain))
    return tuple(found)
