"""Populations of toys to their end, whatever happens on the way; rows 22 to 27 and 29 of the failure-mode table."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from everlearn import HyperparamConfig, PBTConfig
from everlearn.core.errors import ConfigError, EverlearnError, StateError
from everlearn.population.executors import Executor, Inline
from everlearn.population.lineage import Event
from everlearn.population.population import PopulationFailed
from everlearn.population.store import FILE
from everlearn.population.trainer import PopulationTrainer, Watcher, replayed
from everlearn.testing.populations import RATE, ToyRunner, history, toy_rules, toy_trainer
from tests.population.test_journal_database import said


def run(
    directory: Path, rules: PBTConfig, updates: int = 6, watcher: Watcher | None = None, **misfortunes: str
) -> PopulationTrainer:
    """A population to its end; ``m1g2="nan"`` is what happens to member 1 in generation 2."""
    trainer = toy_trainer(directory, rules, updates)
    happening = {name[1:].replace("g", ":"): what for name, what in misfortunes.items()}
    assert trainer.run(Inline(partial(ToyRunner, misfortunes=happening), directory), lambda: False, watcher)
    return trainer


def events_of(trainer: PopulationTrainer, member_id: int) -> list[Event]:
    """Without its beginning."""
    return [each for each in trainer.population.ledger.events if each.member_id == member_id][1:]


def exploits(trainer: PopulationTrainer) -> list[Event]:
    return [each for each in trainer.population.ledger.events if each.source_id is not None]


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("member-*")}


class Once(Watcher):
    """Does something once, at the end of a generation's segments or after its decisions."""

    def __init__(self, generation: int, act: Callable[[Any], None], *, after_decision: bool = False) -> None:
        self._generation, self._act, self._after = generation, act, after_decision

    def reported(self, population, results) -> None:
        if not self._after and (population.generation, len(population.results)) == (self._generation, 4):
            self._act(population)

    def decided(self, population, decided, seconds) -> None:
        if self._after and population.generation == self._generation + 1:
            self._act(population)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"mutate_all": True, "exploit_method": "k_tournament", "explore_method": "pb2"}])
def test_row_25_a_population_of_one_trains_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more
) -> None:
    caplog.set_level(logging.WARNING)
    trainer = run(tmp_path, toy_rules(1, **more))
    run(tmp_path, toy_rules(1, **more))
    assert [record.message for record in caplog.records] == [
        "A population of one trains as a single agent: there is nobody to copy."
    ]
    assert [event.source_id for event in events_of(trainer, 0)] == [None, None]
    assert len({event.hyperparams["rate"] for event in trainer.population.ledger.events}) == 1
    assert trainer.population.best() is trainer.population.members[0]


def test_b31_of_two_the_worse_takes_over_the_better(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(2))
    copies = exploits(trainer)
    assert len(copies) == 2
    for event in copies:
        assert event.source_performance > event.performance
        assert event.source_id != event.member_id


def test_row_25_the_last_segment_is_shorter_where_the_interval_does_not_fit(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(2), updates=5)
    assert [event.step for event in events_of(trainer, 0)] == [2, 4]
    assert [member.step for member in trainer.population.members] == [5, 5]


def test_a_population_shorter_than_the_interval_is_never_decided_about(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(2), updates=1)
    assert exploits(trainer) == []
    assert [member.step for member in trainer.population.members] == [1, 1]


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", [0, 1, 2])  # the last is the one after which nothing is decided
def test_row_26_where_all_fail_their_causes_are_told_files_stay_and_all_try_again(
    tmp_path: Path, generation: int
) -> None:
    undisturbed = run(tmp_path / "a", toy_rules(3))
    directory = tmp_path / "b"
    failing = {f"m{member}g{generation}": "raise" for member in range(3)}
    for attempt in range(2):
        with pytest.raises(PopulationFailed, match=f"All members have failed in generation {generation}") as caught:
            run(directory, toy_rules(3), **failing)
        for member in range(3):
            assert f"  member {member}: ValueError: a misfortune\n" in str(caught.value)
        trainer = toy_trainer(directory, toy_rules(3), 6)
        assert not trainer.population.is_over
        assert files(directory) >= trainer.population.needed()
        assert len(files(directory)) >= (3 if generation else 0)
        failed = [incident for incident in trainer.population.ledger.incidents if "It has failed" in incident.what]
        assert len(failed) == 3 * (attempt + 1)
    assert history(run(directory, toy_rules(3))) == history(undisturbed)


