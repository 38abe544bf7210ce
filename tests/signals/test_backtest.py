"""Walk-forward: nothing of a test is known in its training."""

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from everlearn import FeatureSpec, SignalPredictor
from everlearn.core.errors import ArgumentError, ConfigError, DataError
from everlearn.markets import RegimePrices
from everlearn.markets.instants import from_text, instants
from everlearn.ppo.algorithm import PPO
from everlearn.signals.backtest import AGENT, Plan, backtest, configuration_of, judged
from everlearn.signals.backtest_files import made_free, write_backtest
from everlearn.signals.fold_jobs import FoldJob, Stopped, carried_out
from everlearn.signals.fold_jobs import decisions_between as decisions_of
from everlearn.signals.records import BASELINES, HOLDING

FEATURES = ["return_1", "momentum_8"]
CONFIG = """
env:
  id: everlearn/Market-v0
  n_envs: 2
  normalize: false
  kwargs: {table: nowhere.parquet, spec: {features: [return_1, momentum_8], window: 3}, fee: 0.001, episode_bars: 32}
algorithm: {name: PPO, n_steps: 16, batch_size: 16, n_epochs: 1, policy_kwargs: {net_arch: [8]}}
total_timesteps: 64
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("backtest")
    (place / "market.yaml").write_text(CONFIG)
    RegimePrices(bars=400, symbols=2, seed=1).prices().write_parquet(place / "bars.parquet")
    return place


@pytest.fixture(scope="module")
def result(place: Path):
    said: list[str] = []
    plan = Plan(folds=2, seeds=2, purge=3, embargo=4, periods_per_year=365)
    found = backtest(place / "market.yaml", place / "bars.parquet", place / "out", plan, announce=said.append)
    assert len(said) == 4
    return found


def test_an_agent_is_fitted_and_trained_on_what_lies_before_its_test(result, place: Path) -> None:
    for number, fold in enumerate(result.folds, start=1):
        assert fold.gap == 7
        model = PPO.load(place / "out" / f"fold-{number}" / "seed-1" / "model.zip")
        spec = FeatureSpec.of(model)
        assert from_text(str(spec.fitted_until)) == result.times[fold.train.stop - 1] < result.times[fold.test.start]
        seen = pl.read_parquet(place / "bars.parquet").filter(
            pl.col("timestamp").is_between(
                *(
                    pl.lit(int(result.times[at])).cast(pl.Datetime("us", "UTC"))
                    for at in (fold.train.start, fold.train.stop - 1)
                )
            )
        )
        assert spec.mean == pytest.approx([seen[name].mean() for name in FEATURES], rel=1e-12)


def test_every_bar_of_the_tests_is_decided_on_once(result) -> None:
    tested = [bar for fold in result.folds for bar in fold.test]
    record = result.records[AGENT][0]
    assert from_text(str(record.timestamps[0])) == result.times[tested[2]]
    assert len(record) == len(tested) - 2
    assert tested == list(range(tested[0], 400))


def test_each_strategy_has_figures_for_each_seed(result) -> None:
    assert {name: len(own) for name, own in result.performances.items()} == {
        AGENT: 2,
        HOLDING: 1,
        **dict.fromkeys(BASELINES, 2),
    }
    assert result.performances[AGENT][0].trials == 1
    assert set(result.excess) == {HOLDING, *BASELINES}
    returns = [each.annualised_return for each in result.performances[AGENT]]
    held = result.performances[HOLDING][0].annualised_return
    assert result.excess[HOLDING].value == pytest.approx(np.mean(returns) - held)
    json.dumps(result.as_dict(), allow_nan=False)


def test_decisions_on_a_stretch_are_those_on_the_whole_table(place: Path, result) -> None:
    """What comes before fills the windows; what comes after is not looked at."""
    predictor = SignalPredictor.load(place / "out" / "fold-1" / "seed-0" / "model.zip")
    frame = pl.read_parquet(place / "bars.parquet")
    first, last = (int(result.times[bar]) for bar in (200, 260))
    found = decisions_of(predictor, frame, first, last)
    whole = predictor.predict(frame).with_columns(pl.Series("time", instants(frame["timestamp"], "")))
    expected = whole.filter(pl.col("time").is_between(first, last))
    assert found.height == expected.height == 2 * 61
    assert found["target"].to_list() == expected["position"].cast(pl.Float64).to_list()


def test_what_came_out_is_written_for_people_and_machines(result, place: Path, tmp_path: Path) -> None:
    page = write_backtest(result, tmp_path / "report", "A <test>", {"Table": "bars & bars"})
    text = page.read_text()
    assert "A &lt;test&gt;" in text and "bars &amp; bars" in text and "<script" not in text
    assert json.loads((page.parent / "backtest.json").read_text())["plan"]["purge"] == 3
    for name in ("equity", "drawdown", "positions", "turnover"):
        assert (page.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_that_would_let_training_see_the_test_is_refused() -> None:
    with pytest.raises(ArgumentError, match="purge=1: a decision earns until 2 bars later"):
        Plan(purge=1)
    with pytest.raises(ArgumentError, match="folds"):
        Plan(folds=0)


def test_only_configurations_of_markets_are_tested(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("env: {id: CartPole-v1}")
    with pytest.raises(ConfigError, match=r"env\.id is 'CartPole-v1'"):
        configuration_of(tmp_path / "other.yaml")
    with pytest.raises(ConfigError, match="there is no configuration"):
        configuration_of(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("{features: [return_1], mean: [0.0], std: [1.0], dtypes: [Float64]}", ConfigError, "may be those of bars"),
        ("{window: 3}", ConfigError, "names no features"),
        ("{features: [return_1], timestamp: time}", DataError, "there is no column 'time'. Did you mean 'timestamp'"),
        ("{features: [return_1], price: closing}", DataError, "there is no column 'closing' with prices"),
    ],
)
def test_what_would_fail_or_leak_is_refused_before_anything_is_trained(
    change: str, error: type[Exception], message: str, place: Path, tmp_path: Path
) -> None:
    text = CONFIG.replace("{features: [return_1, momentum_8], window: 3}", change)
    (tmp_path / "market.yaml").write_text(text)
    with pytest.raises(error, match=message):
        backtest(tmp_path / "market.yaml", place / "bars.parquet", tmp_path / "out", Plan(folds=2, seeds=1))
    assert not (tmp_path / "out").exists()


def test_prices_of_the_tests_are_looked_at_first(place: Path, tmp_path: Path) -> None:
    bars = pl.read_parquet(place / "bars.parquet").with_row_index()
    broken = bars.with_columns(close=pl.when(pl.col("index") == 390).then(0.0).otherwise("close")).drop("index")
    broken.write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(DataError, match=r"the price 'close' at 1971-01-26T00:00:00\+00:00 is 0\.0"):
        backtest(place / "market.yaml", tmp_path / "bars.parquet", tmp_path / "out", Plan(folds=2, seeds=1))


def test_bars_that_the_environment_does_not_use_are_left_alone(place: Path, tmp_path: Path) -> None:
    """A stretch that someone keeps for the end is neither trained nor tested on; one seed has no interval."""
    kept = {
        "env.kwargs": {**configuration_of(place / "market.yaml").env.kwargs, "start": "1970-02-01", "end": "1970-11-01"}
    }
    plan = Plan(folds=1, seeds=1)
    found = backtest(place / "market.yaml", place / "bars.parquet", tmp_path / "out", plan, settings=kept)
    assert from_text("1970-02-01") == found.times[0] and found.times[-1] == from_text("1970-10-31")
    assert found.as_dict()["excess_return"][HOLDING]["low"] is None
    page = write_backtest(found, tmp_path / "report", "One seed", {})
    assert "nan" not in (page.parent / "backtest.json").read_text().lower().replace("financ", "")


def test_a_signal_ends_the_whole_test(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent has learned until then is no result."""

    def stopped(*_: object, **__: object) -> Any:
        return SimpleNamespace(summary=SimpleNamespace(stopped_by="SIGTERM"))

    monkeypatch.setattr("everlearn.signals.fold_jobs.train", stopped)
    with pytest.raises(Stopped, match="stopped by SIGTERM") as caught:
        backtest(place / "market.yaml", place / "bars.parquet", tmp_path / "out", Plan(folds=1, seeds=2))
    again = copy(caught.value)  # by the protocol by which it comes from another process
    assert (again.name, str(again)) == ("SIGTERM", str(caught.value))


