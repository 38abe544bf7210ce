"""What trains in each process of a population: a seat for all members, or one for each, updated in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

from everlearn.config import RunConfig, import_plugins, load
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.core.rng import kept_generators
from everlearn.core.threads import threads
from everlearn.pbt.seat import Seat
from everlearn.population.executors import Beat, SegmentRunner
from everlearn.population.executors.executor import failure
from everlearn.population.members import MemberId
from everlearn.population.segments import Result, Task
from everlearn.ppo.training_together import Together


@final
class AgentRunner(SegmentRunner):
    """Trains members one after the other, in one seat.

    Args:
        config: Every setting.
        directory: Where the members' files are.
    """

    def __init__(self, config: RunConfig, directory: Path) -> None:
        self._threads = thread_number(config)
        with kept_generators():
            self._seat = Seat(config, directory)

    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        """One after the other."""
        return [self._trained(task, beat) for task in tasks]

    def close(self) -> None:
        """Close the environments."""
        self._seat.close()

    def _trained(self, task: Task, beat: Beat) -> Result:
        with kept_generators(), threads(self._threads):
            try:
                return self._seat.train(task, beat)
            except Exception as error:  # of whatever kind: it is the member's, and goes into the journal in full
                return task.failed(failure(error))


@final
class StackedRunner(SegmentRunner):
    """Trains members side by side, each in a seat of its own; their updates are done in one compiled step.

    Args:
        config: Every setting.
        directory: Where the members' files are.
    """

    def __init__(self, config: RunConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        self._seats: dict[MemberId, Seat] = {}
        self._together = Together([])

    def run(self, tasks: Sequence[Task], beat: Beat) -> list[Result]:
        """All at once."""
        with kept_generators(), threads(thread_number(self._config)):
            self._seat({task.member_id for task in tasks}, [task.member_id for task in tasks])
            by_member = {task.member_id: task for task in tasks}
            works = [
                partial(seat.train, by_member[member_id], beat) if member_id in by_member else None
                for member_id, seat in self._seats.items()
            ]
            outcomes = dict(zip(self._seats, self._together.run(works), strict=True))
        return [_result(task, outcomes[task.member_id]) for task in tasks]

    def close(self) -> None:
        """Close all environments."""
        for seat in self._seats.values():
            seat.close()

    def _seat(self, wanted: set[MemberId], order: Sequence[MemberId]) -> None:
        """Have a seat for each of these members; the same ones as long as the members are the same."""
        if wanted <= self._seats.keys():
            return
        for member_id in order:
            if member_id not in self._seats:
                self._seats[member_id] = Seat(self._config, self._directory)
        self._together = Together([seat.agent for seat in self._seats.values()])


def thread_number(config: RunConfig) -> int:
    """Threads of torch in a process: what the configuration says, or one, for there is a process per core."""
    return 1 if config.runtime.threads == "auto" else config.runtime.threads


def _result(task: Task, outcome: Result | Exception | None) -> Result:
    assert outcome is not None
    return task.failed(failure(outcome)) if isinstance(outcome, Exception) else outcome


def agent_runner(settings: Mapping[str, Any], directory: Path, together: bool = False) -> SegmentRunner:
    """A runner in a process that may be another one.

    Args:
        settings: Of the run's resolved configuration.
        directory: Where the members' files are.
        together: Whether members' updates are done in one step.
    """
    keep_compiled_code_private()
    config = load(settings)
    import_plugins(config.plugins)
    return StackedRunner(config, directory) if together else AgentRunner(config, directory)
