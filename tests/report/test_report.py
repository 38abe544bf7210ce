import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from everlearn.environments.evaluation import Evaluation
from everlearn.report import (
    EvaluationRecord,
    Progress,
    Silent,
    Summary,
    display_for,
    draw_learning_curve,
    print_evaluation,
    print_summary,
    summary_from,
)
from everlearn.report.smoothing import rolling_mean, smoothing_window
from everlearn.report.wording import duration, number, spread

SUMMARY = Summary(
    directory=Path("runs/demo"),
    environment="HalfCheetah-v5",
    algorithm="DistributionalPPO",
    seed=7,
    steps=200_000,
    seconds=100.0,
    returns=[-100.0] * 10 + [500.0] * 5 + [1500.0] * 5,
    evaluation=Evaluation([1800.0, 2000.0], [1000, 1000]),
    baseline=Evaluation([-300.0, -260.0], [1000, 1000]),
    reward_threshold=None,
    stopped_by=None,
)


def plain() -> Console:
    return Console(file=io.StringIO(), width=80)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.534, "0.53"), (-9.99, "-9.99"), (187.26, "187.3"), (1890.4, "1,890"), (-1234567.0, "-1,234,567")],
)
def test_numbers_keep_three_or_four_telling_digits(value: float, words: str) -> None:
    assert number(value) == words


def test_a_spread_has_one_number_of_decimals() -> None:
    assert spread(Evaluation([18.0, 22.0], [1, 1])) == "20.0 ± 2.0"
    assert spread(Evaluation([1000.0, 3000.0], [1, 1])) == "2,000 ± 1,000"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (34.4, "34 s"), (118, "1 min 58 s"), (7500, "2 h 05 min"), (273_600, "3 d 04 h")],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_rolling_mean_starts_with_what_there_is() -> None:
    assert rolling_mean([1.0, 3.0, 5.0, 7.0], 2).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert rolling_mean([4.0], 5).tolist() == [4.0]


def test_the_window_is_a_twentieth_within_limits() -> None:
    assert [smoothing_window(episodes) for episodes in (1, 100, 400, 5000)] == [10, 10, 20, 100]


def test_speed_and_remaining_time_follow_from_the_steps() -> None:
    progress = Progress(steps=5_000, total=20_000, seconds=10.0, mean_return=12.5)
    assert (progress.fraction, progress.speed, progress.remaining) == (0.25, 500.0, 30.0)
    assert progress.words() == "return 12.5  500.0 steps/s  30 s left"


def test_the_last_rollout_may_exceed_the_total() -> None:
    progress = Progress(steps=2_048, total=2_000, seconds=1.0, mean_return=None)
    assert (progress.fraction, progress.remaining) == (1.0, 0.0)
    assert progress.words().startswith("no episode yet")


def test_without_a_terminal_progress_is_plain_lines_that_do_not_flood() -> None:
    console = plain()
    display = display_for(console, quiet=False)
    for step in range(1, 1001):  # a quarter of a second between two updates
        display.update(Progress(step * 100, 100_000, step / 4, 1.0))
    display.close()
    lines = printed(console).splitlines()
    assert len(lines) == 20
    assert lines[0] == "      5,000 / 100,000 steps  return 1.00  400.0 steps/s  3 min 58 s left"


def test_a_slow_run_still_prints_once_a_minute() -> None:
    console = plain()
    display = display_for(console, quiet=False)
    for minute in range(1, 4):
        display.update(Progress(minute, 1_000_000, 60.0 * minute, None))
    assert len(printed(console).splitlines()) == 3


def test_on_a_terminal_progress_is_a_bar_that_is_left_in_order() -> None:
    console = terminal()
    display = display_for(console, quiet=False)
    display.announce("Training [begins]")
    display.update(Progress(50, 100, 1.0, 3.5))
    display.close()
    text = printed(console)
    assert "Training [begins]" in text
    assert "50 %" in text
    assert "return 3.50" in text
    assert text.endswith("\x1b[?25h")  # the cursor is visible again


def test_quiet_shows_nothing() -> None:
    console = terminal()
    display = display_for(console, quiet=True)
    assert isinstance(display, Silent)
    display.announce("Training")
    display.update(Progress(1, 2, 1.0, None))
    display.close()
    assert printed(console) == ""


def test_first_and_best_returns_are_means_of_as_many_episodes() -> None:
    assert SUMMARY.first_return == -100.0
    assert SUMMARY.best_return == 1000.0
    short = replace(SUMMARY, returns=[1.0, 3.0])
    assert (short.first_return, short.best_return) == (2.0, 2.0)
    nothing = replace(SUMMARY, returns=[])
    assert (nothing.first_return, nothing.best_return) == (None, None)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "Learned: the policy is clearly better than a random one."),
        ({"baseline": SUMMARY.evaluation}, "Not learned yet"),
        ({"baseline": None}, "The policy reaches a mean return of 1,900."),
        ({"evaluation": None}, "Not evaluated"),
        ({"evaluation": Evaluation([], [])}, "Not evaluated"),
        ({"reward_threshold": 1900.0}, "Solved: the mean return reaches 1,900"),
        ({"reward_threshold": 1901.0}, "Learned"),
        ({"stopped_by": "SIGINT"}, "Stopped by SIGINT; the model so far is saved."),
        ({"stopped_by": "time limit"}, "Stopped by the time limit; the model so far is saved."),
    ],
)
def test_the_verdict_says_what_was_learned(changes: dict[str, object], verdict: str) -> None:
    assert replace(SUMMARY, **changes).verdict().startswith(verdict)


