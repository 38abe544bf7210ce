import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from everlearn import PBTScheduler, PopulationMember
from everlearn.core.digest import identical
from everlearn.core.errors import ArgumentError, ConfigError, OrderError, StateError
from tests.population.populations import SPACE, VALUES, decide, new_scheduler, origin, parameters, report


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., PBTScheduler]:
    return partial(new_scheduler, tmp_path / "files")


# --- the beginning ----------------------------------------------------------------------------------------------------


def test_a_population_is_drawn_from_the_seed_alone(make, untouched_generators: None) -> None:
    first, second, other = (make(6, seed) for seed in (1, 1, 2))
    assert [member.hyperparams for member in first.members] == [member.hyperparams for member in second.members]
    assert [member.hyperparams for member in first.members] != [member.hyperparams for member in other.members]
    assert [member.member_id for member in first.members] == [0, 1, 2, 3, 4, 5]
    for member in first.members:
        assert isinstance(member, PopulationMember)
        assert (member.performance, member.step, member.checkpoint_path, member.parent) == (None, 0, None, None)
        assert (member.generation, member.history) == (0, [])
        assert all(config.allowed.contains(member.hyperparams[config.name]) for config in SPACE)


def test_row_40_a_seed_that_is_not_given_is_drawn_and_told(make, untouched_generators: None) -> None:
    unseeded = make(seed=None)
    again = make(seed=unseeded.seed)
    assert [member.hyperparams for member in unseeded.members] == [member.hyperparams for member in again.members]
    assert unseeded.seed != make(seed=None).seed


def test_a_population_may_be_given_as_members_or_as_values(make) -> None:
    scheduler = make(2, start=False)
    own = PopulationMember("left", {**VALUES, "learning_rate": 1}, step=3)
    with pytest.raises(ConfigError, match="member 'left': learning_rate=1 is outside"):
        scheduler.initialize_population([own, VALUES])
    own.hyperparams["learning_rate"] = 1e-4
    assert scheduler.initialize_population([own, VALUES])[0] is own
    assert [member.member_id for member in scheduler.members] == ["left", 1]
    with pytest.raises(OrderError, match="has its population already"):
        scheduler.initialize_population()


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ([VALUES], "initial has 1 members, population_size=2"),
        ([PopulationMember(1, VALUES), VALUES], "Two members have the id 1"),
        ([PopulationMember("a", VALUES), PopulationMember("A", VALUES)], "Two members have the id 'A'"),
        ([PopulationMember("", VALUES), VALUES], "member_id='' is none"),
        ([VALUES, {**VALUES, "gamma": 0.9}], "member 1: 'gamma' is no hyper-parameter here"),
        ([VALUES, {"learning_rate": 1e-3}], "member 1: 'n_epochs' is missing"),
    ],
)
def test_row_23_a_population_that_cannot_be_meant_is_refused(make, initial, message: str) -> None:
    scheduler = make(2, start=False)
    with pytest.raises((ConfigError, ArgumentError), match=message):
        scheduler.initialize_population(initial)
    assert scheduler.members == []


def test_row_25_a_population_of_one_trains_with_a_notice(make, caplog) -> None:
    scheduler = make(1)
    assert "A population of one trains as a single agent" in caplog.text
    report(scheduler, [1.0])
    (member,) = scheduler.members
    assert scheduler.should_exploit_and_explore(member)
    assert scheduler.exploit_and_explore(member) == (None, member.hyperparams, None)


# --- when -------------------------------------------------------------------------------------------------------------


def test_the_interval_counts_from_the_last_decision(make) -> None:
    scheduler = make(2, perturbation_interval=5)
    due = []
    for step in (3, 6, 8, 10, 11, 13):
        report(scheduler, [1.0, 2.0], step)
        due.append(scheduler.should_exploit_and_explore(scheduler.members[1]))
        if due[-1]:
            decide(scheduler)
    assert due == [False, True, False, False, True, False]


