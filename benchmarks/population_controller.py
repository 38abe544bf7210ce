"""One population of imagined members in this process: what its controller does, by the clock."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from everlearn.population.executors import Executor, Inline
from everlearn.population.files import drop_all_but, file_problem
from everlearn.population.segments import Checkpoint, Result, Task
from everlearn.population.store import FILE, PopulationStore
from everlearn.population.trainer import PopulationTrainer
from everlearn.testing.populations import toy_rules
from everlearn.testing.toy_runner import ToyRunner

_INTERVAL = 2
_SHA256 = "0123456789abcdef" * 4
_NUMBERS = 30
"""In a record: about as many as a training update of PPO logs."""


@dataclass(frozen=True)
class Case:
    """A population.

    Attributes:
        size: Members.
        generations: Of which nothing is decided after the last.
        piece: Results that are handed out together, and so entered in one transaction.
        records: Logged by every segment.
        exploit: The exploit method.
        explore: The explore method.
        files: Whether members have files: then they are toys, and not imagined.
    """

    size: int
    generations: int = 10
    piece: int = 1
    records: int = 0
    exploit: str = "truncation"
    explore: str = "both"
    files: bool = False

    @property
    def label(self) -> str:
        """In a table."""
        special = {
            f"pieces of {self.piece}": self.piece > 1,
            f"{self.records} records": self.records > 0,
            self.exploit: self.exploit != "truncation",
            self.explore: self.explore != "both",
            "files": self.files,
        }
        return ", ".join([f"{self.size:,}", *(words for words, is_so in special.items() if is_so)])


@dataclass(frozen=True)
class Found:
    """What a population's controller took, training left out.

    Attributes:
        generation: Seconds per generation, all of the following together and what is between them.
        results: Seconds per generation to enter results in the journal.
        deciding: Seconds per decided generation, states verified.
        deciding_last: Seconds of the last of these: with all the history, beside the mean.
        decided: Seconds per decided generation to enter its decisions in the journal.
        keeping: Seconds per generation to delete what nobody needs.
        resume: Seconds to read the journal and stand as before.
        journal: Bytes on the disk.
        memory: Bytes by which the process has grown.
    """

    generation: float
    results: float
    deciding: float
    deciding_last: float
    decided: float
    keeping: float
    resume: float
    journal: int
    memory: int


class _Clock:
    """Times what is called through it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds.append(time.perf_counter() - begin)

        return timed

    @property
    def total(self) -> float:
        return sum(self.seconds)


class _Imagined(Executor):
    """Whose members take no time: each has a score, and a state that is never looked at."""

    def __init__(self, case: Case) -> None:
        self._case, self._generator = case, np.random.default_rng(0)

    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        for start in range(0, len(tasks), self._case.piece):
            if stopped():
                return
            yield [self._result(task) for task in tasks[start : start + self._case.piece]]

    def _result(self, task: Task) -> Result:
        name = f"member-{task.member_id}-generation-{task.generation}-{_SHA256[:16]}.zip"
        values = self._generator.normal(size=_NUMBERS).tolist()
        record = {"step": float(task.step), **{f"train/number_{index}": each for index, each in enumerate(values)}}
        return Result(
            task.member_id,
            task.generation,
            task.step + task.updates,
            values[0],
            tuple(values[:10]),
            checkpoint=Checkpoint(name, _SHA256, _SHA256, ("policy", "optimizer")),
            records=(record,) * self._case.records,
        )


class _Timed(Executor):
    """Another one, and the time that training takes in it."""

    def __init__(self, inner: Executor) -> None:
        self._inner, self.clock = inner, _Clock()

    def run_segments(self, tasks: Sequence[Task], stopped: Callable[[], bool]) -> Iterator[list[Result]]:
        pieces = self._inner.run_segments(tasks, stopped)
        following = self.clock.around(lambda: next(pieces, None))
        while (piece := following()) is not None:
            yield piece


def measured(case: Case, folder: Path) -> Found:
    """Train such a population in a directory, and read its journal again."""
    before = _status("VmRSS")
    results, deciding, decided, keeping = (_Clock() for _ in range(4))
    store = PopulationStore(folder / FILE)
    keep = keeping.around(partial(drop_all_but, folder))
    trainer = _trainer(case, store, folder, keep)
    store.commit_results = results.around(store.commit_results)  # type: ignore[method-assign]
    store.commit_generation = decided.around(store.commit_generation)  # type: ignore[method-assign]
    trainer.population.decide = deciding.around(trainer.population.decide)  # type: ignore[method-assign]
    executor = _Timed(Inline(ToyRunner, folder) if case.files else _Imagined(case))
    begin = time.perf_counter()
    trainer.run(executor, lambda: False)
    controller = time.perf_counter() - begin - executor.clock.total
    memory = _status("VmHWM") - before
    store.close()
    journal = sum(path.stat().st_size for path in folder.glob(f"{FILE}*"))
    begin = time.perf_counter()
    again = PopulationStore(folder / FILE)
    _trainer(case, again, folder, keep)
    resume = time.perf_counter() - begin
    again.close()
    count = case.generations
    return Found(
        generation=controller / count,
        results=results.total / count,
        deciding=deciding.total / len(deciding.seconds),
        deciding_last=deciding.seconds[-1],
        decided=decided.total / len(decided.seconds),
        keeping=keeping.total / count,
        resume=resume,
        journal=journal,
        memory=memory,
    )


def _trainer(case: Case, store: PopulationStore, folder: Path, keep: Callable[..., Any]) -> PopulationTrainer:
    methods = {"exploit_method": case.exploit, "explore_method": case.explore}
    rules = toy_rules(case.size, perturbation_interval=_INTERVAL, min_ready_members=1, **methods)
    verify = partial(file_problem, folder) if case.files else lambda checkpoint: None
    return PopulationTrainer(rules, store, _INTERVAL * case.generations, verify, keep=keep, seed=0)


def _status(name: str) -> int:
    """Bytes that the system counts for this process; 0 where it does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def main() -> None:
    """Measure the case of the first argument under the directory of the second, and say what was found."""
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as folder:
        print(json.dumps(asdict(measured(Case(**json.loads(sys.argv[1])), Path(folder)))))


if __name__ == "__main__":
    main()
