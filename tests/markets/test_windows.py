"""What the policy sees of bars, and whether they can be decided on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import OrderError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.windows import FeatureWindows, Reason

SECOND = 1_000_000


def spec(window: int = 1, **options: Any) -> FeatureSpec:
    """Features that are 0 at 10 and 100, and 1 at 12 and 150."""
    return FeatureSpec(("a", "b"), (10.0, 100.0), (2.0, 50.0), ("Float64", "Float64"), window=window, **options)


def plain(window: int = 1, **options: Any) -> FeatureSpec:
    """One feature, as it is."""
    return FeatureSpec(("x",), (0.0,), (1.0,), ("Float64",), window=window, **options)


def windows(which: FeatureSpec, values: list[Any], times: list[int] | None = None) -> FeatureWindows:
    columns = np.array(values, np.float64).reshape(len(values), -1)
    return FeatureWindows(which, columns, np.array(times or range(len(values)), np.int64) * SECOND)


def reasons(which: FeatureSpec, values: list[Any], times: list[int] | None = None) -> list[str]:
    return [Reason(each).name for each in windows(which, values, times).reasons]


def test_features_are_standardised_in_order() -> None:
    seen = windows(spec(), [[10, 100], [12, 100], [8, 200]]).observations(slice(None))
    assert (seen.dtype, seen.tolist()) == (np.float32, [[0, 0], [1, 0], [-1, 2]])


def test_a_window_holds_the_last_bars_with_the_oldest_first() -> None:
    seen = windows(spec(2), [[10, 100], [12, 100], [8, 200]]).observations(slice(1, None))
    assert seen.tolist() == [[0, 0, 1, 0], [1, 0, -1, 2]]


def test_bars_are_chosen_by_their_position() -> None:
    assert windows(plain(), [5, 6, 7]).observations(slice(1, 2)).tolist() == [[6]]


def test_the_account_comes_after_the_features() -> None:
    seen = windows(plain(2), [5, 6, 7]).observations(slice(1, None), np.array([[0.5, 0.25], [-1, 0]]))
    assert (seen.dtype, seen.tolist()) == (np.float32, [[5, 6, 0.5, 0.25], [6, 7, -1, 0]])


def test_an_observation_is_a_copy() -> None:
    made = windows(plain(2), [5, 6, 7])
    made.observations(slice(None))[:] = 99
    assert made.observations(slice(1, 2)).tolist() == [[5, 6]]


def test_what_lies_beyond_the_clip_is_clipped_and_out_of_range() -> None:
    made = windows(plain(clip=3.0), [2.9, 3.0, -7, np.inf, -np.inf, 0])
    assert made.observations(slice(1, None)).tolist() == [[3], [-3], [3], [-3], [0]]
    assert [Reason(each).name for each in made.reasons] == ["ok", *["out_of_range"] * 4, "ok"]


def test_a_value_that_overflows_when_standardised_is_out_of_range() -> None:
    tiny = FeatureSpec(("x",), (-1e308,), (1e-3,), ("Float64",))
    made = windows(tiny, [1.7e308])
    assert (made.observations(slice(None)).tolist(), made.reasons.tolist()) == ([[10]], [Reason.out_of_range])


def test_a_bar_is_not_decided_on_for_as_long_as_a_fault_is_in_the_window() -> None:
    assert reasons(plain(3), [0, 0, 0, np.nan, 0, 0, 0]) == ["warmup"] * 2 + ["ok"] + ["nan_feature"] * 3 + ["ok"]
    assert reasons(plain(3), [0, 0, 0, 99, 0, 0, 0]) == ["warmup"] * 2 + ["ok"] + ["out_of_range"] * 3 + ["ok"]
    assert reasons(plain(1), [0, np.nan, 0]) == ["ok", "nan_feature", "ok"]


def test_nothing_missing_is_observed_as_a_number_that_is_none() -> None:
    seen = windows(spec(2), [[10, 100], [np.nan, 150], [12, 100]]).observations(slice(1, None))
    assert seen.tolist() == [[0, 0, 0, 1], [0, 1, 1, 0]]


def test_a_window_is_stale_while_too_long_a_gap_is_in_it() -> None:
    times = [0, 1, 2, 10, 11, 12, 13]
    assert reasons(plain(3, max_gap_seconds=1), [0] * 7, times) == [*["warmup"] * 2, "ok", *["stale"] * 2, "ok", "ok"]


@pytest.mark.parametrize("window", [1, 2])
def test_without_bars_before_it_a_bar_is_stale_by_the_time_since_the_last_one(window: int) -> None:
    found = reasons(plain(window, max_gap_seconds=5), [0, 0, 0, 0], [0, 5, 11, 12])
    assert found[1:] == ["ok", "stale", "ok"]


def test_without_a_largest_gap_nothing_is_stale() -> None:
    assert reasons(plain(), [0, 0], [0, 10**9]) == ["ok", "ok"]


def test_of_several_reasons_the_highest_is_given() -> None:
    gap = plain(2, max_gap_seconds=1)
    assert reasons(gap, [0, 99, 0], [0, 9, 10]) == ["warmup", "out_of_range", "out_of_range"]
    assert reasons(gap, [0, 99, np.nan], [0, 9, 10]) == ["warmup", "out_of_range", "nan_feature"]
    assert reasons(gap, [np.nan, 0, 0], [0, 1, 9]) == ["warmup", "nan_feature", "stale"]
    assert reasons(plain(), [np.nan]) == ["nan_feature"]


@pytest.mark.parametrize("window", [1, 3])
def test_of_no_bars_nothing_is_seen(window: int) -> None:
    made = FeatureWindows(spec(window), np.zeros((0, 2)), np.zeros(0, np.int64))
    assert (len(made), made.reasons.shape, made.observations(slice(None)).shape) == (0, (0,), (0, 2 * window))
    assert (made.history().bars, made.history().last) == (0, None)


def test_fewer_bars_than_a_window_are_all_warm_up() -> None:
    made = windows(plain(5), [1, 2, 3])
    assert (len(made), made.reasons.tolist()) == (3, [Reason.warmup] * 3)


def test_raw_features_are_as_they_are_and_the_mean_where_they_are_missing() -> None:
    columns, times = np.array([[10, 1e17 + 16], [np.nan, np.inf], [8, 200.0]]), np.arange(3)
    before = None
    for start, end in ((0, 1), (1, 3)):
        part = FeatureWindows(spec(2), columns[start:end], times[start:end], before, raw=True)
        before = part.history()
    seen = part.observations(slice(None), np.array([[0.5], [1.0]]), raw=True)
    assert seen.dtype == np.float64
    assert seen.tolist() == [[10, 1e17 + 16, 10, np.inf, 0.5], [10, np.inf, 8, 200, 1]]
    first = FeatureWindows(spec(2), columns, times, raw=True).observations(slice(0, 1), raw=True)
    assert first.tolist() == [[10, 100, 10, 1e17 + 16]]
    with pytest.raises(OrderError, match=r"kept no raw features. Make them with raw=True"):
        windows(spec(), [[10, 100]]).observations(slice(None), raw=True)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([0.5, 1.0, -2.0, 99.0, np.inf, np.nan]), max_size=12),
    st.lists(st.integers(0, 12), max_size=4),
    st.integers(1, 5),
    st.lists(st.sampled_from([1, 9]), min_size=12, max_size=12),
)
def test_bars_in_pieces_are_observed_as_in_one(values: list[float], cuts: list[int], window: int, gaps: Any) -> None:
    which = plain(window, max_gap_seconds=5)
    times = np.cumsum(gaps[: len(values)]).astype(np.int64) * SECOND
    columns = np.array(values, np.float64).reshape(-1, 1)
    whole = FeatureWindows(which, columns, times)
    ends = sorted(min(cut, len(values)) for cut in [0, *cuts, len(values)])
    before, seen, found = None, [], []
    for start, end in itertools.pairwise(ends):
        part = FeatureWindows(which, columns[start:end], times[start:end], before)
        before = part.history()
        seen.append(part.observations(slice(None)))
        found += part.reasons.tolist()
    assert found == whole.reasons.tolist()
    assert np.concatenate(seen).tobytes() == whole.observations(slice(None)).tobytes()


def test_what_is_remembered_keeps_no_bars_in_memory_but_the_last() -> None:
    for window in (1, 4):
        history = windows(spec(window), [[10, 100]] * 50).history()
        assert history.values.shape == (window - 1, 2)
        assert history.values.base is None
        assert history.faults.base is None
