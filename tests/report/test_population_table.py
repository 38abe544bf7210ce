import io
from dataclasses import replace

import pytest
from rich.console import Console

from everlearn.report.population_rows import MemberRow
from everlearn.report.population_table import Segments, member_table

VALUES = {"learning_rate": 3e-4, "ent_coef": 0.01, "clip_range": 0.2, "optimizer.sigma": 1e-3, "gamma": 0.99}
ROW = MemberRow(0, 10.0, 1.0, VALUES, None, False, 5, 640, 320.0, "open", None)


def printed(rows, width: int, **options) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(member_table(rows, width, "max", **options))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def many(size: int) -> list[MemberRow]:
    return [
        replace(ROW, member_id=each, score=float(each * 37 % size), state="done" if each % 2 else "failed")
        for each in range(size)
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_every_line_fits_into_the_terminal(width: int) -> None:
    rows = [replace(ROW, member_id=f"a-member-with-a-long-name-{each}", parent="b" * 50) for each in range(4)]
    assert all(len(line) <= width for line in printed(rows, width, segments=Segments(9, {})))


def test_a_hundred_members_do_not_fill_the_screen_and_the_best_and_the_worst_are_shown() -> None:
    lines = printed(many(100), 120, most=10)
    assert len(lines) <= 10 + 2 + 2
    scores = [line.split()[1] for line in lines[2:-1] if not line.strip().startswith("...")]
    assert scores == ["99.0", "98.0", "97.0", "96.0", "95.0", "94.0", "2.00", "1.00", "0.00"]
    assert lines[-1].startswith("91 members between the best and the worst are not shown")
    assert lines[8].strip() == "..."


def test_a_few_members_stay_in_their_order() -> None:
    lines = printed(many(8), 120, most=10)
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2", "3", "4", "5", "6", "7"]


def test_the_best_is_marked_and_a_parent_named() -> None:
    lines = printed([ROW, replace(ROW, member_id=4, is_best=True, parent=3)], 120)
    assert "* 4" in lines[-1]
    assert "<- 3" in lines[-1]
    assert "*" not in lines[-2]


def test_a_segment_is_shown_as_far_as_it_is() -> None:
    rows = [replace(ROW, member_id=each) for each in range(2)] + [replace(ROW, member_id=2, state="done")]
    lines = printed(rows, 160, segments=Segments(5, {1: 3}))
    assert [line.split()[-2] for line in lines[-3:]] == ["waits", "trains", "done"]
    assert [count in line for count, line in zip(("0/5", "3/5", "5/5"), lines[-3:], strict=True)] == [True] * 3


def test_what_there_is_no_room_for_is_said() -> None:
    wide, narrow = " ".join(printed([ROW], 160)), " ".join(printed([ROW], 60))
    assert "no room" not in wide
    assert "sigma" in wide
    assert "no room for" in narrow
    assert "optimizer.sigma" in narrow
