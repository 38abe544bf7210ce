import io
import json
import zipfile

import pytest
import torch

from everlearn.checkpoint.errors import Corrupt, TooLarge, Untrusted
from everlearn.checkpoint.limits import Limits
from everlearn.checkpoint.sb3_files import inspect_sb3, read_sb3
from tests.checkpoint.foreign_files import (
    PAYLOAD,
    SB3_ZIP,
    payload_ran,
    pickled_value,
    saved,
    sb3_data,
    sb3_zip,
    torch_zip,
)

PICKLED = (
    "policy_class",
    "_last_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
    "observation_space",
    "action_space",
    "rollout_buffer_class",
    "clip_range",
    "lr_schedule",
)


def file_of(content: bytes) -> io.BytesIO:
    return io.BytesIO(content)


def test_the_report_tells_version_spaces_pickled_keys_and_members() -> None:
    report = inspect_sb3(file_of(SB3_ZIP.read_bytes()), "ppo.zip")
    assert report.version == "2.9.2"
    assert report.spaces["action_space"] == "Discrete, dtype int64, shape [], n 2, start 0"
    assert report.pickled == PICKLED
    assert report.members["policy.pth"] > 1000


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tensors_and_plain_values_are_read_and_the_rest_is_named(compression: int) -> None:
    content = read_sb3(file_of(sb3_zip(compression=compression)), "ppo.zip")
    assert content.parameters.keys() == {"policy", "policy.optimizer"}
    assert content.parameters["policy"]["action_net.weight"].shape == (2, 8)
    assert content.plain["gamma"] == 0.97
    assert content.plain["num_timesteps"] == 128
    assert content.left == PICKLED
    assert not content.plain.keys() & set(PICKLED)


def test_a_pickle_deep_inside_a_value_makes_it_a_pickled_one() -> None:
    changed = sb3_data(policy_kwargs={"net_arch": [1], "more": [{"class": pickled_value()}]})
    content = read_sb3(file_of(sb3_zip(changed)), "ppo.zip")
    assert "policy_kwargs" in content.left
    assert "policy_kwargs" not in content.plain


def test_numbers_that_strict_json_lacks_are_read_because_sb3_writes_them() -> None:
    content = read_sb3(file_of(sb3_zip(sb3_data(max_grad_norm=float("inf")))), "ppo.zip")
    assert content.plain["max_grad_norm"] == float("inf")


def test_variables_that_belong_to_no_part_are_left() -> None:
    content = read_sb3(file_of(sb3_zip({"pytorch_variables.pth": saved({"log_ent_coef": torch.ones(1)})})), "sac.zip")
    assert content.left == (*PICKLED, "pytorch_variables")
    assert "pytorch_variables" not in content.parameters


def test_a_file_without_data_still_has_its_tensors() -> None:
    content = read_sb3(file_of(sb3_zip({"data": None})), "ppo.zip")
    assert (content.plain, content.left) == ({}, ())
    assert "policy" in content.parameters


@pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "unknown.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("attack", [PAYLOAD, torch_zip(PAYLOAD)], ids=["a pickle", "in a file of torch"])
def test_row_4_a_member_with_a_malicious_pickle_is_refused_and_nothing_runs(member: str, attack: bytes) -> None:
    with pytest.raises(Untrusted, match=f"ppo.zip, {member}"):
        read_sb3(file_of(sb3_zip({member: attack})), "ppo.zip")
    assert not payload_ran()


def test_row_4_malicious_values_in_data_are_named_and_not_run() -> None:
    attacked = sb3_zip(sb3_data(clip_range=pickled_value(), unknown=pickled_value()))
    assert "unknown" in inspect_sb3(file_of(attacked), "ppo.zip").pickled
    assert read_sb3(file_of(attacked), "ppo.zip").left == (*PICKLED, "unknown")
    assert not payload_ran()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"\xff", Corrupt, "no JSON"),
        (b"{", Corrupt, "no JSON"),
        (b"[]", Corrupt, "list, no object"),
        (b'{"a": 1, "a": 2}', Corrupt, "twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", Corrupt, "no JSON"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", TooLarge, "deeper than 32"),
        (b"[" * 100_000, TooLarge, "too deeply"),
    ],
)
def test_damaged_data_is_refused_within_the_family(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"ppo.zip, data: .*{message}"):
        read_sb3(file_of(sb3_zip({"data": data})), "ppo.zip")


def test_row_7_limits_are_those_of_the_caller() -> None:
    with pytest.raises(TooLarge, match="json_bytes"):
        inspect_sb3(file_of(SB3_ZIP.read_bytes()), "ppo.zip", Limits(json_bytes=100))
    with pytest.raises(TooLarge, match="file_bytes"):
        read_sb3(file_of(SB3_ZIP.read_bytes()), "ppo.zip", Limits(file_bytes=100))


def test_a_version_that_is_no_version_is_left_out() -> None:
    report = inspect_sb3(file_of(sb3_zip({"_stable_baselines3_version": b"x" * 10_000})), "ppo.zip")
    assert report.version is None
    assert "unknown version" in str(report)


def test_the_frozen_file_is_what_stable_baselines3_writes() -> None:
    data = json.loads(zipfile.ZipFile(SB3_ZIP).read("data"))
    assert tuple(key for key, value in data.items() if isinstance(value, dict) and ":serialized:" in value) == PICKLED
