"""Signals are the same to the bit, whatever holds the table and however it is read."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from tests.signals.markets_for_tests import bars, bits, in_pieces, mixed, predictor, saved

TABLE = bars(40)


@pytest.mark.parametrize("account", [False, True], ids=["blind", "account"])
@pytest.mark.parametrize("form", ["parquet", "csv", "feather", "arrow", "lazy", "pandas", "pyarrow", "dictionary"])
def test_signals_are_the_same_from_whatever_holds_the_table(form: str, account: bool, tmp_path: Path) -> None:
    holes = {"slope": pl.when(pl.int_range(pl.len()) == 9).then(None).otherwise("slope")}
    table = mixed(TABLE.with_columns(**holes, count=pl.int_range(pl.len())), seed=4)
    memory: dict[str, Any] = {
        "lazy": table.lazy(),
        "pandas": table.to_pandas(),
        "pyarrow": table.to_arrow(),
        "dictionary": {name: table[name].to_list() for name in table.columns},
    }
    source = memory[form] if form in memory else saved(table, tmp_path / f"t.{form}")
    made = predictor("continuous", 3, account)
    found, expected = made.predict(source), made.predict(table)
    assert bits(found) == bits(expected)
    assert found.drop("timestamp").schema == expected.drop("timestamp").schema
    assert found["timestamp"].dtype.is_temporal()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_timestamps_that_are_seconds_stay_seconds(form: str, tmp_path: Path) -> None:
    table = TABLE.with_columns(pl.col("timestamp").dt.epoch("s"))
    found = predictor().predict(saved(table, tmp_path / f"t.{form}"))
    assert found["timestamp"].to_list() == table["timestamp"].to_list()
    assert found.drop("timestamp", "decided_at").equals(predictor().predict(TABLE).drop("timestamp", "decided_at"))


def test_days_are_timestamps_too(tmp_path: Path) -> None:
    days = bars(20, ("gold",)).with_columns(timestamp=pl.date_range(date(2024, 1, 1), date(2024, 1, 20), eager=True))
    found = predictor().predict(days)
    assert (found["timestamp"].to_list(), found.schema["timestamp"]) == (days["timestamp"].to_list(), pl.Date)
    assert found["bar_close"][-1] == datetime(2024, 1, 20, tzinfo=UTC)
    text = predictor().predict(saved(days, tmp_path / "t.csv"))
    assert text["bar_close"].equals(found["bar_close"])


def test_naive_timestamps_are_utc(tmp_path: Path) -> None:
    naive = TABLE.with_columns(pl.col("timestamp").dt.replace_time_zone(None))
    assert predictor().predict(naive)["bar_close"].to_list() == TABLE["timestamp"].to_list()
    found = predictor().predict(saved(naive, tmp_path / "t.csv"))
    assert found["timestamp"].to_list() == found["bar_close"].to_list() == TABLE["timestamp"].to_list()


# --- pieces ---------------------------------------------------------------------------------------------------------


def test_a_table_is_read_in_pieces_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everlearn.signals.predictor._LARGEST", 300)
    large = bars(400)
    parts = [*predictor().predictions(large)]
    assert [part.height for part in parts] == [300, 300, 200]
    monkeypatch.undo()
    assert bits(pl.concat(parts)) == bits(predictor().predict(large))
    monkeypatch.setattr("everlearn.signals.predictor._NUMBERS", 700)
    assert [part.height for part in predictor().predictions(large)] == [350, 350, 100]
    assert [part.height for part in predictor("continuous", 7).predictions(large)] == [256, 256, 256, 32]


@pytest.mark.parametrize("rows", [1, 3, 50])
def test_pieces_change_nothing(rows: int, tmp_path: Path) -> None:
    table = mixed(TABLE, seed=5)
    for made in (predictor("continuous", 5), predictor("continuous", 5, True)):
        for source in (table, saved(table, tmp_path / "t.csv"), saved(table, tmp_path / "t.parquet")):
            assert bits(in_pieces(made, rows).predict(source)) == bits(made.predict(table))


def test_the_number_of_threads_changes_no_bit_and_stays_what_it_was() -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([bits(predictor("continuous", 4, account).predict(TABLE)) for account in (False, True)])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_no_global_generator_moves(untouched_generators: None) -> None:
    predictor().predict(TABLE)
