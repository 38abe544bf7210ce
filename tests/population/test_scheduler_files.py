"""What becomes of the members' files; rows 24, 27 and 38 of the failure-mode table."""

import math
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from everlearn import PBTScheduler, PopulationMember
from everlearn.checkpoint.files import observed
from everlearn.core.digest import identical
from everlearn.core.errors import StateError
from tests.population.populations import DATA, VALUES, decide, new_scheduler, origin, parameters, report


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., PBTScheduler]:
    return partial(new_scheduler, tmp_path / "files")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("destroy", [damage, os.remove, lambda path: path.write_bytes(b"")])
def test_row_27_a_source_that_cannot_be_read_is_replaced_by_the_next_best(make, destroy) -> None:
    scheduler = make()
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    destroy(scheduler.members[3].checkpoint_path)
    result = scheduler.exploit_and_explore(scheduler.members[0])
    assert origin(result) == 2.0
    assert scheduler.members[0].parent == 2
    event = scheduler.events[-1]
    assert (event.source_id, len(event.passed_over)) == (2, 1)
    assert event.passed_over[0].startswith("member 3: ")
    assert "cannot be taken over" in scheduler.incidents[-1].what


def test_row_27_the_next_best_is_not_one_that_has_just_copied(make) -> None:
    scheduler = make(4, exploit_method={"kind": "k_tournament", "size": 3})
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    assert origin(scheduler.exploit_and_explore(scheduler.members[2])) == 3.0
    scheduler.members[3].checkpoint_path = None
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 1.0


def test_row_27_where_no_source_can_be_read_the_member_keeps_its_own(make) -> None:
    scheduler = make()
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    for member in scheduler.members[1:]:
        member.checkpoint_path.unlink()
    member = scheduler.members[0]
    before = dict(member.hyperparams)
    assert scheduler.exploit_and_explore(member) == (None, before, None)
    assert (member.parent, member.hyperparams, len(scheduler.events[-1].passed_over)) == (None, before, 3)
    stats = scheduler.get_stats()
    assert (stats["pbt/exploits_skipped"], stats["pbt/exploit_success_rate"], stats["pbt/incidents"]) == (1, 0.0, 3)


def test_a_member_whose_path_was_taken_away_is_passed_over(make) -> None:
    scheduler = make()
    report(scheduler, [0.0, 1.0, 2.0, 3.0])
    scheduler.members[3].checkpoint_path = None
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 2.0


def test_old_files_go_and_those_that_are_referred_to_stay(make, tmp_path: Path) -> None:
    scheduler = make()
    for step in (5, 10, 15):
        report(scheduler, [0.0, 1.0, 2.0, 3.0], step)
        found = set((tmp_path / "files").iterdir())
        assert found == {member.checkpoint_path for member in scheduler.members}
        assert len(found) == 4
        decide(scheduler)
        assert len(set((tmp_path / "files").iterdir())) == 3
    copied_from = scheduler.members[3].checkpoint_path
    scheduler.update_performance(scheduler.members[3], 3.0, 20, parameters(3))
    assert copied_from.exists(), "member 0 still comes from it"


def test_a_full_disk_leaves_the_file_before_and_training_goes_on(make) -> None:
    scheduler = make(2)
    report(scheduler, [0.0, 1.0])
    before = scheduler.members[1].checkpoint_path

    def full(name: str, path: Path) -> None:
        if name == "save:write":
            raise OSError(28, "No space left on device")

    with observed(full), pytest.warns(UserWarning, match="No space left"):
        scheduler.update_performance(scheduler.members[1], 2.0, 6, parameters(1))
    assert scheduler.members[1].checkpoint_path == before
    assert scheduler.members[1].performance == 2.0
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 1.0
    assert "No space left" in scheduler.incidents[0].what


def test_row_24_weights_that_are_not_finite_are_not_kept(make) -> None:
    scheduler = make(2)
    report(scheduler, [0.0, 1.0])
    with pytest.warns(UserWarning, match="'policy.weight' is not finite"):
        scheduler.update_performance(scheduler.members[1], 2.0, 6, parameters(math.nan))
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 1.0


def test_what_no_file_can_hold_is_the_callers_error_and_changes_nothing(make) -> None:
    scheduler = make(2)
    with pytest.raises(StateError, match="no file can hold"):
        scheduler.update_performance(scheduler.members[0], 1.0, 5, {"policy": {"weight": object()}})
    assert (scheduler.members[0].performance, scheduler.members[0].history) == (None, [])


def test_row_38_a_member_called_after_a_path_stays_in_the_directory(make, tmp_path: Path) -> None:
    scheduler = make(2, start=False)
    scheduler.initialize_population([PopulationMember("../../evil", VALUES), PopulationMember("/tmp/evil", VALUES)])
    for member, score in zip(scheduler.members, (0.0, 1.0), strict=True):
        scheduler.update_performance(member, score, 5, parameters(score))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in files} == {tmp_path / "files"}
    assert origin(scheduler.exploit_and_explore(scheduler.members[0])) == 1.0


@pytest.mark.parametrize(
    ("name", "version"),
    [("v1/bare.pth", "v1_policy_only"), ("v1/named.pth", "v1_policy_only"), ("v2/complete.pth", "v2_full_parameters")],
)
def test_members_of_earlier_systems_are_copied_with_a_warning(make, tmp_path: Path, name: str, version: str) -> None:
    old = tmp_path / "member_1_step_10.pt"
    shutil.copy(DATA / name, old)
    scheduler = make(2, start=False)
    scheduler.initialize_population(
        [PopulationMember(0, VALUES), PopulationMember(1, VALUES, performance=9.0, step=10, checkpoint_path=old)]
    )
    for member, score in zip(scheduler.members, (0.0, 1.0), strict=True):
        scheduler.update_performance(member, score, 15)
    with pytest.warns(UserWarning, match=version):
        result = scheduler.exploit_and_explore(scheduler.members[0])
    assert result.checkpoint_format == version
    assert scheduler.events[-1].source_step == 10
    assert "action_net.weight" in result.parameters["policy"]
    assert old.exists()


def test_weights_alone_are_deprecated_and_marked(make) -> None:
    scheduler = make(2)
    scheduler.update_performance(scheduler.members[0], 0.0, 5, parameters(0))
    with pytest.warns(DeprecationWarning, match="model_state_dict has the weights alone"):
        scheduler.update_performance(scheduler.members[1], 1.0, 5, model_state_dict={"weight": torch.ones(2)})
    result = scheduler.exploit_and_explore(scheduler.members[0])
    assert result.checkpoint_format == "v1_policy_only"
    assert identical(result.parameters, {"policy": {"weight": torch.ones(2)}})