def test_row_26_a_population_of_one_that_fails_stops(tmp_path: Path) -> None:
    with pytest.raises(PopulationFailed, match="member 0: ValueError: a misfortune"):
        run(tmp_path, toy_rules(1), m0g1="raise")


def test_row_22_a_member_that_fails_again_and_again_is_replaced_each_time(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(4, exploit_method="none"), 10, **{f"m1g{number}": "raise" for number in range(4)})
    events = events_of(trainer, 1)
    assert all(event.source_id in (0, 2, 3) and event.performance is None for event in events)
    assert trainer.population.ledger.member(1).step == 2  # of its last segment, the only one that it came through
    assert {event.member_id for event in exploits(trainer)} == {1}
    assert [member.step for member in trainer.population.members if member.member_id != 1] == [10, 10, 10]


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "none"])
@pytest.mark.parametrize("method", ["truncation", "k_tournament"])
def test_row_24_a_score_that_is_none_ranks_last_and_is_never_a_source(
    tmp_path: Path, mode: str, score: str, method: str
) -> None:
    trainer = run(tmp_path, toy_rules(4, metric_mode=mode, exploit_method=method), 4, m0g0=score)
    event = events_of(trainer, 0)[0]
    expected = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "none": None}[score]
    assert repr(event.performance) == repr(expected)
    assert event.source_id in (1, 2, 3)
    assert all(each.source_id != 0 for each in exploits(trainer))
    assert any("it ranks last and nobody copies it" in each.what for each in trainer.population.ledger.incidents)
    assert history(toy_trainer(tmp_path, trainer.population.config, 4)) == history(trainer)


def test_row_24_where_nobody_has_a_score_everybody_goes_on(tmp_path: Path) -> None:
    nothing = {f"m{member}g{generation}": "none" for member in range(3) for generation in range(3)}
    trainer = run(tmp_path, toy_rules(3), **nothing)
    assert exploits(trainer) == []
    assert trainer.population.best() is None
    assert [member.step for member in trainer.population.members] == [6, 6, 6]


def test_row_24_where_those_who_have_come_through_have_no_score_the_failed_one_goes_on_by_itself(
    tmp_path: Path,
) -> None:
    trainer = run(tmp_path, toy_rules(2), m0g1="nan", m1g1="raise")
    assert [event.source_id for event in events_of(trainer, 1)][1] is None
    assert [member.step for member in trainer.population.members] == [6, 4]


def test_where_less_is_better_the_lower_ones_are_taken_over(tmp_path: Path) -> None:
    copies = exploits(run(tmp_path, toy_rules(4, metric_mode="min")))
    assert copies
    assert all(event.source_performance < event.performance for event in copies)


# --- rules ------------------------------------------------------------------------------------------------------------


def test_nothing_is_decided_before_burn_in_but_for_those_who_have_failed(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(4, burn_in=6), 10, m2g0="raise")
    early = [each for each in trainer.population.ledger.events if each.step < 6 and each.generation]
    assert [(each.member_id, each.source_id is not None) for each in early] == [(2, True)]
    assert [event.step for event in events_of(trainer, 0)] == [6, 8]


def test_with_mutate_all_everybody_explores_but_the_best(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(4, mutate_all=True, exploit_method="none"), 4)
    events = [events_of(trainer, member)[0] for member in range(4)]
    best = max(events, key=lambda event: event.performance)
    assert [event.explored for event in events] == [event is not best for event in events]


@pytest.mark.parametrize("method", ["binary_tournament", "t_test", "threshold", {"kind": "k_tournament", "size": 2}])
@pytest.mark.parametrize("explore", ["both", "pb2"])
def test_every_rule_copies_and_a_new_process_knows_it(tmp_path: Path, method, explore: str) -> None:
    rules = toy_rules(4, exploit_method=method, explore_method=explore)
    trainer = run(tmp_path, rules, 8)
    assert exploits(trainer)
    assert history(toy_trainer(tmp_path, rules, 8)) == history(trainer)


# --- files ------------------------------------------------------------------------------------------------------------


def best_first(population) -> list[Path]:
    """Files of a population of four, by score."""
    members = sorted(population.members, key=lambda member: -member.performance)
    return [Path(member.checkpoint_path) for member in members]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("destroy", [Path.unlink, damage])
