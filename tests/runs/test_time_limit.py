import time
from pathlib import Path
from typing import Any

import pytest

from everlearn.core.errors import ConfigError
from everlearn.ppo.algorithm import PPO
from everlearn.runs import evaluate_saved, train
from everlearn.runs.time_limit import TimeLimit, seconds_of
from tests.runs.tiny import tiny


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("1e3", 1000.0),
        ("45s", 45.0),
        ("1.5h", 5400.0),
        ("90m", 5400.0),
        ("90min", 5400.0),
        ("1h30m", 5400.0),
        ("2d 12h", 216_000.0),
        ("1H 30M 5S", 5405.0),
    ],
)
def test_a_span_is_a_number_of_seconds(span: str | float, seconds: float) -> None:
    assert seconds_of(span) == seconds


@pytest.mark.parametrize(
    "span", ["", "0", "-5", 0, -1.0, float("nan"), float("inf"), "inf", "1h30", "30m1h", "soon", True]
)
def test_what_is_no_span_is_refused(span: Any) -> None:
    with pytest.raises(ConfigError, match=r"^time limit .*: give seconds above 0, or a span as 90m, 1h30m, 2d12h\.$"):
        seconds_of(span)


def test_a_limit_begins_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    limit = TimeLimit(5)
    never = TimeLimit()
    overs = []
    for now in (104.9, 105.0):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        overs.append((limit.over(), never.over()))
    assert overs == [(False, False), (True, False)]


def test_a_run_ends_with_the_step_after_its_limit_and_keeps_the_agent(tmp_path: Path) -> None:
    run = train(tiny(total_timesteps=10_000_000), tmp_path / "run", time_limit="0.3s")
    assert run.summary.stopped_by == "time limit"
    assert run.summary.verdict() == "Stopped by the time limit; the model so far is saved."
    assert 0 < run.summary.steps < 10_000_000
    assert run.summary.evaluation is not None
    assert PPO.load(run.directory.model).num_timesteps == run.summary.steps
    assert len(evaluate_saved(run.path, episodes=2)[1].returns) == 2


def test_a_run_that_ends_before_its_limit_was_not_stopped(tmp_path: Path) -> None:
    assert train(tiny(), tmp_path / "run", time_limit="1h").summary.stopped_by is None
