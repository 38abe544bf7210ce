from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError
from everlearn.markets.splits import Fold, walk_forward


def windows(folds: list[Fold]) -> list[tuple[int, int, int, int]]:
    return [(fold.train.start, fold.train.stop, fold.test.start, fold.test.stop) for fold in folds]


@st.composite
def settings_that_fit(draw: st.DrawFn) -> tuple[int, int, dict[str, int | None]]:
    folds, purge, embargo = draw(st.integers(1, 8)), draw(st.integers(0, 5)), draw(st.integers(0, 7))
    min_train = draw(st.integers(1, 40))
    train_bars = draw(st.none() | st.integers(min_train, 60))
    tested = draw(st.integers(folds, 120))
    given = {"purge": purge, "embargo": embargo, "min_train": min_train, "train_bars": train_bars}
    return min_train + purge + embargo + tested, folds, given


def test_a_growing_window_begins_with_the_first_bar() -> None:
    folds = walk_forward(20, 3, purge=2, embargo=1, min_train=5)
    assert windows(folds) == [(0, 5, 8, 12), (0, 9, 12, 16), (0, 13, 16, 20)]


def test_a_rolling_window_keeps_its_length() -> None:
    folds = walk_forward(20, 3, purge=2, embargo=1, train_bars=5)
    assert windows(folds) == [(0, 5, 8, 12), (4, 9, 12, 16), (8, 13, 16, 20)]


def test_a_rolling_window_may_begin_shorter() -> None:
    folds = walk_forward(20, 3, purge=2, embargo=1, train_bars=7, min_train=5)
    assert windows(folds) == [(0, 5, 8, 12), (2, 9, 12, 16), (6, 13, 16, 20)]


def test_without_sizes_the_table_is_divided_into_equal_parts_of_which_the_first_is_not_tested() -> None:
    assert windows(walk_forward(12, 3)) == [(0, 1, 3, 6), (0, 4, 6, 9), (0, 7, 9, 12)]
    assert windows(walk_forward(13, 3)) == [(0, 2, 4, 7), (0, 5, 7, 10), (0, 8, 10, 13)]


def test_the_last_reward_of_training_is_known_before_the_test_begins() -> None:
    """A decision at t earns until t + 2, which is the last bar of the default gap."""
    for fold in walk_forward(100, 4):
        assert fold.train[-1] + 2 == fold.test[0] - 1


def test_test_windows_differ_by_at_most_one_bar() -> None:
    assert [len(fold.test) for fold in walk_forward(20, 4, purge=0, min_train=9)] == [2, 3, 3, 3]


@given(settings_that_fit())
def test_tests_tile_the_last_bars_in_order(case: tuple[int, int, dict[str, int | None]]) -> None:
    bars, number, settings = case
    folds = walk_forward(bars, number, **settings)
    tested = [bar for fold in folds for bar in fold.test]
    assert len(folds) == number
    assert tested == list(range(tested[0], bars))
    lengths = {len(fold.test) for fold in folds}
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@given(settings_that_fit())
def test_training_ends_exactly_the_gap_before_its_test(case: tuple[int, int, dict[str, int | None]]) -> None:
    bars, number, settings = case
    for fold in walk_forward(bars, number, **settings):
        assert fold.gap == settings["purge"] + settings["embargo"]
        assert fold.train.stop + fold.gap == fold.test.start
        assert fold.train.start >= 0


@given(settings_that_fit())
def test_training_windows_have_the_sizes_asked_for(case: tuple[int, int, dict[str, int | None]]) -> None:
    bars, number, settings = case
    folds = walk_forward(bars, number, **settings)
    assert folds[0].train == range(settings["min_train"])
    for fold in folds:
        longest = fold.train.stop if settings["train_bars"] is None else settings["train_bars"]
        assert len(fold.train) == min(fold.train.stop, longest)


@pytest.mark.parametrize(
    ("bars", "folds", "settings", "message"),
    [
        (0, 1, {}, r"bars=0 is outside \[1, inf\)"),
        (10, 0, {}, r"folds=0 is outside \[1, inf\)"),
        (10, 2, {"purge": -1}, r"purge=-1 is outside \[0, inf\)"),
        (10, 2, {"embargo": -1}, r"embargo=-1 is outside \[0, inf\)"),
        (10, 2, {"train_bars": 0}, r"train_bars=0 is outside \[1, inf\)"),
        (10, 2, {"min_train": 0}, r"min_train=0 is outside \[1, 10\]"),
        (10, 2, {"min_train": 6, "train_bars": 5}, r"min_train=6 is outside \[1, 5\]"),
        (
            10,
            2,
            {"min_train": 7},
            "Of 10 bars, 1 are left for 2 test windows after .* of 7 and a gap of 2. .*lower folds",
        ),
        (10, 2, {"min_train": 9}, "Of 10 bars, 0 are left"),
        (12, 3, {"purge": 3}, "first of 4 equal parts of 12 bars has 3, which leaves none .* gap of 3.*set min_train"),
    ],
)
def test_impossible_numbers_are_errors_that_name_what_to_change(
    bars: int, folds: int, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        walk_forward(bars, folds, **settings)


def test_one_bar_for_each_test_is_enough() -> None:
    assert windows(walk_forward(10, 2, min_train=6)) == [(0, 6, 8, 9), (0, 7, 9, 10)]


def test_a_fold_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Fold(range(3), range(5, 8)).train = range(9)