def test_nothing_is_due_before_the_burn_in_is_over_or_before_a_report(make) -> None:
    scheduler = make(2, perturbation_interval=5, burn_in=12)
    member = scheduler.members[0]
    assert not scheduler.should_exploit_and_explore(member)
    for step, is_due in ((5, False), (11, False), (12, True)):
        report(scheduler, [1.0, 2.0], step)
        assert scheduler.should_exploit_and_explore(member) is is_due
    decide(scheduler)
    assert not scheduler.should_exploit_and_explore(member)


def test_a_member_that_counts_anew_is_due_after_an_interval(make) -> None:
    scheduler = make(2)
    report(scheduler, [1.0, 2.0], 50)
    decide(scheduler)
    report(scheduler, [1.0, 2.0], 2)
    assert not scheduler.should_exploit_and_explore(scheduler.members[0])
    report(scheduler, [1.0, 2.0], 7)
    assert scheduler.should_exploit_and_explore(scheduler.members[0])


def test_nothing_is_decided_before_enough_have_reported_in_the_generation(make) -> None:
    scheduler = make(4, ready_percentage=0.75)
    worst, *others = scheduler.members
    scheduler.update_performance(worst, 0.0, 5, parameters(0))
    scheduler.update_performance(others[0], 1.0, 5, parameters(1))
    before = dict(worst.hyperparams)
    assert scheduler.exploit_and_explore(worst) == (None, before, None)
    scheduler.update_performance(others[1], 2.0, 5, parameters(2))
    assert origin(scheduler.exploit_and_explore(worst)) == 2.0


def test_a_member_is_decided_about_once_per_report(make) -> None:
    scheduler = make(4)
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    decide(scheduler)
    member, events = scheduler.members[1], len(scheduler.events)
    report(scheduler, [0.0, 1.0, 2.0, 3.0], 10)
    scheduler.exploit_and_explore(member)
    for _ in range(20):
        assert scheduler.exploit_and_explore(member) == (None, member.hyperparams, None)
    assert (member.generation, len(scheduler.events)) == (2, events + 1)
    assert scheduler.get_stats()["pbt/failed_ready_checks"] == 0


def test_readiness_is_counted_in_every_generation_anew(make) -> None:
    scheduler = make(4)
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    decide(scheduler)
    first = scheduler.members[0]
    scheduler.update_performance(first, 0.0, 10, parameters(0))
    assert scheduler.exploit_and_explore(first).parameters is None
    assert scheduler.get_stats()["pbt/failed_ready_checks"] == 1
    assert first.generation == 1


def test_a_score_that_is_not_finite_counts_as_reported(make) -> None:
    scheduler = make(4, ready_percentage=1.0)
    report(scheduler, [math.nan, 1.0, None, 3.0])
    assert origin(scheduler.exploit_and_explore(scheduler.members[2])) == 3.0


def test_nobody_waits_for_the_dead_for_ever(make) -> None:
    scheduler = make(4, ready_check_max_wait=3, min_ready_members=2)
    first, second = scheduler.members[:2]
    scheduler.update_performance(first, 0.0, 5, parameters(0))
    scheduler.update_performance(second, 1.0, 5, parameters(1))
    assert [origin(scheduler.exploit_and_explore(first)) for _ in range(3)] == [None, None, 1.0]
    assert scheduler.get_stats()["pbt/failed_ready_checks"] == 0


def test_too_few_are_never_enough(make) -> None:
    scheduler = make(4, ready_check_max_wait=3, min_ready_members=3)
    first, second = scheduler.members[:2]
    scheduler.update_performance(first, 0.0, 5, parameters(0))
    scheduler.update_performance(second, 1.0, 5, parameters(1))
    assert [scheduler.exploit_and_explore(first).parameters for _ in range(9)] == [None] * 9
    assert scheduler.get_stats()["pbt/failed_ready_checks"] == 9


def test_the_dead_take_no_place_at_the_bottom(make) -> None:
    """A member that died in the first generation does not keep the worst of the living from copying."""
    scheduler = make(5, truncation_ratio=0.2)
    report(scheduler, [-9.0, 1.0, 2.0, 3.0, 4.0])
    decide(scheduler)
    living = scheduler.members[1:]
    for member in living:
        scheduler.update_performance(member, float(member.member_id), 10, parameters(member.member_id))
    assert [origin(scheduler.exploit_and_explore(member)) for member in living] == [4.0, None, None, None]


