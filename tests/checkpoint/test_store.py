"""One file per step; the latest and the best are found by looking; damaged files are set aside; enough always stay."""

from __future__ import annotations

import errno
import io
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from everlearn.checkpoint import store as store_module
from everlearn.checkpoint.archive import pack, read_archive, read_manifest
from everlearn.checkpoint.errors import CheckpointError, NoValidCheckpoint, SaveError
from everlearn.checkpoint.files import DRAFT, NotDurable, observed
from everlearn.checkpoint.retention import Checkpoint, Retention
from everlearn.checkpoint.store import CheckpointStore
from everlearn.core.errors import ArgumentError
from tests.checkpoint.failing import ERRORS, FailsAt, open_descriptors, operations_of

ALL = Retention(keep_last=100)


def content(step: int) -> dict[str, bytes]:
    return {"policy.safetensors": f"weights of step {step} ".encode() * 50}


def save(store: CheckpointStore, *steps: int, **performances: float) -> None:
    for step in steps:
        store.save(step, content(step), {"kind": "checkpoint"}, performances.get(f"at_{step}"))


def steps(store: CheckpointStore) -> list[int]:
    return [checkpoint.step for checkpoint in store.checkpoints()]


def put(store: CheckpointStore, name: int, step: Any, **about: Any) -> None:
    """A whole file that no store has written, under the name of a step."""
    about["step"] = step
    store.path_of(name).write_bytes(b"".join(pack(content(name), about)))


def unreadable(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """From now on a file cannot be opened."""
    opened = Path.open

    def refuse(self: Path, *arguments: Any) -> Any:
        if self == path:
            raise OSError(errno.EIO, "Input/output error")
        return opened(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)


def damage(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", ALL)


def test_a_checkpoint_is_a_file_named_by_its_step(store: CheckpointStore) -> None:
    checkpoint = store.save(12288, content(12288), {"kind": "checkpoint"}, 1.5)
    assert checkpoint == Checkpoint(12288, store.directory / "step-000000012288.zip", 1.5)
    manifest = read_archive(checkpoint.path).manifest
    assert {key: manifest[key] for key in ("kind", "step", "performance")} == {
        "kind": "checkpoint",
        "step": 12288,
        "performance": 1.5,
    }
    assert store.checkpoints() == [checkpoint]


def test_the_latest_is_the_one_of_the_highest_step(store: CheckpointStore) -> None:
    save(store, 10**12, 9, 100)
    found = store.latest()
    assert (found.checkpoint.step, found.passed_over, found.steps_lost) == (10**12, (), 0)
    assert dict(found.archive.members) == content(10**12)


def test_the_best_is_the_one_of_the_highest_performance_and_of_equals_the_later(store: CheckpointStore) -> None:
    save(store, 1, 2, 3, 4, at_1=-5.0, at_2=2.0, at_3=2.0)
    assert store.best().checkpoint.step == 3


@pytest.mark.parametrize("performance", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best(store: CheckpointStore, performance: float | None) -> None:
    store.save(1, content(1), {}, -1e300)
    assert store.save(2, content(2), {}, performance).performance is None
    assert store.best().checkpoint.step == 1


def test_without_any_performance_there_is_no_best(store: CheckpointStore) -> None:
    save(store, 1)
    with pytest.raises(NoValidCheckpoint, match="None of its checkpoints has a performance"):
        store.best()


@pytest.mark.parametrize("find", [CheckpointStore.latest, CheckpointStore.best])
def test_an_empty_store_says_so(store: CheckpointStore, find: Callable[[CheckpointStore], Any]) -> None:
    with pytest.raises(NoValidCheckpoint, match=r"there is no checkpoint that can be loaded\. Train first\."):
        find(store)
    assert store.checkpoints() == []
    assert store.sweep() == []


def test_the_same_step_is_replaced_whole(store: CheckpointStore) -> None:
    save(store, 1)
    store.save(1, content(7), {})
    assert steps(store) == [1]
    assert dict(store.latest().archive.members) == content(7)


def test_numbers_of_numpy_are_numbers(store: CheckpointStore) -> None:
    assert store.save(np.int64(5), content(5), {}, np.float32(0.5)) == Checkpoint(5, store.path_of(5), 0.5)
    assert store.checkpoints() == [Checkpoint(5, store.path_of(5), 0.5)]


@pytest.mark.parametrize("performance", [10**399, True, "high", [], {"$float": "inf"}])
def test_a_performance_that_is_no_number_is_none(store: CheckpointStore, performance: Any) -> None:
    store.save(1, content(1), {}, 2.0)
    put(store, 2, step=2, performance=performance)
    assert store.checkpoints()[1] == Checkpoint(2, store.path_of(2), None)
    assert store.best().checkpoint.step == 1


def test_a_whole_number_beyond_all_floats_is_no_performance(store: CheckpointStore) -> None:
    assert store.save(1, content(1), {}, 10**400).performance is None


@pytest.mark.parametrize("step", [-1, 1.0, "1", None, True])
def test_a_step_that_is_none_is_refused(store: CheckpointStore, step: Any) -> None:
    with pytest.raises(ArgumentError, match="step="):
        store.save(step, content(1), {})


def test_other_files_are_left_alone(store: CheckpointStore) -> None:
    save(store, 1)
    others = ["step-1.zip", "step-000000000002.zip.corrupt", "notes.txt", "xstep-000000000003.zip"]
    for name in others:
        (store.directory / name).write_bytes(b"")
    assert steps(store) == [1]
    CheckpointStore(store.directory, Retention(keep_last=1)).prune()
    assert all((store.directory / name).exists() for name in others)


# Retention


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_last": 0},
        {"keep_last": 1.0},
        {"keep_best": -1},
        {"keep_every": 0},
        {"keep_last": True},
        {"keep_last": None},
    ],
)
def test_a_retention_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(wrong))}="):
        Retention(**wrong)