def test_row_27_a_source_that_is_damaged_at_the_decision_is_passed_over(tmp_path: Path, destroy) -> None:
    trainer = run(
        tmp_path,
        toy_rules(4, exploit_method={"kind": "k_tournament", "size": 3}),
        watcher=Once(0, lambda population: destroy(tmp_path / best_first(population)[0])),
    )
    population = trainer.population
    first = [each for each in population.ledger.events if each.generation == 1]
    ranking = sorted(first, key=lambda event: -event.performance)
    best, second = (event.member_id for event in ranking[:2])
    assert [event.source_id for event in ranking] == [None, None, second, second]
    assert [len(event.passed_over) for event in ranking] == [0, 1, 1, 1]
    assert ranking[3].passed_over[0].startswith(f"member {best}: member-{best}-generation-0-")
    incidents = [each.member_id for each in population.ledger.incidents if "It could not take over member" in each.what]
    assert incidents[:3] == [event.member_id for event in first if event.passed_over]
    failed = [each.what for each in population.ledger.incidents if "It has failed" in each.what]
    assert len(failed) == 1  # whose file it was: it cannot go on by itself
    assert events_of(trainer, best)[1].source_id is not None


def test_row_27_where_no_source_can_be_read_nobody_copies(tmp_path: Path) -> None:
    def destroy(population) -> None:
        for path in best_first(population)[:3]:
            damage(tmp_path / path)

    trainer = run(tmp_path, toy_rules(4), watcher=Once(0, destroy))
    first = [each for each in trainer.population.ledger.events if each.generation == 1]
    worst = min(first, key=lambda event: event.performance)
    assert (worst.source_id, worst.explored, len(worst.passed_over)) == (None, False, 3)
    # The next generation: the one whose file is whole goes on, the others have failed and take it over.
    second = [each for each in trainer.population.ledger.events if each.generation == 2]
    assert {each.source_id for each in second if each.member_id != worst.member_id} == {worst.member_id}


def test_row_27_a_source_that_is_gone_when_the_segment_begins_costs_the_segment(tmp_path: Path) -> None:
    def destroy(population) -> None:
        (copied,) = {place.copy.checkpoint.name for place in population.places.values() if place.copy is not None}
        (tmp_path / copied).unlink()

    trainer = run(tmp_path, toy_rules(4), 8, watcher=Once(0, destroy, after_decision=True))
    copy = next(each for each in exploits(trainer) if each.generation == 1)
    for member in (copy.member_id, copy.source_id):
        rescue = events_of(trainer, member)[1]
        assert (rescue.performance, rescue.source_id is None) == (None, False)
        assert trainer.population.ledger.member(member).performance is not None


def test_row_29_what_a_killed_process_has_written_and_not_committed_goes(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, toy_rules(4), 6)
    trainer.run(Inline(ToyRunner, tmp_path), lambda: len(trainer.population.results) == 2)
    orphan, other = tmp_path / "member-3-generation-0-0123456789abcdef.json", tmp_path / "member-3.txt"
    orphan.touch()
    other.touch()
    needed: list[set[str]] = []
    run(tmp_path, toy_rules(4), watcher=Once(0, lambda population: needed.append(files(tmp_path))))
    assert orphan.name not in needed[0]
    assert other.exists()


def test_after_each_generation_the_files_are_those_that_somebody_needs(tmp_path: Path) -> None:
    sizes = []

    class Looking(Watcher):
        def decided(self, population, decided, seconds) -> None:
            assert files(tmp_path) == population.needed()
            sizes.append(len(population.needed()))

    trainer = run(tmp_path, toy_rules(4), 8, watcher=Looking())
    assert files(tmp_path) == trainer.population.needed() == {str(each) for each in best_first(trainer.population)}
    assert sizes == [4, 4, 4]


# --- journal ----------------------------------------------------------------------------------------------------------


def test_time_goes_on_where_it_was(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(2))
    again = toy_trainer(tmp_path, toy_rules(2), 6)
    assert 0 < again.seconds == trainer.seconds
    assert again.run(Inline(ToyRunner, tmp_path), lambda: False)


