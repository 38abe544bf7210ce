import pytest

from everlearn.core.errors import ArgumentError
from everlearn.population.lineage import Event, ancestry, observations, schedule


def began(member_id, x: int = 0, step: int = 0) -> Event:
    return Event(member_id, 0, step, None, {"x": x})


def went_on(member_id, generation: int, step: int, x: int, performance: float | None = 1.0) -> Event:
    return Event(member_id, generation, step, performance, {"x": x})


def copied(member_id, generation: int, step: int, x: int, source, source_step: int, scores=(1.0, 2.0)) -> Event:
    return Event(member_id, generation, step, scores[0], {"x": x}, source, source_step, scores[1], "everlearn_v3")


EVENTS = [
    began("a", 1),
    began("b", 2),
    began("c", 3),
    copied("a", 1, 5, x=20, source="b", source_step=5),
    went_on("b", 1, 5, x=2),
    went_on("c", 1, 6, x=3),
    went_on("a", 2, 10, x=20),
    copied("b", 2, 10, x=200, source="a", source_step=9),
    copied("a", 3, 15, x=21, source="b", source_step=14),
]


def stretches(member_id, step: int) -> list[tuple]:
    found = schedule(EVENTS, member_id, step)
    return [(each.member_id, each.first_step, each.last_step, each.hyperparams["x"]) for each in found]


def test_the_schedule_follows_the_state_from_member_to_member() -> None:
    assert stretches("c", 12) == [("c", 0, 12, 3)]
    assert stretches("b", 14) == [("b", 0, 5, 2), ("a", 5, 9, 20), ("b", 10, 14, 200)]
    assert stretches("a", 17) == [("b", 0, 5, 2), ("a", 5, 9, 20), ("b", 10, 14, 200), ("a", 15, 17, 21)]


def test_the_schedule_has_as_many_updates_as_the_state_has_had() -> None:
    assert sum(each.updates for each in schedule(EVENTS, "a", 17)) == 5 + 4 + 4 + 2


def test_stretches_with_equal_values_are_one_and_empty_ones_none() -> None:
    events = [began(0, 1), went_on(0, 1, 5, x=1), went_on(0, 2, 10, x=2), went_on(0, 3, 10, x=3)]
    found = [(each.first_step, each.last_step, each.hyperparams["x"]) for each in schedule(events, 0, 12)]
    assert found == [(0, 10, 1), (10, 12, 3)]


def test_a_state_that_was_saved_before_a_decision_at_the_same_step_did_not_see_it() -> None:
    events = [began(0, 1), began(1, 2), went_on(0, 1, 5, x=10), copied(1, 1, 5, x=20, source=0, source_step=5)]
    found = [(each.member_id, each.hyperparams["x"]) for each in schedule(events, 1, 8)]
    assert found == [(0, 1), (1, 20)]


def test_what_a_source_took_over_after_its_state_was_saved_is_not_passed_on() -> None:
    events = [began(0, 1), began(1, 2), began(2, 3), copied(0, 1, 5, 10, source=2, source_step=5)]
    events.append(copied(1, 1, 5, x=20, source=0, source_step=5))
    assert [(each.member_id, each.hyperparams["x"]) for each in schedule(events, 1, 8)] == [(0, 1), (1, 20)]


def test_ancestry_is_the_exploits_on_the_way() -> None:
    assert [(event.member_id, event.source_id) for event in ancestry(EVENTS, "a")] == [
        ("a", "b"),
        ("b", "a"),
        ("a", "b"),
    ]
    assert ancestry(EVENTS, "c") == ()


def test_a_stranger_has_no_lineage() -> None:
    for function in (lambda: schedule(EVENTS, "d", 5), lambda: ancestry(EVENTS, "d")):
        with pytest.raises(ArgumentError, match="no event of member 'd'"):
            function()


def test_an_observation_is_the_gain_per_update_from_the_state_taken_over() -> None:
    events = [
        began(0, 1),
        went_on(0, 1, 5, x=1, performance=10.0),
        copied(0, 2, 10, x=2, source=1, source_step=10, scores=(12.0, 30.0)),
        went_on(0, 3, 14, x=3, performance=32.0),
    ]
    found = [(each.time, each.hyperparams["x"], each.gain) for each in observations(events, 0, "max")]
    assert found == [(2, 1, pytest.approx(0.4)), (3, 2, pytest.approx(0.5))]
    assert [each.gain for each in observations(events, 0, "min")] == [pytest.approx(-0.4), pytest.approx(-0.5)]


def test_row_24_what_began_or_ended_without_a_finite_score_is_no_observation() -> None:
    events = [
        went_on(0, 1, 5, x=1, performance=float("nan")),
        went_on(0, 2, 10, x=2, performance=1.0),
        went_on(0, 3, 15, x=2, performance=None),
        went_on(0, 4, 15, x=2, performance=2.0),
        went_on(0, 5, 15, x=2, performance=3.0),
    ]
    assert observations(events, 0, "max") == ()
