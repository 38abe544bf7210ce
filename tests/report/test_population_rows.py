from pathlib import Path

import pytest

from everlearn.population.lineage import Event
from everlearn.report.population_rows import (
    change_words,
    exploit_words,
    hyperparams_before,
    is_finished,
    last_line,
    median_score,
    member_rows,
    ranked_rows,
    value_words,
)
from tests.report.toy_populations import STEPS, rules, trained


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3e-4, "3e-4"),
        (2.5e-4, "2.5e-4"),
        (0.01, "0.01"),
        (0.1234, "0.123"),
        (0.0, "0"),
        (1.0, "1"),
        (-0.5, "-0.5"),
        (0.995, "0.995"),
        (0.9995, "0.9995"),
        (0.999951, "0.999951"),
        (12.0, "12"),
        (1234.5, "1234"),
        (2.0e6, "2e6"),
        (64, "64"),
        (True, "True"),
        ("tanh", "tanh"),
    ],
)
def test_hyperparameters_take_few_characters_and_keep_what_tells_them_apart(value, words: str) -> None:
    assert value_words(value) == words


def test_a_change_has_its_sign() -> None:
    assert [change_words(each) for each in (1.5, -2.0, 0.0, None)] == ["+1.50", "-2.00", "+0.00", ""]


def test_an_exploit_tells_only_what_changes() -> None:
    event = Event(2, 1, 10, 1.0, {"learning_rate": 2.5e-4, "gamma": 0.99}, source_id=7)
    assert exploit_words(event, {"learning_rate": 3e-4, "gamma": 0.99}) == "2 <- 7 (learning_rate 3e-4 -> 2.5e-4)"
    assert exploit_words(event, event.hyperparams) == "2 <- 7"


def test_of_an_error_the_last_line_says_what_happened() -> None:
    assert last_line("Traceback:\n  File ...\nValueError: no\n\n") == "ValueError: no"
    assert last_line("  \n ") == ""


def test_rows_say_how_members_stand(tmp_path: Path) -> None:
    stop = iter([False] * 6 + [False] * 3 + [True])
    population = trained(
        tmp_path, rules(), misfortunes={"1:1": "raise", "0:0": "nan"}, stopped=lambda: next(stop)
    ).population
    rows = {row.member_id: row for row in member_rows(population)}
    assert [rows[each].state for each in range(6)] == ["done", "failed", "done", "open", "open", "open"]
    assert (rows[1].cause, rows[1].score, rows[1].change) == ("ValueError: a misfortune", None, None)
    assert (rows[0].change, rows[2].cause) == (None, None)  # there was no score before
    scores = [report.performance for report in population.ledger.member(2).history]
    assert rows[2].change == pytest.approx(scores[1] - scores[0])
    assert (rows[2].env_steps, rows[2].speed, rows[2].step) == (4 * STEPS, 4 * STEPS, 4)
    assert rows[3].as_dict()["hyperparams"] == population.ledger.member(3).hyperparams


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_is_the_populations(tmp_path: Path, mode: str) -> None:
    population = trained(tmp_path, rules(metric_mode=mode), misfortunes={"1:1": "raise", "0:0": "nan"}).population
    ranked = ranked_rows(member_rows(population), mode)  # type: ignore[arg-type]
    assert ranked[0].is_best
    assert ranked[0].member_id == population.best().member_id  # type: ignore[union-attr]
    assert [row.is_best for row in ranked].count(True) == 1


def test_members_without_a_score_rank_last_and_do_not_count_in_the_median(tmp_path: Path) -> None:
    population = trained(tmp_path, rules(3), 2, {"0:0": "nan", "1:0": "raise"}).population
    assert [row.score is None for row in ranked_rows(member_rows(population), "max")] == [False, True, True]
    assert median_score(population) == population.ledger.member(2).performance


def test_before_an_exploit_a_member_had_its_own_hyperparameters(tmp_path: Path) -> None:
    population = trained(tmp_path, rules()).population
    exploits = [event for event in population.ledger.events if event.source_id is not None]
    assert exploits
    for event in exploits:
        own = [each for each in population.ledger.events if each.member_id == event.member_id]
        assert hyperparams_before(population, event) == own[event.generation - 1].hyperparams


def test_a_last_generation_in_which_all_have_failed_is_not_the_end(tmp_path: Path) -> None:
    population = trained(tmp_path, rules(2), 2, {"0:0": "raise"}).population
    assert is_finished(population)
    population.results[1] = population.results[0]
    assert not is_finished(population)
