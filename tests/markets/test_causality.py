"""What looks ahead is found by taking the rows away that it looks at."""

import polars as pl
import pytest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.markets.causality import require_causal

BARS = pl.DataFrame({"close": [float((7 * number) % 11 + 1) for number in range(200)]})
CLOSE = pl.col("close")


@pytest.mark.parametrize(
    "feature",
    [CLOSE.diff(), CLOSE.rolling_mean(10), CLOSE.cum_sum(), CLOSE.shift(1), CLOSE / CLOSE.rolling_std(5)],
)
def test_what_looks_back_is_causal(feature: pl.Expr) -> None:
    lengths = require_causal(lambda bars: bars.with_columns(feature=feature), BARS, prefixes=8)
    assert lengths == sorted(set(lengths))
    assert 199 in lengths and len(lengths) <= 8 and all(0 < length < 200 for length in lengths)


@pytest.mark.parametrize(
    "feature",
    [
        CLOSE.shift(-1),
        CLOSE.rolling_mean(11, center=True),
        CLOSE / CLOSE.mean(),
        CLOSE.rank(),
        CLOSE.shift(3).fill_null(strategy="backward"),
        pl.len() - pl.int_range(pl.len()),
    ],
)
def test_what_looks_ahead_is_named_with_its_row(feature: pl.Expr) -> None:
    with pytest.raises(DataError, match=r"'feature' looks ahead: in row \d+ it is .* with all rows, and .* with the"):
        require_causal(lambda bars: bars.with_columns(feature=feature), BARS)


def test_a_result_has_a_row_for_each_row() -> None:
    with pytest.raises(DataError, match="The result has 199 rows for 200"):
        require_causal(lambda bars: bars.tail(-1), BARS)
    with pytest.raises(DataError, match=r"The result has 0 rows for the first \d+"):
        require_causal(lambda bars: bars if bars.height == 200 else bars.clear(), BARS)


def test_one_row_has_no_prefix() -> None:
    assert require_causal(lambda bars: bars, BARS.head(1)) == []
    with pytest.raises(ArgumentError, match="prefixes"):
        require_causal(lambda bars: bars, BARS, prefixes=0)