# --- what -------------------------------------------------------------------------------------------------------------


def test_b28_the_answer_is_a_named_triple(make) -> None:
    scheduler = make()
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    result = scheduler.exploit_and_explore(scheduler.members[0])
    assert result._fields == ("parameters", "hyperparams", "checkpoint_format")
    given_parameters, hyperparams, checkpoint_format = result
    assert identical(given_parameters, parameters(3.0))
    assert hyperparams == scheduler.members[0].hyperparams != scheduler.members[3].hyperparams
    assert checkpoint_format == "everlearn_v3"
    assert scheduler.exploit_and_explore(scheduler.members[1]) == (None, scheduler.members[1].hyperparams, None)


def test_b31_the_worst_of_four_copies_the_best_and_nobody_else_does(make) -> None:
    scheduler = make()
    report(scheduler, [2.0, 0.0, 3.0, 1.0])
    assert list(map(origin, decide(scheduler))) == [None, 2.0, None, None]
    member = scheduler.members[1]
    assert (member.parent, member.generation, member.step) == (2, 1, 5)
    assert member.checkpoint_path == scheduler.members[2].checkpoint_path


def test_lower_is_better_where_that_is_said(make) -> None:
    scheduler = make(metric_mode="min")
    report(scheduler, [2.0, 0.0, 3.0, 1.0])
    assert list(map(origin, decide(scheduler))) == [None, None, 1.0, None]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_b31_row_24_a_score_that_is_not_finite_ranks_last_and_is_never_copied(make, missing, mode: str) -> None:
    scheduler = make(metric_mode=mode, ready_percentage=1.0)
    report(scheduler, [1.0, missing, 1.5, 1.2])
    assert [origin(result) is not None for result in decide(scheduler)] == [False, True, False, False]
    assert scheduler.members[1].parent in (0, 2)
    assert f"Its performance is {missing}" in scheduler.incidents[0].what


def test_scores_since_the_last_decision_are_what_a_test_compares(make) -> None:
    """A score that is not finite is none of them."""
    scheduler = make(2, exploit_method="t_test")
    for step, (low, high) in enumerate([(90.0, -90.0), (0.0, math.nan), (0.1, 10.0), (0.2, 10.1)], start=1):
        report(scheduler, [low, high], step)
        if step == 1:
            assert list(map(origin, decide(scheduler))) == [None, None]
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 1.0


def test_a_member_that_is_never_asked_about_counts_by_its_reports(make) -> None:
    scheduler = make(2)
    for step in (5, 10):
        report(scheduler, [0.0, 1.0], step)
        assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 1.0


def test_members_that_report_and_ask_one_after_the_other_are_all_decided_about(make) -> None:
    scheduler = make(4)
    for step in range(1, 13):
        for member in scheduler.members:
            scheduler.update_performance(member, float(member.member_id), step, parameters(member.member_id))
            if scheduler.should_exploit_and_explore(member):
                scheduler.exploit_and_explore(member)
    assert [member.generation for member in scheduler.members] == [2, 2, 2, 2]


def test_decisions_of_one_generation_see_the_same_scores(make) -> None:
    """The second worst does not become the worst because the worst has copied already."""
    scheduler = make(10, truncation_ratio=0.2)
    report(scheduler, map(float, range(10)))
    assert [origin(result) is not None for result in decide(scheduler)] == [True] * 2 + [False] * 8