@pytest.mark.parametrize(
    ("retention", "stay"),
    [
        (Retention(keep_last=3, keep_best=0), [80, 90, 100]),
        (Retention(keep_last=2, keep_best=1), [30, 90, 100]),
        (Retention(keep_last=2, keep_best=2), [30, 50, 90, 100]),
        (Retention(keep_last=1, keep_best=0), [90, 100]),
        (Retention(keep_last=2, keep_best=0, keep_every=35), [40, 70, 90, 100]),
    ],
)
def test_the_last_the_best_and_the_first_after_each_multiple_stay(
    tmp_path: Path, retention: Retention, stay: list[int]
) -> None:
    store = CheckpointStore(tmp_path, retention)
    save(store, *range(10, 101, 10), at_30=9.0, at_50=8.0, at_80=1.0)
    assert steps(store) == stay


def test_what_is_referred_to_stays(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, Retention(2, 0), referred=lambda path: path.name == "step-000000000002.zip")
    save(store, 1, 2, 3, 4, 5)
    assert steps(store) == [2, 4, 5]


def test_two_whole_files_stay_where_later_ones_are_damaged(tmp_path: Path) -> None:
    """Row 18 of the failure modes: never fewer than two that can be loaded."""
    save(CheckpointStore(tmp_path, ALL), 1, 2, 3, 4, 5)
    store = CheckpointStore(tmp_path, Retention(2, 0))
    for step in (4, 5):
        damage(store.path_of(step))
    store.prune()
    assert steps(store) == [2, 3, 4, 5]


def test_pruning_happens_after_the_new_file_is_durable(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, Retention(2, 0))
    save(store, 1, 2)
    names = operations_of(lambda: save(store, 3))
    assert names[-2:] == ["save:directory", "prune:remove"]
    assert steps(store) == [2, 3]


def test_a_best_that_cannot_be_read_now_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path, Retention(2, 1))
    save(store, 1, 2, 3, at_1=9.0)
    with monkeypatch.context() as patch:
        unreadable(patch, store.path_of(1))
        save(store, 4, 5)
    assert steps(store) == [1, 4, 5]
    assert store.best().checkpoint.step == 1


