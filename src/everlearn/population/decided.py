"""What was decided about a member of a trained population, as the journal has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from everlearn.core.errors import StateError
from everlearn.population.lineage import Event
from everlearn.population.scheduler_state import event_from, plain_event
from everlearn.population.segments import Copy, copy_from, number_from, plain_number
from everlearn.population.space import SearchSpace


@dataclass(frozen=True)
class Decided:
    """What was decided about a member, and what it takes over for that.

    Args:
        event: For the lineage.
        copy: Whose state it takes over; None if it goes on with its own.
    """

    event: Event
    copy: Copy | None

    def plain(self) -> dict[str, Any]:
        """As strict JSON has it."""
        event = {**plain_event(self.event), "performance": plain_number(self.event.performance)}
        return {"event": event, "copy": None if self.copy is None else asdict(self.copy)}


def decided_from(plain: Mapping[str, Any], space: SearchSpace) -> Decided:
    """What ``Decided.plain`` has made plain.

    Raises:
        StateError: If its hyper-parameters are none of the space.
    """
    state = {**plain["event"], "performance": number_from(plain["event"]["performance"])}
    event = event_from(state, space)
    if any(not each.allowed.contains(state["hyperparams"][each.name]) for each in space):
        raise StateError(
            f"Member {event.member_id!r} went on with {state['hyperparams']}, which is not in the space. Resume the "
            "population with its own."
        )
    return Decided(event, copy_from(plain["copy"]))
