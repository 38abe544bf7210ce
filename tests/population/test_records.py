"""What a generation costs: nothing is looked for in history, nothing is sorted once for each member."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from everlearn.population import ledger, records
from everlearn.population.exploit import exploits
from everlearn.population.members import MemberId, Record, ranked, sources_above
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


def lived(**rules: Any) -> Population:
    """A population with a generation behind it, which has reported in the next; its history is watched."""
    population = new(SIZE, **rules)
    report(population, *map(float, range(SIZE)))
    decide(population)
    report(population, *map(float, reversed(range(SIZE))))
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
            assert [*found.sources_above(target)] == sources_above(target, population)
        for best in range(len(population) + 1):
            assert found.sources_among(best) == sum(each.can_be_source for each in found.ranking[:best])
