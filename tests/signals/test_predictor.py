"""Signals over a table are what the policy does in the environment, whatever holds the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from everlearn import PPO, DistributionalPPO
from everlearn.core.errors import ArgumentError, ConfigError, StateError
from everlearn.markets import FeatureSpec, MarketEnv, Thresholds
from everlearn.signals import SignalPredictor
from tests.signals.markets_for_tests import POSITIONS, agent, bars, bits, mixed, predictor, saved, spec_for

TABLE = bars(40)
MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)
COLUMNS = [
    *("timestamp", "symbol", "signal", "score", "position", "value_q05", "value_q50", "value_q95"),
    *("valid", "reason", "model_id", "bar_close", "decided_at"),
]


def column(signals: pl.DataFrame, name: str, symbol: str) -> list[Any]:
    return signals.filter(pl.col("symbol") == symbol)[name].to_list()


# --- parity ---------------------------------------------------------------------------------------------------------


def stepped(model: PPO, symbol: str, act: Callable[[np.ndarray], float], **options: Any) -> dict[int, float]:
    """By bar, the target position that is decided on in the environment; the decisions are carried out."""
    discrete = isinstance(model.action_space, gymnasium.spaces.Discrete)
    positions = "discrete" if discrete else "continuous"
    env = MarketEnv(TABLE, FeatureSpec.of(model), positions=positions, random_start=False, **options)
    observation, info = env.reset(options={"symbol": symbol})
    taken, over = {}, False
    while True:
        bar = info["bar"]
        taken[bar] = float(act(observation))
        if over:
            return taken
        action: Any = int(taken[bar]) + 1 if discrete else np.array([taken[bar]], np.float32)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "normalised"])
@pytest.mark.parametrize("account", [False, True], ids=["blind", "account"])
@pytest.mark.parametrize("window", [1, 7])
@pytest.mark.parametrize("positions", POSITIONS)
def test_signals_are_the_actions_in_the_environment_to_the_bit(
    positions: str, window: int, account: bool, normalised: bool
) -> None:
    model = agent(positions, window, account, normalised)
    whole = SignalPredictor.of(model, quantiles=())
    signals = whole.predict(mixed(TABLE, seed=1))
    for symbol in ("gold", "salt"):
        taken = stepped(model, symbol, lambda observation: whole.act(observation[None])[0], fee=0.01)
        assert [*taken] == [*range(window - 1, 39)]
        found = column(signals, "position", symbol)[window - 1 : 39]
        assert [position.hex() for position in found] == [position.hex() for position in taken.values()]
        assert len({*found}) > 1


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "normalised"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_signals_are_what_sb3_predicts(positions: str, normalised: bool) -> None:
    model = agent(positions, 7, True, normalised)

    def act(observation: np.ndarray) -> float:
        action, _ = model.predict(model.normalize_obs(observation), deterministic=True)
        return float(action) - 1 if positions == "discrete" else float(action[0])

    found = column(SignalPredictor.of(model).predict(TABLE), "position", "salt")[6:39]
    assert found == pytest.approx([*stepped(model, "salt", act).values()], abs=1e-6)


def test_many_observations_are_acted_on_at_once() -> None:
    observations = np.random.default_rng(0).standard_normal((300, 2))
    at_once = predictor().act(observations)
    assert (at_once.dtype, at_once.shape) == (np.float32, (300,))
    assert at_once.tolist() == [predictor().act(each[None])[0] for each in observations]


# --- rows -----------------------------------------------------------------------------------------------------------


def test_there_is_one_row_for_each_in_its_order() -> None:
    table = mixed(TABLE, seed=2)
    signals = predictor().predict(table, decided_at=MOMENT)
    assert signals.columns == COLUMNS
    assert signals.select("timestamp", "symbol").equals(table.select("timestamp", "symbol"))
    assert signals["valid"].all()
    assert signals["model_id"].unique().to_list() == ["m"]
    assert signals["decided_at"].unique().to_list() == [MOMENT]


@pytest.mark.parametrize(("window", "account"), [(1, False), (4, False), (4, True)])
def test_a_symbol_s_rows_do_not_depend_on_the_others(window: int, account: bool) -> None:
    made = predictor("continuous", window, account)
    together = made.predict(mixed(TABLE, seed=3))
    for symbol in ("gold", "salt"):
        alone = made.predict(TABLE.filter(pl.col("symbol") == symbol))
        assert bits(together.filter(pl.col("symbol") == symbol)) == bits(alone)


def test_other_columns_are_ignored_wherever_they_stand() -> None:
    among = TABLE.select(
        "spread", *TABLE.columns[::-1][1:], note=pl.lit("x"), empty=pl.lit(None), more=pl.int_range(pl.len())
    ).select("more", "slope", "note", "symbol", "spread", "timestamp", "empty")
    assert bits(predictor().predict(among)) == bits(predictor().predict(TABLE))


def test_prices_are_not_read_where_the_account_is_not(tmp_path: Path) -> None:
    TABLE.with_columns(close=pl.lit("unknown")).write_csv(tmp_path / "t.csv")
    assert bits(predictor().predict(tmp_path / "t.csv")) == bits(predictor().predict(TABLE.drop("close")))


def test_a_table_of_one_symbol_needs_no_column_of_symbols() -> None:
    gold = TABLE.filter(pl.col("symbol") == "gold").drop("symbol")
    nameless = SignalPredictor(replace(spec_for(4), symbol=None), predictor("continuous", 4)._decide, "m")
    signals = nameless.predict(gold)
    assert signals["symbol"].to_list() == [None] * 40
    assert signals.schema["symbol"] == pl.String
    assert signals["score"].to_list() == column(predictor("continuous", 4).predict(TABLE), "score", "gold")
    assert nameless.predict(gold.head(0)).schema == signals.schema


def test_a_price_may_be_a_feature_too() -> None:
    spec = FeatureSpec.fit(TABLE, ["close", "slope"], account=("position", "bars_held", "open_return"))
    decide = predictor("continuous", 1, True)._decide
    assert SignalPredictor(spec, decide, "m").predict(TABLE)["valid"].all()


def test_the_close_of_a_bar_follows_from_its_length() -> None:
    timed = SignalPredictor(replace(spec_for(), bar_seconds=90.5), predictor()._decide, "m")
    apart = timed.predict(TABLE)["bar_close"] - TABLE["timestamp"]
    assert apart.unique().to_list() == [timedelta(seconds=90.5)]
    assert predictor().predict(TABLE)["bar_close"].to_list() == TABLE["timestamp"].to_list()


def test_the_moment_of_decision_is_in_utc() -> None:
    elsewhere = datetime(2024, 5, 1, 17, tzinfo=timezone(timedelta(hours=5)))
    for moment in (MOMENT, elsewhere, MOMENT.replace(tzinfo=None)):
        assert predictor().predict(TABLE, decided_at=moment)["decided_at"].unique().to_list() == [MOMENT]
    before = datetime.now(UTC)
    now = predictor().predict(TABLE)["decided_at"].unique()
    assert before <= now.item() <= datetime.now(UTC)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process cannot be changed here")
def test_a_naive_moment_is_utc_wherever_the_computer_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        decided = predictor().predict(TABLE, decided_at=MOMENT.replace(tzinfo=None))["decided_at"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert decided.unique().to_list() == [MOMENT]


# --- quantiles, thresholds, names -----------------------------------------------------------------------------------


def test_value_quantiles_rise_with_their_level_and_are_missing_where_nothing_is_decided() -> None:
    signals = SignalPredictor.of(agent("continuous", 4), quantiles=(0.1, 0.25, 0.9)).predict(TABLE)
    quantiles = signals.select("value_q10", "value_q25", "value_q90")
    assert quantiles.filter(~signals["valid"]).rows() == [(None, None, None)] * 6
    rising = np.diff(quantiles.filter(signals["valid"]).to_numpy(), axis=1)
    assert (rising >= 0).all()
    assert rising.max() > 0


def test_quantiles_are_left_out_when_none_are_asked_for() -> None:
    without = SignalPredictor.of(agent(), quantiles=(), model_id="m")
    assert (without.levels, predictor().levels) == ((), (0.05, 0.5, 0.95))
    found = without.predict(TABLE)
    assert found.columns == [name for name in COLUMNS if not name.startswith("value_")]
    assert bits(found) == bits(predictor().predict(TABLE).select(found.columns))


def test_a_policy_with_single_values_has_no_quantiles() -> None:
    scalar = agent(algorithm=PPO)
    assert SignalPredictor.of(scalar).levels == ()
    with pytest.raises(ArgumentError, match="predict no distribution"):
        SignalPredictor.of(scalar, quantiles=(0.5,))


def test_thresholds_are_those_of_the_model_unless_given() -> None:
    assert predictor().spec.thresholds == Thresholds(0.6, -0.6, 0.1)
    eager = SignalPredictor.of(agent(), thresholds=Thresholds(0.05, -0.05, 0.01)).predict(TABLE)
    calm = predictor().predict(TABLE)
    assert eager["position"].equals(calm["position"])
    assert set(calm["signal"]) == set(eager["signal"]) == {"BUY", "HOLD", "SELL"}
    assert (eager["signal"] == "HOLD").sum() < (calm["signal"] == "HOLD").sum()
    assert ((eager["position"] >= 0.05) == (eager["signal"] == "BUY")).all()
    assert ((calm["position"].abs() < 0.1) == (calm["score"] == 0.0)).all()


def test_thresholds_can_be_changed_one_by_one() -> None:
    changed = predictor().with_thresholds({"buy": 0.2})
    assert changed.spec == replace(predictor().spec, thresholds=Thresholds(0.2, -0.6, 0.1))
    assert changed.predict(TABLE)["position"].equals(predictor().predict(TABLE)["position"])
    with pytest.raises(ArgumentError, match="sell is below buy"):
        predictor().with_thresholds({"sell": 0.7})


def test_a_policy_decides_as_it_is_evaluated_and_not_as_it_learns() -> None:
    policy = agent().policy
    policy.set_training_mode(True)
    SignalPredictor.of(agent())
    assert not policy.training


@pytest.mark.parametrize("normalised", [False, True])
def test_a_model_s_file_alone_gives_the_same_signals(normalised: bool, tmp_path: Path) -> None:
    model = agent("continuous", 3, True, normalised)
    model.save(tmp_path / "model")
    loaded = SignalPredictor.load(tmp_path / "model.zip")
    assert (loaded.spec, loaded.levels) == (FeatureSpec.of(model), (0.05, 0.5, 0.95))
    assert bits(loaded.predict(TABLE).drop("model_id")) == bits(
        SignalPredictor.of(model).predict(TABLE).drop("model_id")
    )
    content = DistributionalPPO.load(tmp_path / "model.zip").parent_content
    assert loaded.model_id == content != "unsaved"
    assert SignalPredictor.of(model).model_id == "unsaved"
    with pytest.raises(ConfigError, match="there is no such model"):
        SignalPredictor.load(tmp_path / "other.zip")


def test_a_loaded_model_s_environment_changes_no_signal(tmp_path: Path) -> None:
    """An environment around a loaded model gets a normaliser that rests; the critics' unit stays the training's."""
    model = agent("continuous", 3, False, True)
    model.save(tmp_path / "model")
    env = DummyVecEnv([lambda: MarketEnv(bars(seed=2), spec_for(3), episode_bars=20)])
    again = SignalPredictor.of(DistributionalPPO.load(tmp_path / "model", env=env), model_id="m")
    assert bits(again.predict(TABLE)) == bits(SignalPredictor.of(model, model_id="m").predict(TABLE))


def test_a_model_that_was_trained_elsewhere_has_no_signals() -> None:
    with pytest.raises(StateError, match="it was not trained in a MarketEnv"):
        SignalPredictor.of(PPO("MlpPolicy", gymnasium.make("Pendulum-v1"), device="cpu"))


def test_a_model_that_saw_the_market_through_a_wrapper_is_refused() -> None:
    venv = VecFrameStack(DummyVecEnv([lambda: MarketEnv(TABLE, spec_for(2))]), 3)
    with pytest.raises(StateError, match="the specification makes 4 numbers: a wrapper has changed them"):
        SignalPredictor.of(PPO("MlpPolicy", venv, device="cpu"))


def test_the_schema_is_known_without_scoring(tmp_path: Path) -> None:
    path = saved(TABLE, tmp_path / "t.csv")
    assert predictor().schema(path) == predictor().predict(path).schema
    assert predictor().schema(TABLE) == predictor().predict(TABLE).schema
