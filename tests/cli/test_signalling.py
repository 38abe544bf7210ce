"""``everlearn signals`` and ``everlearn backtest``, as they are typed."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.markets import RegimePrices

SHORT = ("--set", "total_timesteps=64", "--set", "n_steps=16", "--set", "batch_size=16", "--set", "env.n_envs=2")
NO_EPISODES = ("--set", "logging.baseline_episodes=0", "--set", "logging.evaluation_episodes=0")
EXAMPLE = Path(__file__).parents[2] / "examples" / "market.yaml"


def everlearn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("signals")
    RegimePrices(bars=300, seed=5).prices().write_parquet(place / "bars.parquet")
    result = everlearn("train", EXAMPLE, "--out", place / "run", "-q", *SHORT, *NO_EPISODES)
    assert result.exit_code == 0, result.output
    return place


def test_a_run_scores_a_table(place: Path, tmp_path: Path) -> None:
    result = everlearn("signals", place / "run", place / "bars.parquet", "-o", tmp_path / "s.csv", "--check-causality")
    assert result.exit_code == 0, result.output
    assert "300 rows written of 300 scored" in result.stdout
    assert "causal on" in result.stdout
    assert pl.read_csv(tmp_path / "s.csv").columns == [
        *("timestamp", "symbol", "signal", "score", "position", "value_q05", "value_q50", "value_q95"),
        *("valid", "reason", "model_id", "bar_close", "decided_at"),
    ]


def test_the_file_alone_is_enough(place: Path, tmp_path: Path) -> None:
    """On another machine there is neither the run's directory nor its configuration."""
    (tmp_path / "agent.zip").write_bytes((place / "run" / "model.zip").read_bytes())
    options = ("--quantiles", "none", "--buy", "0.0", "--sell", "-0.0001", "--dead-zone", "0", "--json")
    result = everlearn(
        "signals", tmp_path / "agent.zip", place / "bars.parquet", "-o", tmp_path / "s.parquet", *options
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["rows"] == summary["written"] == summary["valid"] == 300
    signals = pl.read_parquet(tmp_path / "s.parquet")
    assert "value_q50" not in signals.columns
    assert ((signals["position"] >= 0) == (signals["signal"] == "BUY")).all()
    assert summary["signals"].get("BUY", 0) == int((signals["signal"] == "BUY").sum())


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda bars: bars.rename({"return_1": "retrun_1"}), 3, "Did you mean 'retrun_1'?"),
        (lambda bars: bars.reverse(), 3, "Sort the table by 'timestamp'"),
        (lambda bars: bars.with_columns(pl.col("return_1").cast(pl.String)), 3, "'return_1' is String"),
    ],
)
def test_a_wrong_table_is_refused_and_leaves_no_file(
    change, code: int, message: str, place: Path, tmp_path: Path
) -> None:
    """Row 35 of the failure modes."""
    change(pl.read_parquet(place / "bars.parquet")).write_parquet(tmp_path / "wrong.parquet")
    result = everlearn("signals", place / "run", tmp_path / "wrong.parquet", "-o", tmp_path / "s.parquet")
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.zip", "bars.parquet", "-o", "s.parquet"), "there is no such model"),
        (("run", "nowhere.parquet", "-o", "s.parquet"), "there is no such file"),
        (("run", "bars.parquet", "-o", "s.txt"), "the suffix says no format"),
        (("run", "bars.parquet", "-o", "s.parquet", "--quantiles", "half"), "write levels between 0 and 1"),
        (("run", "bars.parquet", "-o", "s.parquet", "--buy", "-0.9"), "sell is below buy"),
    ],
)
def test_what_was_typed_wrongly_is_said(
    arguments: tuple[str, ...], message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    result = everlearn("signals", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_of_another_task_gives_no_signals(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "cartpole"
    assert everlearn("train", "--env", "CartPole-v1", "--out", run, "-q", *SHORT, *NO_EPISODES).exit_code == 0
    result = everlearn("signals", run, place / "bars.parquet", "-o", tmp_path / "s.parquet")
    assert result.exit_code == 3
    assert "it was not trained in a MarketEnv" in result.stderr


def test_a_backtest_leaves_a_page(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    options = ("--folds", 1, "--seeds", 1, "--periods-per-year", 365, "--import", "math", *SHORT)
    result = everlearn("backtest", EXAMPLE, place / "bars.parquet", "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "agent less buy and hold" in result.stdout
    assert f"The page: {out / 'report.html'}" in result.stdout
    assert (out / "report.html").stat().st_size > 50_000
    again = everlearn("backtest", EXAMPLE, place / "bars.parquet", "-o", out, *options)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
