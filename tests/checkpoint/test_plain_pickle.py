import pickletools
import zipfile
from collections import OrderedDict

import pytest
import torch

from everlearn.checkpoint.errors import Corrupt, TooLarge, Untrusted
from everlearn.checkpoint.plain_pickle import require_plain
from tests.checkpoint.foreign_files import DATA, members_of, saved

NAMES = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage"}


def frozen() -> bytes:
    with zipfile.ZipFile(DATA / "v1" / "bare.pth") as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def test_the_pickle_of_a_state_dict_is_plain_and_each_of_its_operations_counts() -> None:
    count = sum(1 for _ in pickletools.genops(frozen()))
    require_plain(frozen(), "f", NAMES, count - 1)
    with pytest.raises(TooLarge, match="over"):
        require_plain(frozen(), "f", NAMES, count - 2)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_that_it_asks_for_has_to_be_allowed(name: str) -> None:
    with pytest.raises(Untrusted, match=f"f: its pickle asks for '{name}'"):
        require_plain(frozen(), "f", NAMES - {name}, 10_000)


def test_a_name_is_what_stands_there_byte_by_byte() -> None:
    for written in (
        b"ccollections\nOrdered\\x44ict\n.",
        b"c collections\nOrderedDict\n.",
        b"c\xd1\x81ollections\nx\n.",
    ):
        with pytest.raises(Untrusted):
            require_plain(written, "f", NAMES, 100)
    require_plain(b"ccollections\nOrderedDict\n.", "f", NAMES, 100)


PLAIN = {
    "MARK",
    "STOP",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "EMPTY_TUPLE",
    "EMPTY_LIST",
    "EMPTY_DICT",
    "APPEND",
    "APPENDS",
    "SETITEM",
    "SETITEMS",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "REDUCE",
    "BUILD",
    "BINPERSID",
    "BININT",
    "BININT1",
    "BININT2",
    "BINFLOAT",
    "BINGET",
    "LONG_BINGET",
    "BINPUT",
    "LONG_BINPUT",
    "PROTO",
    "BINUNICODE",
    "SHORT_BINSTRING",
    "LONG1",
    "GLOBAL",
}


@pytest.mark.parametrize("operation", pickletools.opcodes, ids=lambda operation: operation.name)
def test_operations_that_make_objects_in_other_ways_are_untrusted(operation: pickletools.OpcodeInfo) -> None:
    pickle = operation.code.encode("latin1") + b"collections\nOrderedDict\n."
    try:
        require_plain(pickle, "f", NAMES, 100)
        refused = False
    except Corrupt:  # the name was the argument of something else
        refused = False
    except Untrusted as error:
        refused = f"asks for {operation.name}." in str(error)
    assert refused is (operation.name not in PLAIN)


@pytest.mark.parametrize(
    "pickle", [b"", b"N", b"c", b"ccollections\n", b"c" + b"x" * 300, b"X\xff", b"\xff", b"X\xff\xff\xff\xff."]
)
def test_what_has_no_end_is_corrupt(pickle: bytes) -> None:
    with pytest.raises(Corrupt):
        require_plain(pickle, "f", NAMES, 100)


def test_every_cut_of_a_pickle_is_corrupt() -> None:
    pickle = frozen()
    for length in range(len(pickle) - 1):
        with pytest.raises(Corrupt):
            require_plain(pickle[:length], "f", NAMES, 10_000)


def test_it_agrees_with_the_standard_library_on_every_kind_of_value() -> None:
    numbers = [None, True, 300, 70_000, -1, 2**40, 1.5]
    values = [*numbers, "text", "ü" * 300, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [1], {}]
    pickle = members_of(saved(OrderedDict(values=values, tensor=torch.ones(2))))["archive/data.pkl"]
    count = sum(1 for _ in pickletools.genops(pickle))
    require_plain(pickle, "f", NAMES, count - 1)
    with pytest.raises(TooLarge):
        require_plain(pickle, "f", NAMES, count - 2)