def test_jobs_that_fail_in_their_process_fail_here(place: Path, tmp_path: Path) -> None:
    config = configuration_of(place / "market.yaml")
    job = FoldJob(config, tmp_path / "nowhere.parquet", (0, 1), (1, 2), 0, tmp_path / "out")
    with pytest.raises(ConfigError, match="there is no such file"):
        list(carried_out([job, job], 2))


def test_trials_deflate_even_where_the_seeds_agree(result) -> None:
    """The variance between trials is at least what luck alone makes of it."""
    one, many = (
        judged(replace(result, plan=replace(result.plan, trials=trials), performances={}, excess={}))
        for trials in (1, 100)
    )
    for before, after in zip(one.performances[AGENT], many.performances[AGENT], strict=True):
        assert after.deflated_sharpe < before.deflated_sharpe == pytest.approx(before.probabilistic_sharpe)


def test_an_earlier_backtest_is_replaced_only_where_asked_and_nothing_else_ever(tmp_path: Path) -> None:
    made_free(tmp_path / "new", overwrite=False)
    earlier = tmp_path / "earlier"
    for name in ("fold-1/seed-0", "fold-2/seed-0"):
        (earlier / name).mkdir(parents=True)
    (earlier / "report.html").touch()
    (earlier / "mine.txt").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        made_free(earlier, overwrite=False)
    made_free(earlier, overwrite=True)
    assert [path.name for path in earlier.iterdir()] == ["mine.txt"]
    run = tmp_path / "run"
    (run / "fold-1").mkdir(parents=True)
    (run / "config.yaml").touch()
    for other in (run, earlier):
        with pytest.raises(ConfigError, match="this is no backtest's directory"):
            made_free(other, overwrite=True)
