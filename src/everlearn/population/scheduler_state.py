"""A population as plain data and back: handles, what is remembered of them, and what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from everlearn.core.errors import StateError
from everlearn.population.ledger import Incident, Ledger, Standing
from everlearn.population.lineage import Event
from everlearn.population.members import PopulationMember, Report
from everlearn.population.space import SearchSpace

Row = TypeVar("Row")
_DAMAGE = (AttributeError, LookupError, TypeError, ValueError)


def state_of(ledger: Ledger, directory: Path | None) -> dict[str, Any]:
    """Numbers, texts, lists and dictionaries; files in the directory by their names, so that it can be moved."""
    return {
        "members": [_member_state(member, directory) for member in ledger.members],
        "standings": [asdict(ledger.standings[member.member_id]) for member in ledger.members],
        "events": [plain_event(event) for event in ledger.events],
        "incidents": [asdict(incident) for incident in ledger.incidents],
        "counts": dict(ledger.counts),
    }


def ledger_from(state: Mapping[str, Any], directory: Path | None, space: SearchSpace) -> Ledger:
    """The ledger of a state.

    Raises:
        StateError: If it is none, or one of another space.
    """
    with refused_state():
        members = [_member_from(each, directory, space) for each in state["members"]]
        ids = [member.member_id for member in members]
        return Ledger(
            members,
            dict(zip(ids, (_standing_from(each, space) for each in state["standings"]), strict=True)),
            [event_from(each, space) for each in state["events"]],
            _rows(Incident, state["incidents"]),
            Counter({str(name): int(count) for name, count in state["counts"].items()}),
        )


def generator_from(state: Mapping[str, Any]) -> np.random.Generator:
    """The generator at the point where a state was taken.

    Raises:
        StateError: If the state has none.
    """
    generator = np.random.default_rng(0)
    with refused_state():
        generator.bit_generator.state = state["generator"]
    return generator


@contextmanager
def refused_state() -> Iterator[None]:
    """Inside, what is raised by data that are no state becomes one error."""
    try:
        yield
    except StateError:
        raise
    except _DAMAGE as error:
        raise StateError(
            f"This is no state of a population ({type(error).__name__}: {error}). Give what state_dict() returned."
        ) from error


def _standing_from(state: Mapping[str, Any], space: SearchSpace) -> Standing:
    scored = state["scored"]
    return Standing(**{**state, "scored": None if scored is None else hyperparams_from(scored, space)})


def _rows(kind: type[Row], states: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [kind(**state) for state in states]


def plain_event(event: Event) -> dict[str, Any]:
    """The event as JSON has it."""
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    return {**values, "hyperparams": dict(event.hyperparams), "passed_over": list(event.passed_over)}


def event_from(state: Mapping[str, Any], space: SearchSpace) -> Event:
    """The event of ``plain_event``, values in their types.

    Raises:
        StateError: If it is of another space.
    """
    hyperparams = hyperparams_from(state["hyperparams"], space)
    return Event(**{**state, "hyperparams": hyperparams, "passed_over": tuple(state["passed_over"])})


def _member_state(member: PopulationMember, directory: Path | None) -> dict[str, Any]:
    path = member.checkpoint_path
    if path is not None:
        path = Path(path).name if directory is not None and Path(path).parent == directory else str(path)
    history = [[report.step, report.performance, report.generation] for report in member.history]
    values = {each.name: getattr(member, each.name) for each in fields(member)}
    return {**values, "hyperparams": dict(member.hyperparams), "checkpoint_path": path, "history": history}


def _member_from(state: Mapping[str, Any], directory: Path | None, space: SearchSpace) -> PopulationMember:
    path = state["checkpoint_path"]
    if path is not None and directory is not None and Path(path).name == path:
        path = directory / path
    history = [Report(int(step), performance, int(generation)) for step, performance, generation in state["history"]]
    hyperparams = hyperparams_from(state["hyperparams"], space)
    return PopulationMember(
        **{**state, "hyperparams": hyperparams, "checkpoint_path": path and Path(path), "history": history}
    )


def hyperparams_from(state: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Values in their types, which a text file may have lost."""
    names = [each.name for each in space]
    if sorted(state) != sorted(names):
        raise StateError(
            f"The state is of hyper-parameters {sorted(state)}, here are {sorted(names)}. Use its own space."
        )
    return {each.name: each.allowed.nearest(state[each.name]) for each in space}
