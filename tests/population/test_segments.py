"""Segments as plain data: for another process, and for the journal."""

import json
import math

import pytest

from everlearn.checkpoint import strict_json
from everlearn.core.errors import StateError
from everlearn.population.segments import (
    Checkpoint,
    Copy,
    Result,
    Task,
    checkpoint_from,
    plain_result,
    plain_task,
    result_from,
    task_from,
)

STATE = Checkpoint("member-1-generation-0-0123456789abcdef.zip", "ab", "cd", ("policy", "vgs_state"))
VALUES = {"betas": (0.9, (1, "x")), "n": 3, "lr": 1e-3, "noise": None, "on": True, "more": {"betas": (1, 2)}}


def through_json(plain):
    return json.loads(strict_json.dumps(plain))


@pytest.mark.parametrize("checkpoint", [None, STATE])
@pytest.mark.parametrize("copy", [None, Copy("b", STATE, "weights", "reset", 7)])
def test_b30_a_task_reaches_another_process_with_its_values_in_their_types(checkpoint, copy) -> None:
    task = Task("a", 2, 4, 2, 11, VALUES, checkpoint, copy)
    found = task_from(through_json(plain_task(task)))
    assert found == task
    assert repr(found.hyperparams) == repr(VALUES)


@pytest.mark.parametrize("score", [None, 1.5, 3, math.nan, math.inf, -math.inf])
def test_row_24_a_result_is_strict_json_whatever_its_numbers_are(score) -> None:
    samples = () if score is None else (score, 1.0)
    records = ({"step": 3, "loss": math.nan}, {"step": 4, "loss": -math.inf})
    result = Result(3, 1, 4, score, samples, 5, 0.5, STATE, records, "why", ("worker 1 was lost",))
    assert repr(result_from(through_json(plain_result(result)))) == repr(result)


def test_what_has_failed_stands_where_it_stood() -> None:
    failed = Task(1, 2, 4, 2, 11, VALUES, STATE).failed("why")
    assert (failed.generation, failed.step, failed.performance, failed.checkpoint) == (2, 4, None, None)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "C:x", "a/"])
def test_row_38_a_name_that_leads_elsewhere_is_none(name: str) -> None:
    with pytest.raises(StateError, match="is no name of a member's file"):
        checkpoint_from({"name": name, "sha256": "", "policy_digest": "", "parts": []})
