import math

import pytest

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.members import Record, file_part, ranked, require_distinct, score_of


@pytest.mark.parametrize(
    ("performance", "mode", "score"),
    [(2.0, "max", 2.0), (2.0, "min", -2.0), (None, "max", None), (math.nan, "min", None), (-math.inf, "min", None)],
)
def test_row_24_a_score_that_is_missing_or_not_finite_is_none(performance, mode, score) -> None:
    assert score_of(performance, mode) == score


def test_row_24_members_without_a_score_rank_last_and_equals_keep_their_order() -> None:
    population = [Record(number, {}, score) for number, score in enumerate([None, 0.0, 0.5, 5.0, 0.0, -1.0, None])]
    assert [record.member_id for record in ranked(population)] == [3, 2, 1, 4, 5, 0, 6]


def test_a_record_keeps_a_copy_that_nobody_can_write_to() -> None:
    hyperparams = {"gamma": 0.9}
    record = Record(0, hyperparams)
    hyperparams["gamma"] = 0.5
    assert record.hyperparams == {"gamma": 0.9}
    with pytest.raises(TypeError):
        record.hyperparams["gamma"] = 0.1


@pytest.mark.parametrize(
    ("member_id", "part"),
    [(7, "7"), ("left", "left"), ("../../x", "..%2F..%2Fx"), ("a b/c\\d:e", "a%20b%2Fc%5Cd%3Ae"), ("ä", "%C3%A4")],
)
def test_row_38_an_id_cannot_lead_out_of_its_directory(member_id, part: str) -> None:
    assert file_part(member_id) == part


@pytest.mark.parametrize("member_id", ["", True, None, 1.5, "x" * 101, "/" * 34, "\ud800"])
def test_row_38_what_is_no_id_is_refused(member_id) -> None:
    with pytest.raises(ArgumentError, match="member_id="):
        file_part(member_id)


@pytest.mark.parametrize("ids", [[0, 0], [1, "1"], ["a", "b", "A"]])
def test_row_23_two_members_with_the_same_id_are_refused(ids) -> None:
    with pytest.raises(ConfigError, match="Two members have the id"):
        require_distinct(ids)
    require_distinct(["0", 1, "a"])
