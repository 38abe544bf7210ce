"""Signals in files: whole or not at all, and appended to without doing anything twice."""

import errno
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from everlearn import PPO
from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import observed
from everlearn.core.errors import ConfigError, DataError
from everlearn.markets import MarketEnv, RegimePrices
from everlearn.signals import SignalPredictor
from everlearn.signals.writing import write_signals

SUFFIXES = ("parquet", "csv", "feather")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return RegimePrices(bars=300, symbols=2, seed=3).prices()


@pytest.fixture(scope="module")
def model(bars: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    env = MarketEnv(bars, {"features": ["return_1", "momentum_8"], "window": 3})
    path = tmp_path_factory.mktemp("model") / "agent.zip"
    PPO("MlpPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu").learn(32).save(path)
    return path


@pytest.fixture(scope="module")
def predictor(model: Path) -> SignalPredictor:
    return SignalPredictor.load(model)


def read(path: Path, like: pl.DataFrame) -> pl.DataFrame:
    """A file of signals in the types of a frame."""
    if path.suffix == ".csv":
        return pl.read_csv(path, schema_overrides=like.schema)
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_holds_what_predict_returns(
    suffix: str, predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path
) -> None:
    expected = predictor.predict(bars, decided_at=NOON)
    summary = write_signals(predictor, bars, tmp_path / f"out.{suffix}", decided_at=NOON)
    assert read(tmp_path / f"out.{suffix}", expected).equals(expected)
    assert (summary.rows, summary.written, summary.valid) == (600, 600, 596)
    assert sum(summary.signals.values()) == 600
    assert summary.reasons == {"ok": 596, "warmup": 4}
    assert summary.as_dict()["reasons"] == {"ok": 596, "warmup": 4}
    assert os.listdir(tmp_path) == [f"out.{suffix}"]


def test_the_pieces_of_a_long_table_are_written_in_order(
    predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predictor.predict(bars, decided_at=NOON)
    monkeypatch.setattr(SignalPredictor, "_piece_rows", lambda self: 37)
    write_signals(predictor, bars, tmp_path / "out.parquet", decided_at=NOON)
    assert pl.read_parquet(tmp_path / "out.parquet").equals(expected)


def test_a_file_that_is_there_is_not_touched_unasked(
    predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"--append.*--overwrite"):
        write_signals(predictor, bars, out)
    assert out.read_bytes() == b"precious"
    write_signals(predictor, bars, out, overwrite=True)
    assert pl.read_parquet(out).height == 600
    with pytest.raises(ConfigError, match="exclude each other"):
        write_signals(predictor, bars, out, overwrite=True, append=True)
    with pytest.raises(ConfigError, match="says no format"):
        write_signals(predictor, bars, tmp_path / "out.xlsx")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_appending_adds_what_is_new_and_twice_is_as_once(
    suffix: str, predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path
) -> None:
    """The rows of both symbols are known by timestamp and symbol; those that were there stay as they were decided."""
    out = tmp_path / f"out.{suffix}"
    ordered = bars.sort("timestamp", "symbol")
    write_signals(predictor, ordered.head(400), out, decided_at=NOON)
    later = write_signals(predictor, ordered, out, append=True)
    assert (later.rows, later.written) == (600, 200)
    expected = predictor.predict(ordered)
    found = read(out, expected)
    assert found.drop("decided_at").equals(expected.drop("decided_at"))
    assert found["decided_at"].head(400).n_unique() == 1 and found["decided_at"][0] == NOON
    content = out.read_bytes()
    again = write_signals(predictor, ordered, out, append=True)
    assert (again.rows, again.written) == (600, 0)
    assert out.read_bytes() == content


def test_an_account_is_appended_to_from_its_beginning_only(bars: pl.DataFrame, tmp_path: Path) -> None:
    """What the policy sees of its account follows from every bar before."""
    own = bars.filter(pl.col("symbol") == "S0")
    env = MarketEnv(own, {"features": ["return_1"], "account": ["position"]})
    predictor = SignalPredictor.of(PPO("MlpPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu"))
    out = tmp_path / "out.parquet"
    write_signals(predictor, own.head(200), out)
    with pytest.raises(DataError, match="follows from all bars since 1970-01-01"):
        write_signals(predictor, own.tail(150), out, append=True)
    assert write_signals(predictor, own, out, append=True).written == 100
    assert pl.read_parquet(out)["position"].equals(predictor.predict(own)["position"])


def test_nothing_is_appended_to_another_table(predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path) -> None:
    bars.write_parquet(tmp_path / "out.parquet")
    content = (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(DataError, match=r"its columns are timestamp, symbol, open"):
        write_signals(predictor, bars, tmp_path / "out.parquet", append=True)
    assert (tmp_path / "out.parquet").read_bytes() == content


def test_a_table_that_is_wrong_at_its_end_leaves_no_file(
    predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignalPredictor, "_piece_rows", lambda self: 64)
    with pytest.raises(DataError, match="is there twice"):
        write_signals(predictor, pl.concat([bars, bars.tail(1)]), tmp_path / "out.parquet")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("operation", ["save:fsync", "save:replace"])
def test_a_disk_that_refuses_leaves_what_was_there(
    operation: str, predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path
) -> None:
    """Row 14 of the failure modes."""
    out = tmp_path / "out.parquet"
    write_signals(predictor, bars.head(10), out)
    content = out.read_bytes()

    def refuse(name: str, path: Path) -> None:
        if name == operation:
            raise OSError(errno.ENOSPC, "No space left on device")

    with observed(refuse), pytest.raises(SaveError, match="No space left"):
        write_signals(predictor, bars, out, overwrite=True)
    assert out.read_bytes() == content
    assert os.listdir(tmp_path) == ["out.parquet"]


PROGRAM = """
import sys, time
import polars as pl
from everlearn.signals import SignalPredictor
from everlearn.signals.writing import write_signals

predictor, bars = SignalPredictor.load(sys.argv[1]), pl.read_parquet(sys.argv[2])
pieces = predictor.predictions
def slowly(*arguments, **keywords):
    for number in range(1000):
        for piece in pieces(*arguments, **keywords):
            print("piece", flush=True)
            time.sleep(0.01)
            yield piece
schema = predictor.schema(bars)
predictor.schema = lambda table: schema
predictor.predictions = slowly
write_signals(predictor, bars, sys.argv[3])
"""


def test_a_killed_run_leaves_no_partial_file_and_the_next_one_tidies_up(
    model: Path, predictor: SignalPredictor, bars: pl.DataFrame, tmp_path: Path
) -> None:
    table, here = tmp_path / "bars.parquet", tmp_path / "here"
    bars.write_parquet(table)
    here.mkdir()
    command: list[Any] = [sys.executable, "-c", PROGRAM, model, table, here / "out.parquet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == "piece\n"
        end = time.monotonic() + 20
        while not os.listdir(here) and time.monotonic() < end:  # polars begins to write when a row group is full
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (here / "out.parquet").exists()
    write_signals(predictor, bars, here / "out.parquet")
    assert os.listdir(here) == ["out.parquet"]
    assert np.array_equal(pl.read_parquet(here / "out.parquet")["timestamp"], bars["timestamp"])
