"""One agent in a process of its own, which does an iteration whenever it is told to: JSON lines in, JSON lines out.

``python -m benchmarks.peer_worker`` runs in the environment of any contestant and imports only what that one has. The
first line is the contestant and the number of threads; then every line is one of ``iterate``, ``profile``, ``limits``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.contestants import Contestant, build, parameters
from benchmarks.limits import limits
from benchmarks.profiling import COLLECT, METHODS, PHASES, UPDATE, stopwatch_on

_PACKAGES = ("everlearn", "stable_baselines3", "sbx-rl", "jax", "ray", "torch", "gymnasium", "mujoco", "numpy")


def main() -> None:
    """Answer every line with one line, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    opening = json.loads(sys.stdin.readline())
    cores = stay_on_cores(opening["threads"])
    agent = Agent(Contestant(**opening["contestant"]), opening["threads"])
    _say(answers, {"versions": versions(), "cores": cores, "parameters": parameters(agent.model)})
    for line in sys.stdin:
        _say(answers, agent.answer(json.loads(line)))


def stay_on_cores(count: int) -> list[int]:
    """Bind this process and all its threads to so many cores, the last ones; none where a system has no such call.

    XLA has no other setting that keeps its thread pool to a number of cores; it counts those that it may use.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[-count:]
    os.sched_setaffinity(0, cores)
    return cores


def versions() -> dict[str, str]:
    """Of the packages that matter and are there."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Agent:
    """An agent that is timed, iteration by iteration.

    Args:
        contestant: What it is.
        threads: Of torch.
    """

    def __init__(self, contestant: Contestant, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.contestant, self.model = contestant, build(contestant)

    def answer(self, question: str) -> dict[str, float]:
        """Do what a line says."""
        answers = {"iterate": self.iterate, "profile": self.profile, "limits": self.limits}
        return answers[question]()

    def iterate(self) -> dict[str, float]:
        """Seconds of the next iteration of ``learn()``, and whether everlearn says that its update was compiled."""
        with stopwatch_on(self.model, PHASES) as stopwatch:
            processor, seconds = time.process_time(), self._learn()
            processor = time.process_time() - processor
        return {
            "seconds": seconds,
            "processor": processor,
            "collect": stopwatch.of(COLLECT),
            "update": stopwatch.of(UPDATE),
            "compiled": self.model.logger.name_to_value.get("train/compiled") == 1,
        }

    def profile(self) -> dict[str, float]:
        """Seconds of each part of one more iteration, which the taking of times makes longer."""
        with stopwatch_on(self.model, METHODS) as stopwatch:
            seconds = self._learn()
        return stopwatch.parts(seconds)

    def limits(self) -> dict[str, float]:
        """Seconds that the parts of an iteration would take with nothing but the bare work."""
        return limits(self.contestant, self.model)

    def _learn(self) -> float:
        start = time.perf_counter()
        self.model.learn(self.contestant.rollout_size, reset_num_timesteps=False)
        return time.perf_counter() - start


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
