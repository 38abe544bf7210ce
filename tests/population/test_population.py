"""The fold: what was reported and decided, entered one after the other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from everlearn import HyperparamConfig, PBTConfig, PopulationMember
from everlearn.core.errors import StateError
from everlearn.population.lineage import ancestry
from everlearn.population.population import Population
from everlearn.population.scheduler_statistics import statistics_of
from everlearn.population.segments import Checkpoint, Result, Task
from everlearn.population.trainer import first_seeds


def new(size: int = 4, **rules: Any) -> Population:
    config = PBTConfig(
        size, 2, [HyperparamConfig("rate", 0.1, 1.0)], checkpoint_dir=None, **{"truncation_ratio": 0.25, **rules}
    )
    members = [PopulationMember(number, {"rate": 0.1 * (number + 1)}) for number in range(size)]
    return Population(config, members, range(size), 8)


def came_through(task: Task, score: float | None, *samples: float) -> Result:
    name = f"member-{task.member_id}-generation-{task.generation}-0.zip"
    checkpoint = Checkpoint(name, name, f"policy of {name}", ("policy", "vgs_state"))
    return Result(task.member_id, task.generation, task.step + task.updates, score, samples, 10, 1.5, checkpoint)


def report(population: Population, *scores: float | None) -> None:
    tasks = population.tasks()
    population.report([came_through(task, score) for task, score in zip(tasks, scores, strict=True)])


def decide(population: Population, seed: int = 0) -> dict:
    decided = population.decide(np.random.default_rng(seed), lambda checkpoint: None)
    population.settle(decided)
    return {each.event.member_id: each for each in decided}


def test_a_task_says_what_a_member_goes_on_from() -> None:
    population = new()
    assert population.tasks()[1] == Task(1, 0, 0, 2, 1, {"rate": 0.2})
    report(population, 1.0, 2.0, 3.0, 4.0)
    assert population.tasks() == []
    copy = decide(population)[0].copy
    first, second = population.tasks()[:2]
    assert (first.copy, first.copy.source_id, first.copy.checkpoint.name) == (copy, 3, "member-3-generation-0-0.zip")
    assert (first.checkpoint.name, first.step, first.generation) == ("member-0-generation-0-0.zip", 2, 1)
    assert (second.copy, second.checkpoint.name) == (None, "member-1-generation-0-0.zip")


def test_row_23_the_seeds_of_members_are_their_own() -> None:
    assert len(set(first_seeds(1000, np.random.default_rng(0)))) == 1000


def test_of_two_results_of_a_segment_the_first_counts() -> None:
    population = new()
    task = population.tasks()[0]
    population.report([came_through(task, 1.0)])
    population.report([came_through(task, 9.0)])
    assert (population.members[0].performance, population.env_steps) == (1.0, 10)
    assert [each.member_id for each in population.tasks()] == [1, 2, 3]


@pytest.mark.parametrize("change", [{"generation": 1}, {"member_id": 9}])
def test_a_result_of_no_segment_is_refused(change) -> None:
    population = new()
    with pytest.raises(StateError, match="There is no segment of member"):
        population.report([replace(came_through(population.tasks()[0], 1.0), **change)])


def test_a_source_that_copies_somebody_itself_gives_the_state_that_it_had() -> None:
    """In the same generation: a copies b, which copies c."""
    population = new(exploit_method={"kind": "k_tournament", "size": 1, "elitism": 0})
    report(population, 1.0, 2.0, 3.0, 4.0)
    for seed in range(100):
        decided = population.decide(np.random.default_rng(seed), lambda checkpoint: None)
        source_of = {each.event.member_id: each.event.source_id for each in decided}
        chains = [member for member, source in source_of.items() if source_of.get(source) is not None]
        if chains:
            break
    population.settle(decided)
    member = chains[0]
    source = source_of[member]
    copy = population.places[member].copy
    assert copy.checkpoint.name == f"member-{source}-generation-0-0.zip"
    assert copy.checkpoint == population.places[source].checkpoint
    event = next(each.event for each in decided if each.event.member_id == member)
    assert (event.source_step, event.source_performance) == (2, float(source + 1))
    assert [each.source_id for each in ancestry(population.ledger.events, member)] == [source]
    assert population.needed() == {f"member-{number}-generation-0-0.zip" for number in range(4)}


def test_the_explored_values_are_next_to_those_of_the_source() -> None:
    """Those by which it came by its score, although it has explored in the same generation."""
    population = new(explore_method="perturb", mutate_all=True)
    report(population, 1.0, 2.0, 3.0, 4.0)
    first = decide(population)
    assert first[0].event.hyperparams["rate"] in (pytest.approx(0.4 / 1.2), pytest.approx(0.4 * 1.2))
    assert [first[number].event.explored for number in range(4)] == [True, True, True, False]
    report(population, 5.0, 6.0, 7.0, 4.0)
    source = dict(population.members[2].hyperparams)
    event = decide(population)[3].event
    assert event.source_id == 2
    assert event.hyperparams["rate"] in (pytest.approx(source["rate"] / 1.2), pytest.approx(source["rate"] * 1.2))


def test_what_is_counted() -> None:
    population = new()
    report(population, 1.0, 2.0, 3.0, 4.0)
    decide(population)
    stats = statistics_of(population.ledger)
    assert (
        stats["pbt/exploitation_count"] == stats["pbt/exploration_count"] == stats["pbt/exploits_with_vgs_state"] == 1
    )
    assert (stats["pbt/exploits_skipped"], stats["pbt/exploit_success_rate"], stats["pbt/incidents"]) == (0, 1.0, 0)
    report(population, 1.0, 2.0, 3.0, 4.0)
    population.settle(population.decide(np.random.default_rng(0), lambda checkpoint: "it is damaged"))
    stats = statistics_of(population.ledger)
    assert (stats["pbt/exploits_skipped"], stats["pbt/exploit_success_rate"], stats["pbt/incidents"]) == (1, 0.5, 3)
    assert (population.env_steps, population.places[0].seconds) == (80, 3.0)


def test_weights_alone_come_without_the_statistics_of_variance_scaling() -> None:
    population = new(copied="weights", optimizer_exploit_strategy="reset")
    report(population, 1.0, 2.0, 3.0, 4.0)
    copy = decide(population)[0].copy
    assert (copy.copied, copy.optimizer) == ("weights", "reset")
    assert statistics_of(population.ledger)["pbt/exploits_with_vgs_state"] == 0


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(("own", "other", "copies"), [(1.0, 2.0, True), (1.0, 1.05, False)])
def test_the_t_test_compares_the_episodes_of_the_last_segment(
    mode: str, own: float, other: float, copies: bool
) -> None:
    population = new(2, exploit_method="t_test", metric_mode=mode)
    sign = 1 if mode == "max" else -1
    noise = (-0.2, -0.1, 0.0, 0.1, 0.2)
    for task, score in zip(population.tasks(), (own, other), strict=True):
        samples = [sign * (score + each) for each in noise]
        population.report([came_through(task, sign * score, float("nan"), *samples)])
    assert [each.event.source_id for each in decide(population).values()] == [1 if copies else None, None]


def test_the_rescued_take_the_best_whatever_the_rule_says() -> None:
    population = new(exploit_method="none")
    report_failing(population, {1})
    assert [standing.has_state for standing in population.ledger.standings.values()] == [True, False, True, True]
    decided = decide(population)
    assert [each.event.source_id for each in decided.values()] == [None, 3, None, None]
    assert population.places[1].copy.source_id == 3


def test_a_copy_that_was_not_carried_out_is_tried_again_where_there_is_no_better_one() -> None:
    population = new(2, truncation_ratio=0.5)
    report(population, 1.0, 2.0)
    copy = decide(population)[0].copy
    report_failing(population, {0}, score=None)
    assert decide(population)[0].copy is None
    assert population.tasks()[0].copy == copy
    report(population, 5.0, 4.0)
    assert population.places[0].copy is None


def report_failing(population: Population, failing: set, score: float | None = 1.0) -> None:
    """Everybody else has a score that rises with the number."""
    for task in population.tasks():
        if task.member_id in failing:
            population.report([task.failed("why")])
        else:
            population.report([came_through(task, None if score is None else score + task.member_id)])