def test_hyperparameters_change_after_an_exploit_only(make) -> None:
    scheduler = make()
    report(scheduler, [2.0, 0.0, 3.0, 1.0])
    before = [dict(member.hyperparams) for member in scheduler.members]
    decide(scheduler)
    assert [member.hyperparams == old for member, old in zip(scheduler.members, before, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_everybody_but_the_best_explores_where_that_is_asked_for(make) -> None:
    scheduler = make(mutate_all=True)
    report(scheduler, [2.0, 0.0, 3.0, 1.0])
    before = [dict(member.hyperparams) for member in scheduler.members]
    decide(scheduler)
    unchanged = [member.hyperparams == old for member, old in zip(scheduler.members, before, strict=True)]
    assert unchanged == [False, False, True, False]


def test_what_is_copied_are_the_values_that_earned_the_score(make) -> None:
    """And not those that the source has explored since."""
    scheduler = make(mutate_all=True, exploit_method={"kind": "k_tournament", "size": 3}, explore_method="perturb")
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    scheduler.members[3].checkpoint_path.unlink()
    earned = scheduler.members[2].hyperparams["learning_rate"]
    scheduler.exploit_and_explore(scheduler.members[2])
    assert scheduler.members[2].hyperparams["learning_rate"] != earned
    result = scheduler.exploit_and_explore(scheduler.members[0])
    assert origin(result) == 2.0
    assert result.hyperparams["learning_rate"] in (pytest.approx(earned * 1.2), pytest.approx(earned / 1.2))


def test_what_is_returned_is_the_callers_own(make) -> None:
    scheduler = make()
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    result = scheduler.exploit_and_explore(scheduler.members[0])
    result.hyperparams["learning_rate"] = 99.0
    result.parameters["policy"]["weight"].zero_()
    assert scheduler.members[0].hyperparams["learning_rate"] < 1
    report(scheduler, [0.0, 1.0, 2.0, 3.0], 10)
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 3.0


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {"policy", "policy.optimizer", "vgs_state"}),
        ({"optimizer_exploit_strategy": "reset"}, {"policy", "vgs_state"}),
        ({"copied": "weights"}, {"policy"}),
    ],
)
def test_b27_what_is_copied_is_declared(make, changes, parts: set) -> None:
    scheduler = make(2, **changes)
    for member in scheduler.members:
        given_parameters = {**parameters(member.member_id), "policy.optimizer": {"state": {}, "param_groups": []}}
        scheduler.update_performance(member, float(member.member_id), 5, given_parameters)
    assert scheduler.exploit_and_explore(scheduler.members[0]).parameters.keys() == parts


def test_b27_the_policy_is_compared_with_the_sources(make) -> None:
    scheduler = make(2)
    report(scheduler, [0.0, 1.0])
    member = scheduler.members[0]
    with pytest.raises(OrderError, match="was given no parameters"):
        scheduler.verify_exploit(member, parameters(1))
    result = scheduler.exploit_and_explore(member)
    scheduler.verify_exploit(member, result.parameters)
    with pytest.raises(StateError, match="is not that of member 1"):
        scheduler.verify_exploit(member, parameters(0))


def test_without_a_directory_the_caller_copies(make) -> None:
    scheduler = make(2, checkpoint_dir=None)
    for member in scheduler.members:
        scheduler.update_performance(member, float(member.member_id), 5)
    result = scheduler.exploit_and_explore(scheduler.members[0])
    assert (result.parameters, result.checkpoint_format, scheduler.members[0].parent) == (None, None, 1)
    assert result.hyperparams != scheduler.members[1].hyperparams
    with pytest.raises(ArgumentError, match="there is no place for parameters"):
        scheduler.update_performance(scheduler.members[0], 1.0, 6, model_parameters=parameters(0))


def test_a_population_that_gives_nothing_to_copy_is_told_once(make) -> None:
    scheduler = make(2)
    for member in scheduler.members:
        scheduler.update_performance(member, float(member.member_id), 5)
    with pytest.warns(UserWarning, match="No member has given model_parameters"):
        assert scheduler.exploit_and_explore(scheduler.members[0]).parameters is None
    assert scheduler.members[0].parent is None
    assert scheduler.exploit_and_explore(scheduler.members[1]).parameters is None


# --- reports ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"performance": "high"}, "performance='high' is no number"),
        ({"performance": torch.ones(2)}, "is no number"),
        ({"step": -1}, "step=-1 is no count"),
        ({"step": 1.5}, "step=1.5 is no count"),
        ({"step": True}, "step=True is no count"),
        ({"model_parameters": parameters(1), "model_state_dict": {}}, "Give the first"),
        ({"model_parameters": {}}, "has no parameters to keep"),
        ({"model_parameters": [1]}, "has no parameters to keep"),
    ],
)
def test_a_report_that_cannot_be_meant_is_refused(make, arguments, message: str) -> None:
    scheduler = make(2)
    with pytest.raises(ArgumentError, match=message):
        scheduler.update_performance(scheduler.members[0], **{"performance": 1.0, "step": 5, **arguments})
    assert scheduler.members[0].history == []