def test_a_damaged_best_does_not_take_the_place_of_the_next(tmp_path: Path) -> None:
    """Row 2 of the failure modes: the next best stays, and the damaged one too, until it is set aside."""
    store = CheckpointStore(tmp_path, Retention(2, 1))
    save(store, 1, 2, 3, at_1=9.0, at_2=8.0)
    damage(store.path_of(1))
    save(store, 4, 5)
    assert steps(store) == [1, 2, 4, 5]
    with pytest.warns(UserWarning, match="000001"):
        assert store.best().checkpoint.step == 2


def test_a_directory_that_cannot_be_looked_through_is_no_failure_to_save(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1)

    def refuse(self: Path) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        with pytest.warns(UserWarning, match=r"\(Input/output error\); step-000000000002\.zip is saved") as caught:
            save(store, 2)
    assert caught[0].filename == __file__
    assert steps(store) == [1, 2]


# Damage


def test_a_best_whose_manifest_is_damaged_is_named_and_set_aside(store: CheckpointStore) -> None:
    """Row 18 of the failure modes: what cannot be asked for its performance may have been the best."""
    save(store, 1, 2, at_1=9.0, at_2=1.0)
    path = store.path_of(1)
    path.write_bytes(damaged := path.read_bytes().replace(b"9.0", b"0.9"))
    with pytest.warns(UserWarning, match=r"000002\.zip is used; passed over:\n.*manifest\.json: its checksum differs"):
        assert store.best().checkpoint.step == 2
    assert path.with_name(f"{path.name}.corrupt").read_bytes() == damaged


def test_what_could_not_be_asked_for_a_moment_is_ranked_by_its_performance(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 2, at_1=1.0, at_2=9.0)
    asked: list[Path] = []

    def ask(path: Path, **options: Any) -> Any:
        asked.append(path)
        if len(asked) == 1:
            raise OSError(errno.EIO, "Input/output error")
        return read_manifest(path, **options)

    monkeypatch.setattr(store_module, "read_manifest", ask)
    assert store.best().checkpoint.step == 2


@pytest.mark.parametrize("step", [7, True, "9", None, 9.5])
def test_a_file_of_another_step_than_its_name_says_is_passed_over_and_stays(store: CheckpointStore, step: Any) -> None:
    save(store, 5)
    put(store, 9, step=step)
    with pytest.warns(UserWarning, match=rf"it is of step {step!r}, which is not what its name says\. Rename it\."):
        assert store.latest().checkpoint.step == 5
    assert steps(store) == [5, 9]


def test_a_link_to_nothing_is_passed_over(store: CheckpointStore) -> None:
    """Row 38 of the failure modes."""
    save(store, 5)
    store.path_of(9).symlink_to(store.directory / "gone.zip")
    with pytest.warns(UserWarning, match=r"000009\.zip: it cannot be read \(No such file"):
        assert store.latest().checkpoint.step == 5


def test_a_pipe_and_a_directory_under_a_checkpoint_s_name_are_passed_over(store: CheckpointStore) -> None:
    """Row 3 of the failure modes; a pipe is not waited for."""
    save(store, 5)
    store.path_of(8).mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(store.path_of(9))
    with pytest.warns(UserWarning, match="this is a directory"):
        assert store.latest().checkpoint.step == 5
    save(store, 10)


def test_a_damaged_latest_is_set_aside_and_the_one_before_is_used(store: CheckpointStore) -> None:
    """Rows 1, 2 and 18 of the failure modes: set aside, never deleted; the warning says what was lost and why."""
    save(store, 100, 200, 350)
    for step in (200, 350):
        damage(store.path_of(step))
    damaged = store.path_of(350).read_bytes()
    said = (
        r"000100\.zip is used, 250 steps earlier.*\n.*000350\.zip.*SHA-256.*It is kept as .*\.corrupt\.\n.*000200\.zip"
    )
    with pytest.warns(UserWarning, match=f"(?s){said}") as caught:
        found = store.latest()
    assert caught[0].filename == __file__
    assert (found.checkpoint.step, found.steps_lost, len(found.passed_over)) == (100, 250, 2)
    assert store.path_of(350).with_name("step-000000000350.zip.corrupt").read_bytes() == damaged
    assert steps(store) == [100]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.latest().steps_lost == 0


