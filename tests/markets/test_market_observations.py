"""What an agent sees of a market lies at or before the bar it decides on."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import DataError
from everlearn.markets import FeatureSpec, MarketEnv
from tests.markets.small_markets import ACCOUNT, CLOSES, PRICES, act, market, plain, table


@settings(max_examples=30)
@given(st.integers(0, 20), st.integers(1, 6), st.booleans())
def test_no_observation_depends_on_later_bars(bar: int, window: int, account: bool) -> None:
    spec = FeatureSpec.fit(PRICES, ["return_1", "momentum_8"], window=window, account=ACCOUNT if account else ())
    numbered = PRICES.with_columns(bar=pl.int_range(pl.len()).over("symbol"))
    later = pl.col("bar") > bar + window - 1
    changes = {
        name: pl.when(later).then(pl.col(name) * 1.01 + 0.001).otherwise(name) for name in numbered.columns[2:-1]
    }
    seen = []
    for frame in (numbered, numbered.with_columns(**changes)):
        env = MarketEnv(frame, spec, random_start=False)
        first, _ = env.reset(options={"symbol": "S1"})
        seen.append([first.tobytes(), *(each[0].tobytes() for each in act(env, *np.linspace(-1, 1, 25)))])
    assert seen[0][: bar + 1] == seen[1][: bar + 1]
    assert seen[0][bar + 1] != seen[1][bar + 1]


def test_observations_are_in_their_space() -> None:
    wild = market([100.0, 101.0, 102.0, 103.0], FeatureSpec(("x",), (1.5,), (0.01,), ("Float64",), clip=0.1))
    assert (wild.observation_space.low.item(), wild.observation_space.high.item()) == (
        -np.float32(0.1),
        np.float32(0.1),
    )
    assert wild.reset(options={"bar": 0})[0] in wild.observation_space
    accounted = market(spec=plain(window=2, account=ACCOUNT))
    assert accounted.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)


def test_leading_gaps_are_skipped_and_others_refused() -> None:
    gap = table(CLOSES).with_columns(x=pl.Series([None, math.nan, 2.0, 3.0, 4.0]))
    env = MarketEnv(gap, plain(), random_start=False)
    assert env.reset()[1]["bar"] == 2
    with pytest.raises(DataError, match=r"missing at or shortly before 1970-01-01T03:00:00\+00:00"):
        MarketEnv(table(CLOSES).with_columns(x=pl.Series([0.0, 1.0, 2.0, None, 4.0])), plain())