@pytest.mark.parametrize("score", [np.float32(1.5), torch.tensor(1.5), 1.5])
def test_a_score_may_be_any_number(make, score) -> None:
    scheduler = make(2)
    scheduler.update_performance(scheduler.members[0], score, np.int64(5))
    assert (scheduler.members[0].performance, type(scheduler.members[0].performance)) == (1.5, float)


def test_a_member_of_another_population_is_refused(make) -> None:
    scheduler, other = make(2), make(2)
    methods = (scheduler.should_exploit_and_explore, scheduler.exploit_and_explore, scheduler.schedule)
    for method in (*methods, scheduler.ancestry):
        with pytest.raises(ArgumentError, match="Member 0 is none of this scheduler's"):
            method(other.members[0])


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_schedule_and_the_ancestry_of_a_member(make) -> None:
    scheduler = make(2)
    worse, better = scheduler.members
    first = [dict(member.hyperparams) for member in scheduler.members]
    report(scheduler, [0.0, 1.0], 5)
    decide(scheduler)
    report(scheduler, [2.0, 1.0], 12)
    found = [(one.member_id, one.first_step, one.last_step, one.hyperparams) for one in scheduler.schedule(worse)]
    assert found == [(1, 0, 5, first[1]), (0, 5, 12, worse.hyperparams)]
    assert [(event.member_id, event.source_id) for event in scheduler.ancestry(worse)] == [(0, 1)]
    assert scheduler.ancestry(better) == ()
    assert [one.updates for one in scheduler.schedule(better)] == [12]


def test_the_history_of_a_member_is_its_reports(make) -> None:
    scheduler = make(2)
    report(scheduler, [0.0, 1.0], 5)
    decide(scheduler)
    report(scheduler, [2.0, math.inf], 10)
    assert [(one.step, one.performance, one.generation) for one in scheduler.members[1].history] == [
        (5, 1.0, 0),
        (10, math.inf, 1),
    ]


def test_the_latest_thousand_incidents_are_kept(make) -> None:
    scheduler = make(1)
    for step in range(1005):
        scheduler.update_performance(scheduler.members[0], None, step)
    assert [len(scheduler.incidents), scheduler.get_stats()["pbt/incidents"]] == [1000, 1005]
    assert [scheduler.incidents[place].step for place in (0, -1)] == [5, 1004]


def test_the_statistics(make) -> None:
    scheduler = make()
    assert scheduler.get_stats() == {
        "pbt/population_size": 4,
        "pbt/generation": 0,
        "pbt/ready_members": 0,
        "pbt/failed_ready_checks": 0,
        "pbt/exploitation_count": 0,
        "pbt/exploration_count": 0,
        "pbt/exploits_skipped": 0,
        "pbt/exploits_with_vgs_state": 0,
        "pbt/incidents": 0,
    }
    report(scheduler, [0.0, 1.0, math.nan, 5.0])
    assert scheduler.get_stats()["pbt/ready_members"] == 4
    decide(scheduler)
    stats = scheduler.get_stats()
    assert {name: stats[f"pbt/{name}"] for name in ("mean_performance", "min_performance", "max_performance")} == {
        "mean_performance": 2.0,
        "min_performance": 0.0,
        "max_performance": 5.0,
    }
    assert stats["pbt/std_performance"] == pytest.approx(math.sqrt(14 / 3))
    assert (stats["pbt/exploitation_count"], stats["pbt/exploits/everlearn_v3"]) == (1, 1)
    assert (stats["pbt/exploits_with_vgs_state"], stats["pbt/exploit_success_rate"]) == (1, 1.0)
    assert (stats["pbt/exploration_count"], stats["pbt/generation"], stats["pbt/ready_members"]) == (1, 1, 0)