@pytest.mark.parametrize("method", ["commit_results", "commit_generation"])
def test_row_14_what_cannot_be_entered_is_done_again_and_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    expected = history(run(tmp_path / "a", toy_rules(4)))
    trainer = toy_trainer(tmp_path / "b", toy_rules(4), 6)

    def full(*arguments: Any) -> None:
        raise EverlearnError("database or disk is full")

    executor = Inline(ToyRunner, tmp_path / "b")
    with monkeypatch.context() as patch, pytest.raises(EverlearnError, match="disk is full"):
        patch.setattr(trainer._store, method, full)
        trainer.run(executor, lambda: False)
    assert trainer.run(executor, lambda: False)  # the same process, once there is room
    assert history(trainer) == expected


def test_a_result_of_no_segment_does_not_get_into_the_journal(tmp_path: Path) -> None:
    class Confused(ToyRunner):
        def run(self, tasks, beat):
            return [replace(result, generation=1) for result in super().run(tasks, beat)]

    with pytest.raises(StateError, match="There is no segment of member 0 in generation 0"):
        toy_trainer(tmp_path, toy_rules(2)).run(Inline(Confused, tmp_path), lambda: False)
    trainer = toy_trainer(tmp_path, toy_rules(2))
    assert trainer._store.read().results == {}


def test_a_population_does_not_go_on_by_other_rules(tmp_path: Path) -> None:
    run(tmp_path, toy_rules(2))
    for rules, updates, name in (
        (toy_rules(2), 8, "total_updates"),
        (toy_rules(3), 6, "population_size"),
        (toy_rules(2, hyperparams=[RATE, HyperparamConfig("gamma", 0.9, 0.99)]), 6, "hyperparams.gamma"),
    ):
        with pytest.raises(ConfigError, match=name):
            toy_trainer(tmp_path, rules, updates)


def test_values_that_no_journal_keeps_are_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target_kl"):
        toy_trainer(tmp_path, toy_rules(2, hyperparams=[HyperparamConfig("target_kl", values=[0.1, math.inf])]))
    assert toy_trainer(tmp_path, toy_rules(2)).population.generation == 0


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM segments WHERE generation = 1 AND member = '1'", "lacks a part of generation 1"),
        ("DELETE FROM segments WHERE generation = 0", "lacks a part of generation 0"),
        ("DELETE FROM generations WHERE generation = 0", "lacks a part of generation 0"),
        ("DELETE FROM about WHERE name = 'members'", "KeyError.*members"),
        ("DELETE FROM about WHERE name = 'rules'", "KeyError.*rules"),
    ],
)
def test_a_journal_that_lacks_something_is_refused(tmp_path: Path, statement: str, message: str) -> None:
    run(tmp_path, toy_rules(2))
    said(tmp_path / FILE, statement)
    with pytest.raises(StateError, match=message):
        toy_trainer(tmp_path, toy_rules(2), 6)


@pytest.mark.parametrize(
    ("members", "message"),
    [([[0, {"rate": 0.1}]], "1 members, population_size=2"), ([[0, {"rate": 0.1}]] * 2, "Two members have the id 0")],
)
def test_row_23_a_journal_with_a_member_twice_is_refused(tmp_path: Path, members, message: str) -> None:
    trainer = run(tmp_path, toy_rules(2))
    journal = trainer._store.read()
    with pytest.raises(ConfigError, match=message):
        replayed(toy_rules(2), replace(journal, about={**journal.about, "members": members}))


def test_a_journal_of_another_space_is_refused(tmp_path: Path) -> None:
    trainer = run(tmp_path, toy_rules(2))
    journal = trainer._store.read()
    narrow = toy_rules(2, hyperparams=[HyperparamConfig("rate", 0.5, 0.6)])
    with pytest.raises(ConfigError, match=r"member 0: rate=.* is outside of its range"):
        replayed(narrow, journal)
    began = {**journal.about, "members": [[number, {"rate": 0.55}] for number in range(2)]}
    with pytest.raises(StateError, match=r"went on with .* which is not in the space"):
        replayed(narrow, replace(journal, about=began))
    with pytest.raises(ConfigError, match="'rate' is no hyper-parameter here"):
        replayed(toy_rules(2, hyperparams=[HyperparamConfig("gamma", 0.5, 0.6)]), journal)


def test_an_executor_that_leaves_out_segments_is_found_out(tmp_path: Path) -> None:
    class Forgetful(Executor):
        def run_segments(self, tasks, stopped):
            yield from Inline(ToyRunner, tmp_path).run_segments(tasks[1:], stopped)

    with pytest.raises(StateError, match="Forgetful left out the segments of 0"):
        toy_trainer(tmp_path, toy_rules()).run(Forgetful(), lambda: False)
