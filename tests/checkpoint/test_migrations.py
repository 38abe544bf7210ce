"""Row 5 of the failure-mode table: formats of earlier systems, by frozen files."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from everlearn.checkpoint import migrations
from everlearn.checkpoint.errors import CheckpointError, Corrupt, Unsupported, Untrusted
from everlearn.checkpoint.migrations import Parts, read_old
from everlearn.checkpoint.sb3_files import read_sb3
from everlearn.core.digest import digest
from tests.checkpoint.foreign_files import DATA, SB3_ZIP, members_of, saved, zipped

POLICY = {"action_net.weight": torch.ones(2, 3), "action_net.bias": torch.zeros(2)}


def frozen(name: str) -> Parts:
    return read_old((DATA / name).read_bytes(), Path(name))


def original() -> dict[str, Any]:
    """The parameters that the frozen files were made of."""
    return read_sb3(io.BytesIO(SB3_ZIP.read_bytes()), "ppo.zip").parameters


def v2(**changes: Any) -> dict[str, Any]:
    document = {"format_version": "v2_full_parameters", "data": {"policy": POLICY}, "step": 3, "performance": 1.5}
    return {**document, **changes}


@pytest.mark.parametrize(
    ("name", "version", "step", "performance"),
    [("v1/bare.pth", "v1_state_dict", None, None), ("v1/named.pth", "v1_policy_only", 7, 21.5)],
)
def test_frozen_v1_files_have_the_policy_and_tell_what_is_missing(
    name: str, version: str, step: int | None, performance: float | None
) -> None:
    parts = frozen(name)
    assert parts.parameters.keys() == {"policy"}
    assert digest(parts.parameters["policy"]) == digest(original()["policy"])
    assert parts.missing == ("policy.optimizer", "vgs_state", "kl_penalty_state", "normaliser")
    assert (parts.version, parts.step, parts.performance) == (version, step, performance)


def test_a_frozen_v2_file_equals_the_parameters_it_was_saved_with() -> None:
    parts = frozen("v2/earlier.pth")
    for name, state in original().items():
        assert digest(parts.parameters[name]) == digest(state)
    assert parts.parameters["vgs_state"]["vgs_version"] == "3.2"
    assert parts.parameters["kl_penalty_state"]["kl_beta"] == 0.01
    assert parts.missing == ("normaliser",)
    assert (parts.version, parts.step, parts.performance) == ("v2_full_parameters", 9, 33.25)


def test_a_frozen_v2_file_of_everlearn_has_every_part() -> None:
    parts = frozen("v2/complete.pth")
    assert parts.parameters.keys() == {"policy", "policy.optimizer", "vgs_state", "kl_penalty_state"}
    assert parts.parameters["vgs_state"]["step_count"] == 8


@pytest.mark.parametrize("score", [np.float64(-2.5), np.float32(-2.5), -2.5, torch.tensor(-2.5)])
def test_a_score_may_be_a_number_of_numpy(score: Any) -> None:
    assert read_old(saved(v2(performance=score)), "m.pth").performance == -2.5


def test_a_number_of_an_older_numpy_is_read_under_the_name_it_had_then() -> None:
    content = saved(v2(performance=np.float64(-2.5)))
    older = _with_pickle(content, lambda pickle: pickle.replace(b"cnumpy._core.", b"cnumpy.core."))
    assert read_old(older, "m.pth").performance == -2.5


def _with_pickle(content: bytes, change: Any) -> bytes:
    members = members_of(content)
    return zipped({name: change(part) if name.endswith("data.pkl") else part for name, part in members.items()})


def test_what_torch_may_load_in_this_process_is_afterwards_what_it_was() -> None:
    before = set(torch.serialization.get_safe_globals())
    read_old(saved(v2(performance=np.float64(1))), "m.pth")
    with pytest.raises(Untrusted, match="_reconstruct"):
        read_old(saved(v2(performance=np.ones(2))), "m.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("kind", ["V999999999", "O", "U8", "M8", ">f8"])
def test_row_7_other_types_of_numpy_are_refused_before_they_ask_for_memory(kind: str) -> None:
    length = len(kind).to_bytes(4, "little")
    content = _with_pickle(
        saved(v2(performance=np.float64(1))),
        lambda pickle: pickle.replace(b"X\x02\x00\x00\x00f8", b"X" + length + kind.encode()),
    )
    with pytest.raises(Corrupt, match="torch cannot read it"):
        read_old(content, "m.pth")


def test_numbers_of_another_byte_order_are_refused() -> None:
    content = _with_pickle(
        saved(v2(performance=np.float64(1))),
        lambda pickle: pickle.replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>"),
    )
    with pytest.raises(Corrupt, match="byte order"):
        read_old(content, "m.pth")


def test_each_migration_leaves_the_document_it_is_given_alone() -> None:
    named = migrations.named_from_bare(POLICY)
    before = copy.deepcopy(named)
    full = migrations.full_from_policy(named)
    assert repr(named) == repr(before)
    assert full["data"] == {"policy": POLICY}
    assert full["format_version"] == "v2_full_parameters"
    second = v2(data={"policy": POLICY, "optimizer_state": {"state": {}}})
    migrations.parts_of(second, "m.pth")
    assert second["data"].keys() == {"policy", "optimizer_state"}


def test_an_optimizers_second_copy_is_taken_only_where_the_first_is_missing() -> None:
    first, second = {"state": {}, "param_groups": [1]}, {"state": {}, "param_groups": [2]}
    parts = migrations.parts_of(v2(data={"policy": POLICY, "optimizer_state": second}), "m.pth")
    assert parts.parameters["policy.optimizer"] == second
    assert parts.missing == ("vgs_state", "kl_penalty_state", "normaliser")
    both = {"policy": POLICY, "policy.optimizer": first, "optimizer_state": second}
    assert migrations.parts_of(v2(data=both), "m.pth").parameters["policy.optimizer"] == first


@pytest.mark.parametrize(
    "document",
    [
        {"format_version": "v4_from_tomorrow", "data": {}},
        {"format_version": "v2_full_parameters", "data": 3},
        {"format_version": 2},
        {},
        {"a": 1},
        [torch.ones(1)],
        torch.ones(1),
    ],
)
def test_row_6_other_formats_are_unsupported(document: Any) -> None:
    with pytest.raises(Unsupported):
        read_old(saved(document), "m.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {}}, "no policy"),
        ({"data": {"policy": torch.ones(1)}}, "no states of parts"),
        ({"step": "many"}, "m.pth, step: it is 'many'"),
        ({"performance": True}, "m.pth, performance: it is True"),
    ],
)
def test_parts_that_are_not_what_they_should_be_are_corrupt(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        read_old(saved(v2(**changes)), "m.pth")


def test_row_1_a_cut_file_is_truncated_at_every_length() -> None:
    content = (DATA / "v2" / "earlier.pth").read_bytes()
    for length in range(0, len(content), 97):
        with pytest.raises(CheckpointError):
            read_old(content[:length], "m.pth")
