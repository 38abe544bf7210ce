"""Ten thousand inputs at a time, each chunk in a process of its own, whose death or silence is a finding too."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from tools.fuzz.trial import Outcome, Trials, limit_memory

SIZE = 10_000
PATIENCE = 60.0
_KEPT = 20
"""Findings that a chunk keeps in full; the rest are counted."""
_CELL = 8

_fork = multiprocessing.get_context("fork")


@dataclass
class Tally:
    """What some inputs have led to.

    Args:
        inputs: How many there were.
        strategies: How many each strategy made.
        verdicts: How many ended with each verdict.
        slowest_ms: Of processor time for one input, in milliseconds.
        grown_mb: The most by which one input made the peak of resident memory grow, in megabytes.
        cpu_s: Processor time of all, in seconds.
        findings: Inputs that broke the law.
    """

    inputs: int = 0
    strategies: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    grown_mb: float = 0.0
    cpu_s: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.inputs += 1
        self.strategies[outcome.strategy] += 1
        self.verdicts[outcome.verdict] += 1
        self.slowest_ms = max(self.slowest_ms, round(outcome.seconds * 1e3, 1))
        self.grown_mb = max(self.grown_mb, round(outcome.grown / 1e6, 1))
        self.cpu_s += outcome.seconds
        if outcome.verdict.startswith("!") and len(self.findings) < _KEPT:
            named = {"index": outcome.index, "strategy": outcome.strategy, "verdict": outcome.verdict}
            self.findings.append({**named, **(outcome.finding or {})})

    def join(self, other: Tally) -> None:
        """Count what another tally has."""
        self.inputs += other.inputs
        self.strategies += other.strategies
        self.verdicts += other.verdicts
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.grown_mb = max(self.grown_mb, other.grown_mb)
        self.cpu_s += other.cpu_s
        self.findings += other.findings

    def as_data(self) -> dict[str, Any]:
        """As JSON holds it."""
        return vars(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Tally:
        """The tally that ``as_data`` has written down."""
        counts = {name: Counter(data[name]) for name in ("strategies", "verdicts")}
        return cls(**{**data, **counts})


@dataclass
class Running:
    """A chunk that is being tried by a process."""

    chunk: int
    process: Any
    results: Connection
    cell: mmap.mmap
    seen: int
    since: float
    ended: dict[int, str]
    """The inputs at which an earlier process ended, and how."""

    def position(self) -> int:
        """The input that is being tried now."""
        return int.from_bytes(self.cell[:_CELL], "little")


class Chunks:
    """Runs chunks beside each other.

    Args:
        trials: What tries an input.
        inputs: How many there are in all.
        jobs: How many processes at a time.
        size: Inputs of a chunk.
        patience: Seconds after which an input that is still being tried counts as hanging.
    """

    def __init__(
        self, trials: Trials, inputs: int, jobs: int = 2, size: int = SIZE, patience: float = PATIENCE
    ) -> None:
        self._trials, self._inputs, self._jobs = trials, inputs, jobs
        self._size, self._patience = size, patience

    def run(self, chunks: Iterable[int]) -> Iterator[tuple[int, Tally]]:
        """Try chunks, and yield number and tally of each as it ends."""
        waiting = list(chunks)[::-1]
        running: list[Running] = []
        while waiting or running:
            while waiting and len(running) < self._jobs:
                chunk = waiting.pop()
                running.append(self._started(chunk, {}))
            wait([each.results for each in running], timeout=1.0)
            for each in list(running):
                rest = self._looked_after(each)
                if rest is not each:
                    running.remove(each)
                    if isinstance(rest, Running):
                        running.append(rest)
                    else:
                        yield each.chunk, rest

    def _started(self, chunk: int, ended: dict[int, str]) -> Running:
        cell = mmap.mmap(-1, _CELL)
        here, there = _fork.Pipe(duplex=False)
        inputs = [i for i in range(chunk * self._size, min((chunk + 1) * self._size, self._inputs)) if i not in ended]
        process = _fork.Process(target=_work, args=(self._trials, inputs, cell, there), daemon=True)
        process.start()
        there.close()
        return Running(chunk, process, here, cell, -1, time.monotonic(), ended)

    def _looked_after(self, each: Running) -> Running | Tally:
        """The same, or the chunk's tally, or the chunk begun again without an input at which the process ended."""
        if each.results.poll():
            try:
                tally: Tally = each.results.recv()
            except EOFError:
                return self._without(each, "!crash")
            each.process.join()
            for culprit, verdict in each.ended.items():
                tally.add(Outcome(culprit, self._trials.strategy(culprit), verdict, 0.0, 0, {}))
            return tally
        if each.position() != each.seen:
            each.seen, each.since = each.position(), time.monotonic()
        if time.monotonic() - each.since > self._patience:
            each.process.kill()
            return self._without(each, "!hang")
        return each

    def _without(self, each: Running, verdict: str) -> Running:
        each.process.join()
        return self._started(each.chunk, {**each.ended, each.position(): verdict})


def _work(trials: Trials, inputs: Sequence[int], cell: mmap.mmap, results: Connection) -> None:
    """Try some inputs, in a process of its own."""
    limit_memory()
    tally, parent = Tally(), os.getppid()
    for index in inputs:
        if os.getppid() != parent:  # which was killed
            os._exit(1)
        cell[:_CELL] = index.to_bytes(_CELL, "little")
        tally.add(trials.run(index))
    results.send(tally)
    results.close()
    os._exit(0)
