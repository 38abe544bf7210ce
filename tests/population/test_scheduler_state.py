import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from everlearn import HyperparamConfig, PBTConfig, PBTScheduler
from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.codec import members_of, state_of
from everlearn.checkpoint.limits import LIMITS
from everlearn.core.errors import StateError
from everlearn.core.stateful import Stateful
from tests.population.populations import SPACE, decide, new_scheduler, origin, parameters, report


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., PBTScheduler]:
    return partial(new_scheduler, tmp_path / "files")


SCORES = [[0.0, 1.0, 2.0, 3.0], [3.0, math.nan, 2.0, 0.5], [1.0, 1.5, 2.0, None]]
RULES = {"exploit_method": "binary_tournament", "explore_method": "both", "ready_percentage": 1.0}


def live(scheduler: PBTScheduler, generations: range) -> None:
    for generation in generations:
        report(scheduler, SCORES[generation % len(SCORES)], 5 * (generation + 1))
        decide(scheduler)


def story(scheduler: PBTScheduler) -> list:
    return [repr(event) for event in scheduler.events]


@pytest.mark.parametrize("changes", [{}, {"explore_method": "pb2"}, {"mutate_all": True}])
def test_decisions_go_on_as_if_nothing_had_happened(make, changes: dict) -> None:
    original = make(**{**RULES, **changes})
    live(original, range(3))
    restored = make(**{**RULES, **changes}, start=False)
    restored.load_state_dict(original.state_dict())
    live(original, range(3, 8))
    live(restored, range(3, 8))
    assert story(restored) == story(original)
    assert restored.get_stats() == original.get_stats()
    assert [repr(member) for member in restored.members] == [repr(member) for member in original.members]
    assert [repr(each) for each in restored.incidents] == [repr(each) for each in original.incidents]


def test_a_state_between_reports_and_decisions_is_complete(make) -> None:
    original = make(**RULES)
    live(original, range(1))
    report(original, SCORES[1], 10)
    original.exploit_and_explore(original.members[0])
    restored = make(**RULES, start=False)
    restored.load_state_dict(original.state_dict())
    for member, again in zip(original.members[1:], restored.members[1:], strict=True):
        assert restored.should_exploit_and_explore(again) == original.should_exploit_and_explore(member)
        assert repr(restored.exploit_and_explore(again)) == repr(original.exploit_and_explore(member))
    assert story(restored) == story(original)


def test_a_state_is_plain_data_and_passes_through_text_and_through_files(make, tmp_path: Path) -> None:
    original = make(2, hyperparams=[HyperparamConfig("optimizer.betas", values=[(0.9, 0.99), (0.8, 0.9)]), *SPACE])
    report(original, [0.0, 1.0])
    decide(original)
    state = original.state_dict()
    (tmp_path / "state.zip").write_bytes(b"".join(map(bytes, pack(members_of("population", state), {}))))
    from_file = state_of(read_archive(tmp_path / "state.zip"), "population", LIMITS)
    for copy in (json.loads(json.dumps(state)), from_file):
        restored = PBTScheduler(original.config)
        restored.load_state_dict(copy)
        assert restored.members == original.members
        assert story(restored) == story(original)
        assert restored.state_dict() == state


def test_a_state_is_a_snapshot(make) -> None:
    scheduler = make()
    live(scheduler, range(1))
    state = scheduler.state_dict()
    before = repr(state)
    live(scheduler, range(1, 3))
    assert repr(state) == before


def test_handles_stay_valid(make) -> None:
    scheduler = make(**RULES)
    handles = scheduler.members
    live(scheduler, range(1))
    state, values = scheduler.state_dict(), [repr(member) for member in handles]
    live(scheduler, range(1, 3))
    scheduler.load_state_dict(state)
    assert all(member is handle for member, handle in zip(scheduler.members, handles, strict=True))
    assert [repr(member) for member in handles] == values
    scheduler.update_performance(handles[0], 1.0, 20, parameters(0))


def test_files_of_a_state_stay_until_the_next_is_taken(make) -> None:
    original = make(2)
    report(original, [0.0, 1.0], 5)
    state = original.state_dict()
    report(original, [0.0, 1.0], 10)
    report(original, [0.0, 1.0], 15)
    restored = make(2, start=False)
    restored.load_state_dict(state)
    assert origin(restored.exploit_and_explore(restored.members[0])) == 1.0
    assert len(list(restored.members[1].checkpoint_path.parent.iterdir())) == 4
    original.state_dict()
    report(original, [0.0, 1.0], 20)
    assert all(member.checkpoint_path.exists() for member in original.members)


def test_a_directory_may_be_moved(make, tmp_path: Path) -> None:
    original = make(2)
    report(original, [0.0, 1.0])
    state = original.state_dict()
    shutil.move(tmp_path / "files", tmp_path / "elsewhere")
    restored = make(2, checkpoint_dir=tmp_path / "elsewhere", start=False)
    restored.load_state_dict(state)
    assert origin(restored.exploit_and_explore(restored.members[0])) == 1.0


def test_a_scheduler_is_stateful(make) -> None:
    assert isinstance(make(), Stateful)


def damaged(state: dict, change) -> dict:
    copy = json.loads(json.dumps(state))
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("members"), "no state of a population"),
        (lambda state: state.pop("generator"), "no state of a population"),
        (lambda state: state.pop("seed"), "no state of a population"),
        (lambda state: state.pop("files"), "no state of a population"),
        (lambda state: state["generator"].update(bit_generator="MT19937"), "no state of a population"),
        (lambda state: state["standings"].pop(), "no state of a population"),
        (lambda state: state["members"][0].update(unknown=1), "no state of a population"),
        (lambda state: state["members"][0].update(history=3), "no state of a population"),
        (lambda state: state["counts"].update(exploits="many"), "no state of a population"),
        (lambda state: state["members"][0]["hyperparams"].pop("n_epochs"), "is of hyper-parameters"),
        (lambda state: state["members"][0].update(member_id=9), "is of members"),
        (lambda state: (state["members"].pop(), state["standings"].pop()), "is of members"),
    ],
)
def test_what_is_no_state_of_this_population_changes_nothing(make, change, message: str) -> None:
    scheduler = make(**RULES)
    live(scheduler, range(1))
    before = repr(scheduler.state_dict())
    with pytest.raises(StateError, match=message):
        scheduler.load_state_dict(damaged(scheduler.state_dict(), change))
    assert repr(scheduler.state_dict()) == before


def test_a_state_of_another_space_is_refused(make) -> None:
    state = make(2).state_dict()
    other = PBTScheduler(PBTConfig(population_size=2, hyperparams=SPACE[:1]))
    with pytest.raises(StateError, match=r"is of hyper-parameters .* here are \['learning_rate'\]"):
        other.load_state_dict(state)
    assert other.members == []
