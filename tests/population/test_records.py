"""What a generation costs: nothing is looked for in history, nothing is done with all members for each of them."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from everlearn.core.errors import StateError
from everlearn.population import exploit, ledger, records
from everlearn.population.exploit import exploits
from everlearn.population.explore import ExploreStrategy
from everlearn.population.members import MemberId, Record, ranked
from everlearn.population.pb2 import PB2
from everlearn.population.population import Population
from everlearn.population.records import Records
from everlearn.testing.strategies import SEEDS, random_population
from tests.population.test_population import decide, new, report

SIZE = 20


class Watched(list):
    """A list that counts how often somebody goes through it."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__reversed__()

    def __getitem__(self, index: Any) -> Any:
        self.walks += isinstance(index, slice)
        return super().__getitem__(index)


def lived(size: int = SIZE, **rules: Any) -> Population:
    """A population with a generation behind it, which has reported in the next; its history is watched."""
    population = new(size, **rules)
    report(population, *map(float, range(size)))
    decide(population)
    report(population, *map(float, reversed(range(size))))
    population.ledger.events = Watched(population.ledger.events)
    return population


@pytest.mark.parametrize("mutate_all", [False, True])
@pytest.mark.parametrize("method", [*exploits])
def test_to_decide_and_to_enter_it_looks_through_no_history(
    monkeypatch: pytest.MonkeyPatch, method: str, mutate_all: bool
) -> None:
    population = lived(exploit_method=method, mutate_all=mutate_all)
    monkeypatch.setattr(ledger, "observations", lambda *arguments: pytest.fail("nobody learns from it"))
    decide(population)
    assert population.ledger.events.walks == 0


def test_for_a_rule_that_learns_each_member_s_own_history_is_looked_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    population, seen, observations = lived(explore_method="pb2"), {}, ledger.observations

    def counted(events: Any, member_id: MemberId, mode: Any) -> Any:
        assert seen.setdefault(member_id, events) is events
        assert {each.member_id for each in events} == {member_id}
        return observations(events, member_id, mode)

    monkeypatch.setattr(ledger, "observations", counted)
    decide(population)
    assert [*seen] == [*range(SIZE)]
    assert population.ledger.events.walks == 0


def random_population_of_samples(size: int) -> Records:
    """Members whose scores can be tested."""
    return Records(Record(number, {}, float(number), samples=(number - 1.0, number + 1.0)) for number in range(size))


def calls(function: Callable[[], Any]) -> int:
    """How often a function calls others, or goes on with a generator."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("gap", [0.0, 0.5, 1e9])
@pytest.mark.parametrize("method", [*exploits])
def test_a_generation_costs_what_its_members_cost_and_not_their_square(method: str, gap: float) -> None:
    rules = {"exploit_method": method, "absolute_gap": gap}
    few, many = (
        calls(lambda size=size: lived(size, **rules).decide(np.random.default_rng(0), lambda checkpoint: None))
        for size in (50, 200)
    )
    assert many < 4.5 * few


def test_nobody_is_tested_but_the_one_who_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    population, tests = random_population_of_samples(SIZE), []

    def counted(*samples: Any) -> float:
        tests.append(samples)
        return 0.0

    monkeypatch.setattr(exploit, "p_value", counted)
    chosen = [exploit.WelchTest().sources(each, population, np.random.default_rng(0)) for each in population]
    assert any(chosen)
    assert len(tests) <= SIZE
    assert sum(map(len, chosen)) > SIZE
    assert len(tests) > SIZE


@dataclass(frozen=True)
class Around(ExploreStrategy):
    """A rule of a user's around another one, which says nothing of what it looks at."""

    seen: list[int] = field(default_factory=list)

    def explored(self, hyperparams: Any, space: Any, population: Any, generator: Any) -> dict[str, Any]:
        self.seen.append(sum(len(record.observations) for record in population))
        return PB2(candidates=5).explored(hyperparams, space, population, generator)


def test_a_rule_that_does_not_say_otherwise_sees_what_was_observed() -> None:
    rule = Around()
    population = lived(explore_method=rule, mutate_all=True)
    decide(population)
    report(population, *map(float, range(SIZE)))
    decide(population)
    assert rule.seen[-1] > 0


@pytest.mark.parametrize("mutate_all", [False, True])
@pytest.mark.parametrize("method", [*exploits])
def test_a_generation_is_sorted_at_most_once(monkeypatch: pytest.MonkeyPatch, method: str, mutate_all: bool) -> None:
    population, sorts = lived(exploit_method=method, mutate_all=mutate_all), []

    def counted(population: Any) -> list[Record]:
        sorts.append(1)
        return ranked(population)

    monkeypatch.setattr(records, "ranked", counted)
    population.decide(np.random.default_rng(0), lambda checkpoint: None)
    assert len(sorts) <= 1


def test_a_member_is_found_without_asking_the_others() -> None:
    population = new(SIZE)
    tasks = population.tasks()
    population.ledger.members = Watched(population.ledger.members)
    for task in tasks:
        population.report([task.failed("why")])
    assert population.ledger.members.walks == 0


def test_records_say_what_the_definitions_say() -> None:
    for population in map(random_population, SEEDS):
        found = Records.of(population)
        assert Records.of(found) is found
        assert [*found.ranking] == ranked(population)
        for target in population:
            assert found[found.positions[target.member_id]] == target
            assert found.ranking[found.ranks[target.member_id]] == target
            above = [each for each in ranked(population) if each.can_be_source_of(target)]
            assert [*found.sources[: found.sources_above(target.score)]] == above
        for best in range(len(population) + 1):
            assert found.sources_among(best) == sum(each.can_be_source for each in found.ranking[:best])


def test_sources_have_a_state_and_a_higher_score() -> None:
    found = Records([Record(0, {}, 1.0), Record(1, {}, 3.0, has_state=False), Record(2, {}, 2.0), Record(3, {}, None)])
    assert [record.member_id for record in found.sources] == [2, 0]
    assert [found.sources_above(score) for score in (0.5, 1.0, 2.0, None)] == [2, 1, 0, 2]


@pytest.mark.parametrize("method", ["truncation", "binary_tournament", "k_tournament", "t_test"])
def test_a_member_without_a_record_is_refused_and_not_drawn_for(method: str) -> None:
    generator = np.random.default_rng(0)
    for population in [(), (Record(0, {}, 1.0),), random_population(0)]:
        with pytest.raises(StateError, match="no record of member 'other', only of"):
            exploits.build(method).sources(Record("other", {}, None), population, generator)
    assert generator.bit_generator.state == np.random.default_rng(0).bit_generator.state