def test_the_summary_shows_figures_verdict_and_files_without_breaking_lines() -> None:
    console = plain()
    print_summary(console, SUMMARY)
    text = printed(console)
    for part in (
        "DistributionalPPO on HalfCheetah-v5: 200,000 steps in 1 min 40 s (2,000 steps/s), seed 7\n",
        "  trained policy  1,900 ± 100     over 2 deterministic episodes\n",
        "  random policy   -280.0 ± 20.0   over 2 episodes\n",
        "  at the start    -100.0          mean of the first 10 episodes\n",
        "  at the best     1,000           best mean of 10 episodes in a row\n",
        "\nLearned: the policy is clearly better than a random one.\n",
        "  model.zip           the agent: everlearn evaluate runs/demo\n",
        "everlearn train runs/demo/config.yaml repeats the run\n",
    ):
        assert part in text


def test_names_that_look_like_markup_are_printed_as_they_are() -> None:
    console = plain()
    named = replace(SUMMARY, directory=Path("[red]z[/foo]"), environment="[bold]Cheetah[/x]")
    print_summary(console, named)
    for part in (
        "DistributionalPPO on [bold]Cheetah[/x]: 200,000 steps",
        "\n[red]z[/foo]\n",
        "evaluate [red]z[/foo]\n",
    ):
        assert part in printed(console)
    for evaluation in (SUMMARY.evaluation, Evaluation([], [])):
        console = plain()
        print_evaluation(console, evaluation, "[red]z[/foo]", each=False)
        assert printed(console).startswith("[red]z[/foo]: ")


def test_a_stopped_run_has_a_summary_too() -> None:
    console = plain()
    print_summary(console, replace(SUMMARY, returns=[], evaluation=None, baseline=None, stopped_by="SIGINT"))
    assert "Stopped by SIGINT" in printed(console)
    assert "policy  " not in printed(console)


def test_the_summary_is_strict_json() -> None:
    for summary in (SUMMARY, replace(SUMMARY, returns=[], evaluation=None, stopped_by="SIGINT")):
        assert json.loads(json.dumps(summary.as_dict(), allow_nan=False)) == summary.as_dict()
    assert SUMMARY.as_dict()["evaluation"]["mean"] == 1900.0
    assert SUMMARY.as_dict()["episodes"] == 20


def test_an_evaluation_is_printed_in_one_line_or_with_each_episode() -> None:
    console = plain()
    print_evaluation(console, Evaluation([1.0, 3.0], [10, 20]), "agent", each=False)
    assert printed(console) == (
        "agent: mean return 2.00 ± 1.00 over 2 episodes (min 1.00, max 3.00), mean length 15.0\n"
    )
    print_evaluation(console, Evaluation([1.0, 3.0], [10, 20]), "agent", each=True)
    assert [line.split() for line in printed(console).splitlines()[1:4]] == [
        ["episode", "return", "length"],
        ["1", "1.00", "10"],
        ["2", "3.00", "20"],
    ]


def test_an_evaluation_without_episodes_says_so() -> None:
    console = plain()
    print_evaluation(console, Evaluation([], []), "agent", each=True)
    assert printed(console) == "agent: no episode ended.\n"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1350, 750)
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def share(path: Path, colour: tuple[int, int, int]) -> float:
    """The share of pixels that have exactly this colour."""
    return float((pixels(path) == colour).all(axis=1).mean())


MEAN_LINE, TRAINED_POINT = (0x1F, 0x4E, 0x8C), (0xD1, 0x49, 0x5B)


def test_the_learning_curve_shows_training_and_the_final_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    steps = [20_000 * (1 + index // 2) for index in range(20)]
    draw_learning_curve(path, steps, SUMMARY)
    assert share(path, MEAN_LINE) > 1e-3
    assert share(path, TRAINED_POINT) > 1e-4


def test_what_did_not_happen_is_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    draw_learning_curve(path, [], replace(SUMMARY, returns=[], evaluation=None, baseline=None))
    assert share(path, MEAN_LINE) == share(path, TRAINED_POINT) == 0


BEST = EvaluationRecord(40_960, 1890.4, 120.0, 1000.0, 5, 60.0)


def test_the_best_evaluation_is_shown_with_its_step_and_its_model() -> None:
    console = plain()
    print_summary(console, replace(SUMMARY, best=BEST))
    assert "best evaluation 1,890 ± 120     over 5 episodes, after 40,960 steps" in printed(console)
    assert "everlearn evaluate runs/demo --best" in printed(console)
    console = plain()
    print_summary(console, SUMMARY)
    assert "--best" not in printed(console)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"best": BEST, "stopped_by": "time limit"},
        {"evaluation": None, "baseline": Evaluation([], []), "returns": [], "reward_threshold": 475.0},
    ],
)
def test_a_summary_comes_back_from_its_json(changes: dict) -> None:
    summary = replace(SUMMARY, **changes)
    values = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert summary_from(values, summary.directory, summary.returns) == summary


def test_progress_tells_the_last_evaluation_if_there_is_one() -> None:
    progress = Progress(500, 1000, 10.0, 12.0)
    assert progress.words() == "return 12.0  50.0 steps/s  10 s left"
    assert replace(progress, evaluated=187.26).words() == "return 12.0  50.0 steps/s  10 s left  evaluated 187.3"
