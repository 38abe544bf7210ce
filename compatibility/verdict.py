"""What the outcomes of a run mean, given what SB3's own PPO passes and the exceptions that are listed."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypedDict


class Outcome(TypedDict, total=False):
    """How a test ended; without ``outcome`` it was not reached."""

    selected_by: str
    outcome: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """How a class fares in one file.

    Args:
        passed: How many of the tests that SB3's PPO passes.
        excused: How many failed as listed.
        complaints: What is not as it should be; empty if all is well.
    """

    passed: int
    excused: int
    complaints: tuple[str, ...]


def judge(file: str, expected: AbstractSet[str], excused: AbstractSet[str], outcomes: Mapping[str, Outcome]) -> Verdict:
    """Every test that SB3's PPO passes has to pass or to be listed, and what is listed has to fail.

    Args:
        file: Whose tests.
        expected: Tests that SB3's PPO passes.
        excused: Tests that are listed as exceptions.
        outcomes: How the tests ended with the class that is judged.
    """
    passed = {name for name in expected if outcomes.get(name, {}).get("outcome") == "passed"}
    failures = [f"{file}::{name} {_ending(outcomes.get(name))}" for name in sorted(expected - passed - excused)]
    stale = [f"{file}::{name} is listed as an exception and passes" for name in sorted(excused & passed)]
    unknown = [f"{file}::{name} is listed, but SB3's PPO does not pass it" for name in sorted(excused - expected)]
    return Verdict(len(passed), len((expected - passed) & excused), (*failures, *stale, *unknown))


def _ending(outcome: Outcome | None) -> str:
    if outcome is None or "outcome" not in outcome:
        return "did not run"
    return f"{outcome['outcome']}: {outcome.get('message', 'no reason given')}"
