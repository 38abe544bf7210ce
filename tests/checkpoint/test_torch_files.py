"""Row 4 of the failure-mode table, for files of torch.save: tensors and plain data, and nothing that runs."""

import io
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import pytest
import torch

from everlearn.checkpoint.errors import CheckpointError, Corrupt, TooLarge, Truncated, Unsupported, Untrusted
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.torch_files import load_plain
from tests.checkpoint.foreign_files import PAYLOAD, payload_ran, saved, torch_zip, zipped


def two_in_one(seen_by_python: bytes, seen_by_torch: bytes) -> bytes:
    """One file with two archives: the locator leads elsewhere than to the record that stands before it."""
    members, directories, counts = b"", [], []
    for content in (seen_by_python, seen_by_torch):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as plain:
                for name in archive.namelist():
                    plain.writestr(name, archive.read(name))
            counts.append(len(plain.infolist()))
            start = plain.start_dir
        directory = bytearray(file.getvalue()[start:-22])
        for at in [index for index in range(len(directory)) if directory.startswith(b"PK\x01\x02", index)]:
            (offset,) = struct.unpack_from("<I", directory, at + 42)
            struct.pack_into("<I", directory, at + 42, offset + len(members))
        members += file.getvalue()[:start]
        directories.append(bytes(directory))
    first, second = directories
    second_record = len(members) + len(second)
    content = members + second + wide_record(counts[1], len(second), len(members))
    content += first + wide_record(counts[0], len(first), len(content))
    content += b"PK\x06\x07" + struct.pack("<IQI", 0, second_record, 1)
    return content + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, *2 * (0xFFFF,), *2 * (0xFFFFFFFF,), 0)


def wide_record(count: int, size: int, place: int) -> bytes:
    """The record of a directory in 64 bits."""
    return b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, place)


def loaded(content: bytes, limits: Limits = LIMITS, **options: Any) -> Any:
    return load_plain(content, "a.zip", "policy.pth", limits, **options)


def test_tensors_and_plain_data_come_back_as_they_were() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    state = loaded(saved(module.state_dict()))
    assert type(state) is dict
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    assert state.keys() == module.state_dict().keys()
    again = loaded(saved(optimizer.state_dict()))
    assert again["param_groups"] == optimizer.state_dict()["param_groups"]
    assert torch.equal(again["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    plain = {"a": [1, 2.5, None, True, "x"], 3: (torch.tensor(2), {})}
    assert repr(loaded(saved(plain))) == repr(plain)


def test_parameters_become_plain_tensors() -> None:
    tensor = loaded(saved({"w": torch.nn.Parameter(torch.ones(2))}))["w"]
    assert type(tensor) is torch.Tensor
    assert not tensor.requires_grad


ATTACKS = {
    "a call": PAYLOAD,
    "a call, protocol 4": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.",
    "an instance": b"(ios\nsystem\n(S'ls'\n.",
    "memory": b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    "a sparse tensor": b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R.",
    "a new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "numpy": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R.",
}


@pytest.mark.parametrize("pickle", ATTACKS.values(), ids=ATTACKS)
def test_what_plain_tensors_do_without_is_untrusted_and_not_run(pickle: bytes) -> None:
    with pytest.raises(Untrusted, match=r"a\.zip, policy\.pth: its pickle asks for"):
        loaded(torch_zip(pickle))
    assert not payload_ran()


def test_what_was_added_to_torchs_list_in_this_process_is_untrusted_all_the_same() -> None:
    with torch.serialization.safe_globals([exec]):
        with pytest.raises(Untrusted, match=r"builtins\.exec"):
            loaded(torch_zip(PAYLOAD))
        assert torch.load(io.BytesIO(torch_zip(PAYLOAD)), weights_only=True) is None
    assert payload_ran()  # the attack is one


def test_substitutes_are_known_to_torch_while_a_file_is_read_and_no_longer() -> None:
    before = set(torch.serialization.get_safe_globals())
    pickle = b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R."
    assert loaded(torch_zip(pickle), substitutes={"numpy.dtype": str.upper}) == "F8"
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(Corrupt, match="torch cannot read it"):
        loaded(torch_zip(pickle), substitutes={"numpy.dtype": int})
    assert set(torch.serialization.get_safe_globals()) == before


def test_row_7_a_tensor_that_claims_more_than_the_file_holds_is_corrupt() -> None:
    with pytest.raises(Corrupt, match=r"claims the shape \(1000000000000,\)"):
        loaded(saved({"w": torch.zeros(1).expand(10**12)}))


def test_row_7_a_list_that_holds_itself_over_and_over_is_too_large() -> None:
    nested: list[Any] = [1]
    for _ in range(30):
        nested = [nested, nested]
    with pytest.raises(TooLarge, match="nested without end"):
        loaded(saved(nested))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TooLarge, match="nested without end"):
        loaded(saved(endless))


def test_row_7_a_pickle_of_many_operations_is_too_large() -> None:
    with pytest.raises(TooLarge, match="over 300 operations"):
        loaded(saved(list(range(1000))), Limits(tensors=10))
    with pytest.raises(TooLarge, match="header_bytes"):
        loaded(saved(list(range(1000))), Limits(header_bytes=1000))


def test_other_objects_are_untrusted() -> None:
    with pytest.raises(Untrusted, match="holds a function"):
        loaded(torch_zip(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n."))
    with pytest.raises(Corrupt, match="tuple for a key"):
        loaded(saved({(1, 2): 3}))


def test_compression_inside_is_corrupt_because_sizes_are_then_only_claims() -> None:
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(1000)}))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with pytest.raises(Corrupt, match="compressed inside"):
        loaded(zipped(members, zipfile.ZIP_DEFLATED))
    assert loaded(zipped(members))["w"].shape == (1000,)


def test_torch_reads_the_very_bytes_that_were_checked() -> None:
    """Python and torch follow different records of this file, and so find two archives in it."""
    content = two_in_one(saved({"w": torch.ones(2)}), torch_zip(PAYLOAD))
    with torch.serialization.safe_globals([exec]):
        assert torch.load(io.BytesIO(content), weights_only=True) is None
    assert payload_ran()
    assert loaded(content)["w"].tolist() == [1.0, 1.0]
    assert not payload_ran()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", Unsupported),
        (PAYLOAD, Untrusted),
        (saved([1])[:500], Truncated),
        (zipped({"readme.txt": b""}), Unsupported),
        (zipped({"a/data.pkl": b"\x80\x02N.", "a/constants.pkl": b""}), Unsupported),
        (zipped({"a/data.pkl": b"\x80\x02N.", "b/data.pkl": b""}), Unsupported),
        (zipped({"a/data.pkl": b"\x80\x02N.", "version": b"3"}), Unsupported),
        (torch_zip(b""), Corrupt),
        (torch_zip(b"\x80\x02\xff"), Corrupt),
        (torch_zip(b"\x80\x02."), Corrupt),
        (torch_zip(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."), Corrupt),
    ],
)
def test_what_is_no_file_of_tensors_is_refused_within_the_family(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        loaded(content)


def test_a_torch_that_reads_unsafely_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(Unsupported, match=r"2\.9\.1"):
        loaded(saved({"w": torch.zeros(1)}))


def test_row_2_a_flipped_bit_is_told_or_changes_nothing_and_never_leaves_the_family() -> None:
    state = OrderedDict(w=torch.arange(6.0).reshape(2, 3), b=torch.ones(2))
    content = saved(state)
    for position in range(0, 8 * len(content), 7):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        try:
            found = loaded(bytes(damaged))
        except CheckpointError:
            continue
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items()), position
