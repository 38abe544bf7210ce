"""Fuzzing of everything that reads files: the law on 3,000 inputs, and that the harness sees what breaks it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everlearn.checkpoint.errors import Corrupt
from tools.fuzz import __main__ as command
from tools.fuzz.chunks import Chunks, Tally
from tools.fuzz.seeds import Seed
from tools.fuzz.strategies import SHARES, made
from tools.fuzz.trial import WHOLE, Outcome, Trials, tried

INPUTS = 3_000
GOOD = Seed("good", b"content")


@pytest.fixture(scope="module")
def trials() -> Trials:
    return Trials()


def test_whatever_is_read_gives_a_whole_object_or_an_error_of_the_family(trials: Trials) -> None:
    """Rows 1 to 7 of the failure modes, by chance; ``make test-fuzz`` reads a million."""
    tally = Tally()
    for index in range(INPUTS):
        tally.add(trials.run(index))
    assert [finding for finding in tally.findings if finding["verdict"] != "!slow"] == []
    assert tally.slowest_ms < 10_000
    assert tally.strategies.keys() == {strategy.__name__ for strategy in SHARES}
    assert {WHOLE, "Corrupt", "Truncated", "Unsupported", "Mismatch", "Untrusted", "TooLarge"} <= tally.verdicts.keys()


def test_an_input_follows_from_its_number(trials: Trials) -> None:
    again = Trials()
    for index in range(400):
        assert made(index, trials._seeds)[2] == made(index, again._seeds)[2]


def another_error(content: bytes) -> None:
    raise KeyError("not of the family")


def refused_memory(content: bytes) -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise Corrupt("file", "it does not fit.", "Take another.") from error


def endless(content: bytes) -> None:
    end = time.process_time() + 1.1
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("reader", "verdict"), [(another_error, "!KeyError"), (refused_memory, "!memory"), (endless, "!slow")]
)
def test_the_harness_sees_what_breaks_the_law(reader: Callable[[bytes], None], verdict: str) -> None:
    outcome = tried(7, "any", GOOD, GOOD.content, reader)
    assert outcome.verdict == verdict
    assert outcome.finding is not None
    assert outcome.finding["input"] == "Y29udGVudA=="


class Scripted:
    """Trials of which some end or halt the process."""

    def run(self, index: int) -> Outcome:
        if index == 3:
            os._exit(9)
        if index == 12:
            time.sleep(60)
        return Outcome(index, "any", WHOLE, 0.001, 0)

    def strategy(self, index: int) -> str:
        return "any"


def test_a_process_that_dies_or_hangs_is_a_finding_and_the_rest_is_tried() -> None:
    done = dict(Chunks(Scripted(), inputs=25, size=10, patience=1.5).run([0, 1, 2]))  # type: ignore[arg-type]
    assert [done[chunk].inputs for chunk in range(3)] == [10, 10, 5]
    found = [(finding["index"], finding["verdict"]) for chunk in range(3) for finding in done[chunk].findings]
    assert found == [(3, "!crash"), (12, "!hang")]


def test_what_was_tried_is_remembered_for_the_same_source_only(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "STATE", tmp_path / "new" / "state.json")
    tally = Tally()
    for index in range(4):
        tally.add(Outcome(index, "damaged", "Corrupt", 0.002, 10**6))
    assert command.remembered(4) == {}
    command.remember({0: tally})
    assert command.remembered(4) == {0: tally}
    assert command.remembered(5) == {}, "a chunk that is longer now"
    assert command.result_of({0: tally})["outcomes"] == {"Corrupt": 4}
    monkeypatch.setattr(command, "source", lambda: "another")
    assert command.remembered(4) == {}


def test_the_committed_result_has_no_failure() -> None:
    if not command.RESULTS.exists():
        pytest.skip("make test-fuzz has not been run yet")
    result = json.loads(command.RESULTS.read_text())
    assert result["failures"] == 0
    assert result["inputs"] >= 1_000_000
    assert result["slowest_ms"] < 1_000
    assert result["peak_growth_mb"] < 200
