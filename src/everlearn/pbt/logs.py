"""The logs of a population: a line and TensorBoard's numbers for each generation, and the same for each member.

They are derived from the journal alone. When training goes on they are made anew from it, so that a kill leaves no line
twice and none out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, final

from everlearn.pbt.log_files import AppendedFile, EventFile, json_line
from everlearn.population import scheduler_statistics as counted
from everlearn.population.decided import Decided, decided_from
from everlearn.population.members import MemberId, PopulationMember, file_part
from everlearn.population.population import VGS, Population
from everlearn.population.segments import Copy, Result
from everlearn.population.store import Journal, PopulationStore
from everlearn.population.trainer import Watcher
from everlearn.report.population_rows import finite, finite_scores, hyperparams_before, is_finished

DISAGREEMENT = "critics/disagreement"
LINES, MEMBERS, TENSORBOARD = "generations.jsonl", "members", "tb"
"""Names of the logs in a population's directory."""
_OF_OTHER_LOOPS = ("pbt/ready_members", "pbt/failed_ready_checks")
"""Statistics of those whose members report one by one: here all have reported whenever something is decided."""


@final
class PopulationLogs(Watcher):
    """Writes ``generations.jsonl``, ``members/member-ID.jsonl`` and TensorBoard's files, all as soon as it is known.

    Args:
        directory: Of the population.
        store: Its journal.
        tensorboard: Whether to write for TensorBoard.
    """

    def __init__(self, directory: Path, store: PopulationStore, *, tensorboard: bool = True) -> None:
        self._directory, self._store = directory, store
        self._tensorboard = directory / TENSORBOARD if tensorboard else None
        self._generations: _Log | None = None
        self._members: dict[MemberId, _Log] = {}
        self._results: dict[MemberId, Result] = {}
        self._began, self._seconds, self._env_steps, self._next = 0.0, 0.0, 0, 0

    def began(self, population: Population, seconds: float) -> None:
        """Make all files anew from the journal.

        Raises:
            EverlearnError: If that cannot be done.
        """
        self._began = time.time() - seconds
        self._results, self._seconds, self._env_steps, self._next = {}, 0.0, 0, 0
        lines = AppendedFile(self._directory / LINES, LINES)
        self._generations = _Log(lines, self._events("population"))
        for member in population.members:
            name = f"member-{file_part(member.member_id)}"
            path = self._directory / MEMBERS / f"{name}.jsonl"
            self._members[member.member_id] = _Log(AppendedFile(path, path.name), self._events(name))
        self._replay(population, seconds)
        for log in (self._generations, *self._members.values()):
            log.publish()

    def reported(self, population: Population, results: Sequence[Result]) -> None:
        """Write what was logged in segments."""
        self._report(population, results, time.time())

    def decided(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        """Write the generation."""
        self._finish(population, decided, seconds)

    def ended(self, population: Population, seconds: float) -> None:
        """Write the last generation, about which nothing is decided; of one interrupted there is no line."""
        if is_finished(population) and self._next == population.generation:
            self._finish(population, (), seconds)

    def _events(self, name: str) -> EventFile | None:
        return None if self._tensorboard is None else EventFile(self._tensorboard / name, self._began)

    def _replay(self, population: Population, seconds: float) -> None:
        """All that the journal has, in its order, as if it happened now."""
        journal, config = self._store.read(), population.config
        if journal is None:
            return
        beginnings = population.ledger.events[: len(population.members)]
        members = [PopulationMember(each.member_id, dict(each.hyperparams)) for each in beginnings]
        seeds = [population.places[each.member_id].seed for each in members]
        past = Population(config, members, seeds, population.total_updates)
        for generation in journal.generations:
            self._go_on(past, journal, generation.seconds)
            decided = [decided_from(each, past.config.space) for each in generation.decisions]
            past.settle(decided)
            self._finish(past, decided, generation.seconds)
        self._go_on(past, journal, seconds)

    def _go_on(self, past: Population, journal: Journal, seconds: float) -> None:
        """What came of the segments of a generation; those in which all had failed were trained again."""
        for failure in journal.failures:
            if failure.generation == past.generation:
                past.report([failure])
                past.forget()
        results = journal.results.get(past.generation, ())
        past.report(results)
        self._report(past, results, self._began + seconds)

    def _report(self, population: Population, results: Sequence[Result], wall_time: float) -> None:
        for result in results:
            self._results[result.member_id] = result
            if result.error is None:
                for step, values in _member_records(population, result):
                    about = {"step": step, "generation": result.generation + 1}
                    self._members[result.member_id].write(about, values, step, wall_time)

    def _finish(self, population: Population, decided: Sequence[Decided], seconds: float) -> None:
        assert self._generations is not None  # training has begun
        numbers = self._numbers(population, seconds)
        about = {
            "generation": self._next + 1,
            "seconds": seconds,
            "env_steps": population.env_steps,
            **_told_of(population, decided, self._results),
        }
        wall_time = self._began + seconds
        self._generations.write(about, numbers, population.env_steps, wall_time)
        self._results, self._seconds, self._env_steps = {}, seconds, population.env_steps
        self._next += 1

    def _numbers(self, population: Population, seconds: float) -> dict[str, float]:
        """What TensorBoard shows of a generation."""
        numbers = counted.statistics_of(population.ledger)
        for name in _OF_OTHER_LOOPS:
            numbers.pop(name, None)
        results, scores, best = self._results.values(), finite_scores(population), population.best()
        numbers |= {
            "pbt/generation": self._next + 1,
            "pbt/failures": sum(each.error is not None for each in results),
            "pbt/interruptions": sum(len(each.interruptions) for each in results),
        }
        if seconds > self._seconds:
            numbers["pbt/env_steps_per_second"] = (population.env_steps - self._env_steps) / (seconds - self._seconds)
        if scores and best is not None and best.performance is not None:
            numbers |= {"pbt/best_performance": best.performance, "pbt/median_performance": median(scores)}
        exploits = numbers["pbt/exploitation_count"]
        if exploits and _uses_variance_scaling(population):
            numbers["pbt/vgs_transfer_success_rate"] = numbers["pbt/exploits_with_vgs_state"] / exploits
        return numbers


@final
class _Log:
    """A file of lines, and the numbers in it for TensorBoard.

    Args:
        lines: The first.
        events: The second; None without TensorBoard.
    """

    def __init__(self, lines: AppendedFile, events: EventFile | None) -> None:
        self._lines, self._events = lines, events

    def write(self, about: Mapping[str, Any], values: Mapping[str, Any], step: int, wall_time: float) -> None:
        """Write a line.

        Args:
            about: Of it, what TensorBoard does not get.
            values: The rest; of that TensorBoard gets the numbers.
            step: On TensorBoard's axis.
            wall_time: When, in seconds since 1970.
        """
        plain = {name: finite(value) if isinstance(value, float) else value for name, value in values.items()}
        self._lines.append(json_line({**about, **plain}))
        if self._events is not None:
            numbers = {name: float(value) for name, value in values.items() if isinstance(value, bool | int | float)}
            self._events.append(step, wall_time, numbers)

    def publish(self) -> None:
        """Put its files into their places."""
        self._lines.publish()
        if self._events is not None:
            self._events.publish()


def _member_records(population: Population, result: Result) -> list[tuple[int, dict[str, Any]]]:
    """What was logged in a segment, and at its end by which hyper-parameters the member has come to which score."""
    found = [
        (int(each["step"]), {name: value for name, value in each.items() if name != "step"}) for each in result.records
    ]
    member = population.ledger.member(result.member_id)
    end: dict[str, Any] = {} if result.performance is None else {"pbt/score": result.performance}
    end |= {f"hyperparams/{name}": value for name, value in member.hyperparams.items()}
    step = found[-1][0] if found else population.places[result.member_id].env_steps
    return [*found, (step, end)]


def _told_of(population: Population, decided: Sequence[Decided], results: Mapping[MemberId, Result]) -> dict[str, Any]:
    """Of a generation, what is no number."""
    best, scores = population.best(), finite_scores(population)
    disagreements = {member_id: _last(result, DISAGREEMENT) for member_id, result in results.items()}
    return {
        "exploits": sum(each.event.source_id is not None for each in decided),
        "best": None if best is None else best.performance,
        "best_member": None if best is None else best.member_id,
        "median": median(scores) if scores else None,
        "mean": fmean(scores) if scores else None,
        "scores": {str(member.member_id): finite(member.performance) for member in population.members},
        "disagreement": {str(each.member_id): disagreements.get(each.member_id) for each in population.members},
        "failed": [each.member_id for each in results.values() if each.error is not None],
        "decisions": [told for each in decided if (told := _told(population, each)) is not None],
    }


def _told(population: Population, decided: Decided) -> dict[str, Any] | None:
    """A decision; None where a member goes on as it was."""
    event, before = decided.event, hyperparams_before(population, decided.event)
    if event.source_id is None and not event.passed_over and not event.explored:
        return None
    return {
        "member": event.member_id,
        "source": event.source_id,
        "checkpoint_format": event.checkpoint_format,
        "with_vgs_state": decided.copy is not None and _has_variance_scaling(decided.copy),
        "passed_over": [*event.passed_over],
        "before": dict(before),
        "after": dict(event.hyperparams),
    }


def _has_variance_scaling(copy: Copy) -> bool:
    return copy.copied == "everything" and VGS in copy.checkpoint.parts


def _uses_variance_scaling(population: Population) -> bool:
    checkpoints = (place.checkpoint for place in population.places.values())
    return any(each is not None and VGS in each.parts for each in checkpoints)


def _last(result: Result, name: str) -> float | None:
    """The last number of a name that was logged in a segment."""
    return next((finite(each[name]) for each in reversed(result.records) if name in each), None)