def test_a_damaged_best_is_set_aside_and_the_next_is_used(store: CheckpointStore) -> None:
    save(store, 1, 2, 3, at_1=1.0, at_2=3.0, at_3=2.0)
    damage(store.path_of(2))
    with pytest.warns(UserWarning, match=r"000003\.zip is used; passed over"):
        assert store.best().checkpoint.step == 3


def test_where_all_are_damaged_each_reason_is_listed(store: CheckpointStore) -> None:
    """Row 18 of the failure modes."""
    save(store, 1, 2)
    damage(store.path_of(1))
    store.path_of(2).write_bytes(store.path_of(2).read_bytes()[:-5])
    with pytest.raises(NoValidCheckpoint) as caught:
        store.latest()
    assert len(caught.value.reasons) == 2
    assert "it ends after" in caught.value.reasons[0]
    assert "SHA-256" in caught.value.reasons[1]
    assert all(reason in str(caught.value) for reason in caught.value.reasons)
    assert len(list(store.directory.glob("*.corrupt"))) == 2


def test_a_file_of_a_later_version_is_passed_over_and_stays(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 6 of the failure modes: it is not damaged."""
    save(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr("everlearn.checkpoint.archive.VERSION", 9)
        save(store, 2)
    with pytest.warns(UserWarning, match="Upgrade everlearn"):
        assert store.latest().checkpoint.step == 1
    assert store.path_of(2).exists()


def test_a_file_that_cannot_be_read_now_is_passed_over_and_stays(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 2)

    def read(path: Path, **options: Any) -> Any:
        if path == store.path_of(2):
            raise PermissionError(errno.EACCES, "Permission denied")
        return read_archive(path, **options)

    monkeypatch.setattr(store_module, "read_archive", read)
    with pytest.warns(UserWarning, match=r"it cannot be read \(Permission denied\)"):
        assert store.latest().checkpoint.step == 1
    assert store.path_of(2).exists()


def test_a_reader_that_is_overtaken_by_the_writer_looks_again(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1, 2)
    overtaken: list[Path] = []

    def read(path: Path, **options: Any) -> Any:
        if not overtaken:
            overtaken.append(path)
            save(store, 3)
            for step in (1, 2):
                store.path_of(step).unlink()
        return read_archive(path, **options)

    monkeypatch.setattr(store_module, "read_archive", read)
    assert store.latest().checkpoint.step == 3
    assert overtaken == [store.path_of(2)]


# Failing operations


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_whatever_fails_while_saving_the_checkpoints_before_stay(tmp_path: Path, code: int) -> None:
    """Row 14 of the failure modes, for each operation of a save that prunes."""
    first = CheckpointStore(tmp_path / "counted", Retention(2, 0))
    save(first, 1, 2)
    names = operations_of(lambda: save(first, 3))
    opened = open_descriptors()
    for number, name in enumerate(names):
        store = CheckpointStore(tmp_path / str(number), Retention(2, 0))
        save(store, 1, 2)
        with observed(FailsAt(number, code)):
            if name == "prune:remove":
                with pytest.warns(UserWarning, match="need not stay, but cannot be deleted"):
                    save(store, 3)
            else:
                with pytest.raises(NotDurable if name == "save:directory" else SaveError):
                    save(store, 3)
        assert steps(store) == ([1, 2] if name not in ("save:directory", "prune:remove") else [1, 2, 3])
        assert dict(store.latest().archive.members) == content(steps(store)[-1])
        assert list(store.directory.glob(f"{DRAFT}*")) == []
        save(store, 4)
        assert len(steps(store)) == 2
    assert open_descriptors() == opened


@pytest.mark.parametrize(("number", "said"), [(0, "It could not be set aside"), (1, "It is kept as")])
def test_whatever_fails_while_setting_aside_the_one_before_is_used(
    store: CheckpointStore, number: int, said: str
) -> None:
    save(store, 1, 2)
    damage(store.path_of(2))
    damaged = store.path_of(2).read_bytes()
    with observed(FailsAt(number, errno.EROFS)), pytest.warns(UserWarning, match=said):
        assert store.latest().checkpoint.step == 1
    remains = [path for path in store.directory.iterdir() if path.name.startswith("step-000000000002")]
    assert [path.read_bytes() for path in remains] == [damaged]


class Stores(RuleBasedStateMachine):
    """Saves, failing saves, damage, loads in any order, against a dictionary of what should be there."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = CheckpointStore(self.directory, Retention(keep_last=2, keep_best=1))
        self.whole: dict[int, float | None] = {}
        self.damaged: set[int] = set()
        self.step = 0

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    def _kept(self) -> dict[int, float | None]:
        return {step: self.whole[step] for step in steps(self.store) if step in self.whole}

    @rule(gap=st.integers(1, 5), performance=st.none() | st.floats(-9, 9))
    def save(self, gap: int, performance: float | None) -> None:
        self.step += gap
        before = dict(self.whole)
        self.store.save(self.step, content(self.step), {}, performance)
        self.whole = {**before, self.step: performance}
        kept = self._kept()
        rated = [step for step, value in self.whole.items() if value is not None]  # damaged ones are not among them
        best = max(rated, key=lambda step: (self.whole[step], step), default=self.step)
        assert best in kept
        latest_two = sorted(self.whole)[-2:]
        assert set(latest_two) <= set(kept)
        self.whole = kept
        self.damaged &= set(steps(self.store))

    @rule(number=st.integers(0, 9), code=st.sampled_from(ERRORS))
    def fail_to_save(self, number: int, code: int) -> None:
        self.step += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a file cannot be deleted
            try:
                with observed(FailsAt(number, code)):
                    self.store.save(self.step, content(self.step), {})
            except NotDurable:
                self.whole[self.step] = None
            except SaveError:
                assert self.step not in steps(self.store)
            else:
                self.whole[self.step] = None
        self.whole = self._kept()
        self.damaged &= set(steps(self.store))

    @precondition(lambda self: self.whole)
    @rule(which=st.integers(0, 9), data=st.data())
    def damage(self, which: int, data: Any) -> None:
        step = sorted(self.whole)[which % len(self.whole)]
        path = self.store.path_of(step)
        whole = path.read_bytes()
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed if data.draw(st.booleans()) else whole[: bit // 8])
        del self.whole[step]
        self.damaged.add(step)

    @rule()
    def open_anew(self) -> None:
        self.store = CheckpointStore(self.directory, Retention(keep_last=2, keep_best=1))
        self.store.sweep()

    @rule()
    def load_latest(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that damaged files are passed over
            try:
                found = self.store.latest()
            except NoValidCheckpoint:
                assert self.whole == {}
            else:
                assert found.checkpoint.step == max(self.whole)
                assert dict(found.archive.members) == content(found.checkpoint.step)
                assert {step for step in self.damaged if step > found.checkpoint.step} & set(steps(self.store)) == set()
        self.damaged &= set(steps(self.store))

    @rule()
    def load_best(self) -> None:
        rated = {step: performance for step, performance in self.whole.items() if performance is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that damaged files are passed over
            try:
                found = self.store.best()
            except NoValidCheckpoint:
                assert rated == {}
            else:
                assert found.checkpoint.step == max(rated, key=lambda step: (rated[step], step))
        self.damaged &= set(steps(self.store))

    @invariant()
    def nothing_is_left_over(self) -> None:
        assert list(self.directory.glob(f"{DRAFT}*")) == []

    @invariant()
    def what_should_be_whole_is_whole(self) -> None:
        for step in self.whole:
            assert dict(read_archive(self.store.path_of(step)).members) == content(step)


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=40, stateful_step_count=20, deadline=None, derandomize=True)


def test_reading_through_an_open_file_and_by_path_is_the_same(store: CheckpointStore) -> None:
    save(store, 1)
    path = store.path_of(1)
    assert read_archive(io.BytesIO(path.read_bytes())).sha256 == read_archive(path).sha256
    assert b"".join(pack(content(1), {"kind": "checkpoint", "step": 1, "performance": None})) == path.read_bytes()
    assert issubclass(NoValidCheckpoint, CheckpointError)
