"""What the policy sees is written down, fitted on the rows that are given, and goes with the model."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from everlearn import PPO
from everlearn.core.errors import ArgumentError, DataError, StateError
from everlearn.markets import FeatureSpec, MarketEnv, Thresholds

WHOLE = FeatureSpec(
    features=("a", "b"),
    mean=(0.1, -2.5e-17),
    std=(1 / 3, 1e9),
    dtypes=("Float64", "Boolean"),
    window=4,
    clip=5.0,
    account=("position", "open_return"),
    timestamp="time",
    symbol="name",
    price="b",
    bar_seconds=60.0,
    max_gap_seconds=3600.0,
    fitted_until="2024-01-01T00:00:00+00:00",
    thresholds=Thresholds(0.5, -0.25, 0.0),
)


def table(**columns: Any) -> pl.DataFrame:
    size = len(next(iter(columns.values())))
    return pl.DataFrame({"timestamp": np.arange(size), **columns})


def test_plain_data_through_json_makes_an_equal_specification() -> None:
    data = json.loads(json.dumps(WHOLE.as_dict(), allow_nan=False))
    assert data["kind"] == "market"
    assert data == WHOLE.as_dict()
    assert FeatureSpec.from_dict(data) == WHOLE


def test_thresholds_reach_to_the_ends_of_the_scores() -> None:
    assert Thresholds(1.0, -1.0, 1.0) == Thresholds(buy=1, sell=-1, dead_zone=1)
    assert Thresholds(-0.9, -1.0, 0.0).buy == -0.9


def test_columns_and_size_follow_from_it() -> None:
    assert (WHOLE.columns, WHOLE.size) == (("time", "name", "a", "b"), 4 * 2 + 2)
    assert replace(WHOLE, symbol=None).columns == ("time", "a", "b")


def test_statistics_are_the_mean_and_the_deviation_of_the_rows() -> None:
    spec = FeatureSpec.fit(table(a=[1.0, 2.0, 3.0, 6.0], b=[5, 5, 9, 9]), ["a", "b"])
    assert spec.mean == (3.0, 7.0)
    assert spec.std == pytest.approx((math.sqrt(3.5), 2.0))
    assert (spec.dtypes, spec.fitted_until) == (("Float64", "Int64"), "1970-01-01T00:00:03+00:00")


def test_values_that_are_missing_or_infinite_are_left_out_of_the_statistics() -> None:
    spec = FeatureSpec.fit(table(a=[1.0, math.nan, None, math.inf, -math.inf, 3.0]), ["a"])
    assert (spec.mean, spec.std) == ((2.0,), (1.0,))


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_constant_feature_is_not_divided_by_rounding_errors(value: float) -> None:
    spec = FeatureSpec.fit(table(a=[value] * 1001), ["a"])
    assert spec.std == (1.0,)
    assert abs(spec.standardised(np.array([value])).item()) < 1e-5


@pytest.mark.parametrize("size", [1e-100, 1e-20, 2.0, 1e100])
def test_the_deviation_of_a_feature_around_nought_is_its_own_however_small(size: float) -> None:
    assert FeatureSpec.fit(table(a=[-size, size]), ["a"]).std == pytest.approx((size,))


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.Int16, pl.UInt32, pl.Int64, pl.UInt64, pl.Int128, pl.Float32])
def test_numbers_of_every_type_are_features(dtype: Any) -> None:
    spec = FeatureSpec.fit(table(a=pl.Series([1, 3], dtype=dtype)), ["a"])
    assert (spec.mean, spec.std, spec.dtypes) == ((2.0,), (1.0,), (str(dtype),))


def test_truth_values_are_features() -> None:
    assert FeatureSpec.fit(table(a=[True, False]), ["a"]).mean == (0.5,)


def test_the_standardisation_of_arrays_and_tensors_is_one() -> None:
    spec = FeatureSpec(("a", "b"), (10.0, 0.0), (2.0, 0.5), ("Float64",) * 2, clip=3.0)
    values = [[14.0, 0.25], [99.0, -99.0]]
    assert spec.standardised(np.array(values)).tolist() == [[2.0, 0.5], [3.0, -3.0]]
    as_tensor = spec.standardised(torch.tensor(values, dtype=torch.float32))
    assert (as_tensor.dtype, as_tensor.tolist()) == (torch.float64, [[2.0, 0.5], [3.0, -3.0]])


def test_a_column_named_symbol_says_whose_the_bars_are_unless_told_otherwise() -> None:
    frame = table(symbol=["x", "y"], a=[1.0, 2.0])
    assert FeatureSpec.fit(frame, ["a"]).symbol == "symbol"
    assert FeatureSpec.fit(frame, ["a"], symbol=None).symbol is None
    assert FeatureSpec.fit(table(a=[1.0, 2.0]), ["a"]).symbol is None


def test_options_are_attributes() -> None:
    frame = table(a=[1.0, 2.0], time=["2024-01-01", "2024-01-02"])
    spec = FeatureSpec.fit(frame, ["a"], window=3, timestamp="time", thresholds={"buy": 0.2}, account=["position"])
    assert (spec.window, spec.thresholds, spec.account) == (3, Thresholds(buy=0.2), ("position",))
    assert spec.fitted_until == "2024-01-02T00:00:00+00:00"


@pytest.mark.parametrize(
    ("frame", "features", "options", "message"),
    [
        (table(a=[1.0]), ["a"], {"windw": 3}, "FeatureSpec.fit: there is no option 'windw'. Did you mean 'window'"),
        (table(a=[1.0]), ["a"], {"mean": [0.0]}, "no option 'mean'"),
        (table(a=[1.0]), "a", {}, "features='a': give a list"),
        (table(a=[1.0]), [], {}, "features=(): give the names of one column or more"),
        (table(close=[1.0]), ["closes"], {}, "lacks: 'closes'. Did you mean 'close'"),
        (table(a=[1.0], b=[1.0]), ["b", "a"], {}, "in another order than in training: a, b, not b, a"),
        (table(a=["1.0"]), ["a"], {}, "the feature 'a' is String. Give numbers"),
        (table(a=[math.nan, None, math.inf]), ["a"], {}, "the feature 'a' has no finite value"),
        (table(a=pl.Series([], dtype=pl.Float64)), ["a"], {}, "the feature 'a' has no finite value"),
        (table(a=[2**53 + 1, 0]), ["a"], {}, "the feature 'a' has integers beyond 2^53"),
        (table(a=[1e308, -1e308]), ["a"], {}, "a mean or std is not finite"),
        (table(a=[1.0]), ["a"], {"timestamp": "time"}, "lacks: 'time'"),
        (pl.DataFrame({"timestamp": [1.5], "a": [1.0]}), ["a"], {}, "'timestamp' is Float64, no timestamp"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be_fitted_is_refused(frame: Any, features: Any, options: Any, message: str) -> None:
    with pytest.raises((ArgumentError, DataError)) as caught:
        FeatureSpec.fit(frame, features, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": ["a", "a"]}, "'a' is named twice"),
        ({"timestamp": "a"}, "'a' is named twice"),
        ({"symbol": "time"}, "'time' is named twice"),
        ({"features": [""]}, "give the names of one column or more"),
        ({"features": [1, 2]}, "features=(1, 2): give str"),
        ({"features": "ab"}, "features='ab': give a list"),
        ({"features": ["a"]}, "features, mean, std and dtypes are not equally many"),
        ({"mean": [0.0, math.nan]}, "a mean or std is not finite"),
        ({"mean": ["0", "1"]}, "mean=('0', '1'): give int | float"),
        ({"std": [1.0, 0.0]}, "a std is not above 0"),
        ({"std": [1.0, math.inf]}, "a mean or std is not finite"),
        ({"window": 0}, "window=0: give a number of bars, 1 or more"),
        ({"window": 2.0}, "window=2.0: give a number of bars"),
        ({"window": True}, "window=True: give a number of bars"),
        ({"clip": 0.0}, "clip=0.0 is outside (0, 1e+06]"),
        ({"clip": math.inf}, "clip=inf is outside"),
        ({"clip": math.nan}, "clip=nan is outside"),
        ({"clip": "10"}, "clip='10': give int | float"),
        ({"clip": True}, "clip=True: give int | float"),
        ({"bar_seconds": -1}, "bar_seconds=-1 is outside [0, inf)"),
        ({"max_gap_seconds": 0}, "max_gap_seconds=0 is outside (0, inf)"),
        ({"max_gap_seconds": "1h"}, "max_gap_seconds='1h': give int | float | None"),
        ({"account": ["positions"]}, "account='positions': no such feature. Did you mean 'position'"),
        ({"account": "position"}, "account='position': give a list"),
        ({"account": [["position"]]}, "account=(['position'],): give str"),
        ({"price": None}, "price=None: give str"),
        ({"fitted_until": 5}, "fitted_until=5: give str | None"),
        ({"thresholds": None}, "thresholds=None: give Thresholds"),
        ({"thresholds": {"by": 1.0}}, "thresholds has no 'by'. Did you mean 'buy'"),
        ({"thresholds": {"buy": "0.6"}}, "buy='0.6': give int | float"),
        ({"thresholds": {"buy": 0.1, "sell": 0.1}}, "sell is below buy"),
        ({"thresholds": {"buy": 1.1}}, "Scores are from -1 to 1"),
        ({"thresholds": {"sell": math.nan}}, "sell is below buy"),
        ({"thresholds": {"dead_zone": 1.5}}, "dead_zone=1.5 is outside [0, 1]"),
        ({"clips": 3}, "there is no 'clips'. Did you mean 'clip'"),
    ],
    ids=str,
)
def test_what_no_specification_can_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        FeatureSpec.from_dict({**WHOLE.as_dict(), **changes})
    assert message in str(caught.value)


def test_plain_data_that_lacks_something_is_refused() -> None:
    with pytest.raises(ArgumentError, match="mean, dtypes missing"):
        FeatureSpec.from_dict({"features": ["a"], "std": [1.0]})


# --- in the model's file --------------------------------------------------------------------------------------------

PRICES = table(symbol=["x"] * 9, close=[100.0, 101, 99, 98, 103, 105, 104, 107, 106], a=np.sin(range(9)))


def trained(spec: Any, path: Path | io.BytesIO) -> FeatureSpec:
    env = MarketEnv(PRICES, spec)
    PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", policy_kwargs={"net_arch": [4]}).save(path)
    return env.feature_spec


def test_the_model_s_file_holds_the_specification(tmp_path: Path) -> None:
    options = {"window": 2, "account": ["position"], "max_gap_seconds": 5, "thresholds": {"buy": 0.3}}
    fitted = trained({"features": ["a"], **options}, tmp_path / "model")
    assert fitted.window == 2
    assert FeatureSpec.of(PPO.load(tmp_path / "model")) == fitted


def test_an_environment_that_shows_something_else_is_refused() -> None:
    file = io.BytesIO()
    fitted = trained({"features": ["a"]}, file)
    other = replace(fitted, mean=(fitted.mean[0] + 1,))
    with pytest.raises(StateError, match="mean is"):
        PPO.load(file, env=MarketEnv(PRICES, other))
    model = PPO.load(file, env=MarketEnv(PRICES, fitted))
    with pytest.raises(StateError, match="thresholds is"):
        model.set_env(MarketEnv(PRICES, replace(fitted, thresholds=Thresholds(buy=0.3))))
    assert FeatureSpec.of(model) == fitted


def test_an_environment_is_made_with_what_the_model_says() -> None:
    file = io.BytesIO()
    fitted = trained({"features": ["a"]}, file)
    model = PPO.load(file)
    same = MarketEnv(PRICES, model.policy_interface)
    assert same.feature_spec == fitted
    model.set_env(DummyVecEnv([lambda: same]))


def test_a_model_of_another_kind_of_environment_has_none() -> None:
    model = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), device="cpu")
    with pytest.raises(StateError, match="This PPO has no feature specification: it was not trained in a MarketEnv"):
        FeatureSpec.of(model)
