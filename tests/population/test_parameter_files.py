import io
import math
import shutil
from pathlib import Path

import pytest
import torch

from everlearn.checkpoint.archive import pack, read_manifest
from everlearn.checkpoint.codec import members_of
from everlearn.checkpoint.errors import CheckpointError, Corrupt, Mismatch, NonFinite, Unsupported, Untrusted
from everlearn.checkpoint.files import observed
from everlearn.checkpoint.store import CheckpointStore
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError, NonFiniteError, StateError
from everlearn.population.member_files import MemberFiles
from everlearn.population.parameter_files import policy_digest, read_parameters, write_parameters

DATA = Path(__file__).parents[1] / "data"
PARAMETERS = {
    "policy": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)},
    "policy.optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
}


def test_parameters_come_back_to_the_bit(tmp_path: Path) -> None:
    path = write_parameters(tmp_path / "new" / "directory", 3, 17, 2.5, PARAMETERS)
    loaded = read_parameters(path)
    assert digest(loaded.parameters) == digest(PARAMETERS)
    assert loaded.checkpoint_format == "everlearn_v3"
    manifest = read_manifest(path)
    assert [manifest[key] for key in ("kind", "member", "step", "performance")] == ["parameters", "3", 17, 2.5]


def test_flat_tensors_and_a_score_that_is_not_finite_are_kept(tmp_path: Path) -> None:
    flat = {"layer.weight": torch.zeros(2, 2)}
    loaded = read_parameters(write_parameters(tmp_path, "a", 0, math.nan, flat))
    assert digest(loaded.parameters) == digest(flat) == policy_digest(flat)
    assert policy_digest(PARAMETERS) == digest(PARAMETERS["policy"])


def test_row_23_a_name_says_whose_when_and_what(tmp_path: Path) -> None:
    first = write_parameters(tmp_path, "a", 5, 1.0, PARAMETERS)
    assert first == write_parameters(tmp_path, "a", 5, 1.0, PARAMETERS)
    others = [
        write_parameters(tmp_path, "a", 6, 1.0, PARAMETERS),
        write_parameters(tmp_path, "b", 5, 1.0, PARAMETERS),
        write_parameters(tmp_path, "a", 5, 1.0, {"policy": {"weight": torch.ones(1)}}),
    ]
    assert len({first, *others}) == 4
    assert first.name.startswith("member-a-step-000000000005-")


@pytest.mark.parametrize("member_id", ["../../x", "/etc/passwd", "..", ".", "C:\\x", "a/../../b"])
def test_row_38_no_id_leads_out_of_the_directory(tmp_path: Path, member_id: str) -> None:
    directory = tmp_path / "population"
    path = write_parameters(directory, member_id, 1, None, PARAMETERS)
    assert path.resolve().parent == directory.resolve()
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]
    assert read_parameters(path).checkpoint_format == "everlearn_v3"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"policy": {"weight": torch.tensor([1.0, math.nan])}}, NonFiniteError),
        ({"policy": {"weight": torch.ones(1)}, "callback": object()}, StateError),
        ({}, ArgumentError),
        ([torch.ones(1)], ArgumentError),
    ],
)
def test_what_cannot_be_used_again_is_not_written(tmp_path: Path, parameters, error: type) -> None:
    with pytest.raises(error):
        write_parameters(tmp_path, 0, 1, None, parameters)
    assert list(tmp_path.iterdir()) == []


def test_row_27_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = write_parameters(tmp_path, 0, 1, None, PARAMETERS)
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            read_parameters(path)
    path.write_bytes(content[:-1])
    with pytest.raises(CheckpointError):
        read_parameters(path)


def test_row_27_a_file_under_the_name_of_another_is_noticed(tmp_path: Path) -> None:
    first = write_parameters(tmp_path, 0, 1, None, PARAMETERS)
    second = write_parameters(tmp_path, 1, 1, None, {"policy": {"weight": torch.ones(1)}})
    shutil.copy(second, first)
    with pytest.raises(Mismatch, match="something else than its name says"):
        read_parameters(first)


def written(path: Path, state, **about) -> Path:
    known = {"kind": "parameters", "parameters_format": "everlearn_v3", "policy_digest": policy_digest(PARAMETERS)}
    path.write_bytes(b"".join(map(bytes, pack(members_of("parameters", state), {**known, **about}))))
    return path


@pytest.mark.parametrize(
    ("state", "about", "error", "message"),
    [
        (PARAMETERS, {"kind": "policy"}, Unsupported, "it holds a 'policy'"),
        (PARAMETERS, {"parameters_format": "v9"}, Corrupt, "no parameters of a known format"),
        ([1, 2], {}, Corrupt, "no parameters of a known format"),
        (PARAMETERS, {"policy_digest": "0" * 64}, Corrupt, "its policy is not the one"),
        ({"policy": {"w": torch.tensor(math.inf)}}, {}, NonFinite, "not finite"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, state, about, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        read_parameters(written(tmp_path / "file.zip", state, **about))


def test_a_checkpoint_of_a_run_is_something_else(tmp_path: Path) -> None:
    checkpoint = CheckpointStore(tmp_path).save(3, members_of("counters", {"a": 1}), {"kind": "checkpoint"})
    with pytest.raises(Unsupported, match="it holds a 'checkpoint'"):
        read_parameters(checkpoint.path)


@pytest.mark.parametrize(
    ("name", "version", "parts"),
    [
        ("v1/bare.pth", "v1_policy_only", {"policy"}),
        ("v1/named.pth", "v1_policy_only", {"policy"}),
        ("v2/earlier.pth", "v2_full_parameters", {"policy", "policy.optimizer"}),
        ("v2/complete.pth", "v2_full_parameters", {"policy", "policy.optimizer", "vgs_state", "kl_penalty_state"}),
    ],
)
def test_files_of_earlier_systems_are_migrated_with_a_word_on_what_they_lack(
    name: str, version: str, parts: set
) -> None:
    with pytest.warns(UserWarning, match=f"{version}; these do not come from it: .*the normaliser's statistics"):
        loaded = read_parameters(DATA / name)
    assert loaded.checkpoint_format == version
    assert loaded.parameters.keys() == parts


def test_statistics_of_another_definition_are_left_out_by_name() -> None:
    with pytest.warns(UserWarning, match="statistics of variance gradient scaling, the state of the KL control"):
        read_parameters(DATA / "v2/earlier.pth")


class _Hostile:
    def __reduce__(self):
        return (print, ("this must not be printed",))


def test_b34_a_hostile_file_of_an_earlier_system_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"format_version": "v2_full_parameters", "data": {"policy": _Hostile()}}, buffer)
    (tmp_path / "member_0.pt").write_bytes(buffer.getvalue())
    with pytest.raises(Untrusted):
        read_parameters(tmp_path / "member_0.pt")


def test_an_old_file_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.tensor([math.nan])}, tmp_path / "old.pt")
    with pytest.raises(NonFinite):
        read_parameters(tmp_path / "old.pt")


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        read_parameters(tmp_path / "missing.zip")


# --- the files of a population ----------------------------------------------------------------------------------------


def saved(files: MemberFiles, member_id, step: int) -> Path:
    return files.save(member_id, step, None, {"policy": {"w": torch.tensor(float(step))}}, "everlearn_v3")


def test_files_stay_while_somebody_needs_them_and_no_longer(tmp_path: Path) -> None:
    files = MemberFiles(tmp_path)
    first, second, third = (saved(files, 0, step) for step in range(3))
    files.drop_all_but([first, third])
    assert set(tmp_path.iterdir()) == {first, third}
    files.drop_all_but([third])
    assert set(tmp_path.iterdir()) == {third}
    assert not second.exists()


def test_pinned_files_stay_until_others_are_pinned(tmp_path: Path) -> None:
    files = MemberFiles(tmp_path)
    first, second = saved(files, 0, 0), saved(files, 0, 1)
    assert files.pin([first, tmp_path / "foreign.zip"]) == [first.name]
    files.drop_all_but([second])
    assert first.exists()
    files.pin([second])
    files.drop_all_but([second])
    assert set(tmp_path.iterdir()) == {second}


def test_files_of_others_are_never_deleted(tmp_path: Path) -> None:
    stranger = saved(MemberFiles(tmp_path), 1, 0)
    files = MemberFiles(tmp_path)
    saved(files, 0, 0)
    files.drop_all_but([])
    assert set(tmp_path.iterdir()) == {stranger}


def test_adopted_files_are_ones_own_and_none_outside(tmp_path: Path) -> None:
    own, outside = saved(MemberFiles(tmp_path / "in"), 0, 0), saved(MemberFiles(tmp_path), 0, 0)
    files = MemberFiles(tmp_path / "in")
    later = saved(files, 0, 1)
    files.adopt([own.name, f"../{outside.name}"])
    files.drop_all_but([])
    assert own.exists()
    assert not later.exists()
    files.pin([])
    files.drop_all_but([])
    assert not own.exists()
    assert outside.exists()


def test_left_overs_of_killed_processes_are_swept(tmp_path: Path) -> None:
    draft = tmp_path / ".tmp-member-0.zip-99999999-abcd"
    draft.write_bytes(b"half")
    saved(MemberFiles(tmp_path), 0, 0)
    assert not draft.exists()


def test_a_file_that_cannot_be_deleted_stays_with_a_warning(tmp_path: Path) -> None:
    files = MemberFiles(tmp_path)
    path = saved(files, 0, 0)

    def fail(name: str, target: Path) -> None:
        if name == "prune:remove":
            raise OSError(5, "Input/output error")

    with observed(fail), pytest.warns(UserWarning, match="cannot be deleted"):
        files.drop_all_but([])
    assert path.exists()
