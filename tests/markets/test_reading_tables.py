"""Row 35 of the failure modes: tables are read from whatever holds them, and what holds none is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from everlearn.core.errors import ArgumentError, ConfigError, DataError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.tables import check_columns, feature_values, format_of, read_table, scan_table

SPEC = FeatureSpec(("a", "b"), (0.0,) * 2, (1.0,) * 2, ("Float64", "Float64"), symbol="symbol")
TABLE = pl.DataFrame(
    {
        "timestamp": pl.Series([datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)]),
        "symbol": ["x", "y", "x"],
        "a": [1 / 3, math.inf, -1e-300],
        "b": [0.1, None, 5.0],
        "note": ["u", None, "w"],
    }
)


def csv(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["parquet", "feather", "arrow", "ipc", "PARQUET"])
def test_files_that_say_what_their_columns_are_are_read_as_they_were_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{suffix}"
    (TABLE.write_parquet if suffix.lower() == "parquet" else TABLE.write_ipc)(path)
    for place in (path, str(path)):
        assert read_table(place).equals(TABLE)
        assert read_table(place, SPEC).equals(TABLE)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "feather"])
def test_a_path_is_the_name_of_one_file_and_no_pattern(suffix: str, tmp_path: Path) -> None:
    for rows, name in ((3, f"t[1].{suffix}"), (1, f"t1.{suffix}"), (2, f"t?.{suffix}")):
        writers: dict[str, Any] = {"parquet": TABLE.head(rows).write_parquet, "csv": TABLE.head(rows).write_csv}
        writers.get(suffix, TABLE.head(rows).write_ipc)(tmp_path / name)
    for spec in (None, SPEC):
        assert read_table(tmp_path / f"t[1].{suffix}", spec).height == 3
        assert read_table(tmp_path / f"t?.{suffix}", spec).height == 2


@pytest.mark.parametrize(
    "made",
    [
        TABLE,
        TABLE.lazy(),
        TABLE.to_arrow(),
        TABLE.to_pandas(),
        {name: TABLE[name].to_list() for name in TABLE.columns},
    ],
    ids=["frame", "lazy", "arrow", "pandas", "dictionary"],
)
def test_tables_of_other_libraries_are_read(made: Any) -> None:
    found = read_table(made)
    assert found.columns == TABLE.columns
    assert found["timestamp"].dt.epoch("us").equals(TABLE["timestamp"].dt.epoch("us"))
    assert found.drop("timestamp").rows() == TABLE.drop("timestamp").rows()


def test_csv_keeps_every_bit_of_a_number(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    TABLE.write_csv(path)
    found = read_table(path, SPEC)
    assert found.select("symbol", "a", "b").equals(TABLE.select("symbol", "a", "b"))


def test_csv_columns_are_what_the_specification_says_and_not_what_their_first_rows_look_like(tmp_path: Path) -> None:
    path = csv(tmp_path, "timestamp,symbol,a,b,note", "2024-01-01,007,1,,1", "2024-01-02,x,NA,nan,y")
    assert read_table(path, SPEC).schema == {
        "timestamp": pl.String,
        "symbol": pl.String,
        "a": pl.Float64,
        "b": pl.Float64,
        "note": pl.String,
    }
    assert read_table(path, SPEC).rows()[0] == ("2024-01-01", "007", 1.0, None, "1")


def test_csv_features_that_were_truth_values_are_truth_values(tmp_path: Path) -> None:
    flags = FeatureSpec(("a", "b"), (0.5, 0.0), (0.5, 1.0), ("Boolean", "Float64"))
    found = read_table(csv(tmp_path, "timestamp,a,b", "2024-01-01,true,1", "2024-01-02,false,1"), flags)
    check_columns(found.schema, flags, "T")
    assert feature_values(found, flags, "T").tolist() == [[1, 1], [0, 1]]


def test_csv_timestamps_may_be_seconds(tmp_path: Path) -> None:
    found = read_table(csv(tmp_path, "timestamp,symbol,a,b", "1704067200,x,1,1", "-1,x,1,1"), SPEC)
    assert found["timestamp"].to_list() == [1_704_067_200, -1]


def test_csv_prices_are_numbers(tmp_path: Path) -> None:
    found = read_table(csv(tmp_path, "timestamp,symbol,close,a,b", "2024-01-01,x,5,1,1"), SPEC)
    assert found["close"].to_list() == [5.0]


def test_csv_quotes_and_byte_order_marks_are_none_of_the_names(tmp_path: Path) -> None:
    path = csv(tmp_path, '\ufefftimestamp,symbol,"a",b', '2024-01-01,"x, y",1,2')
    assert read_table(path, SPEC).rows() == [("2024-01-01", "x, y", 1.0, 2.0)]


def test_generated_prices_are_named_by_their_kind() -> None:
    assert read_table({"kind": "random_walk", "bars": 7}).height == 7
    with pytest.raises(ConfigError, match=r"no price generator 'random_wlk'. Did you mean 'random_walk'"):
        read_table({"kind": "random_wlk"})


# --- files that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda _: b"", lambda _: b"PAR1" * 9])
def test_a_damaged_file_is_refused_by_name(suffix: str, damage: Any, tmp_path: Path) -> None:
    path = tmp_path / f"table.{suffix}"
    (TABLE.write_parquet if suffix == "parquet" else TABLE.write_ipc)(path)
    path.write_bytes(damage(path.read_bytes()))
    for read in (read_table, scan_table):
        with pytest.raises(DataError, match=f"table.{suffix}: it cannot be read"):
            read(path)


def test_a_query_that_fails_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The table: it cannot be read"):
        read_table(TABLE.lazy().with_columns(pl.col("unknown")))


def test_damage_within_a_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({"a": np.arange(1000.0)}).write_parquet(path)
    content = bytearray(path.read_bytes())
    content[100:400] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"table.parquet: it cannot be read"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty, it has not even the names of columns"),
        (b"\n", "it cannot be read"),
        (b"timestamp,symbol,a,b\n2024-01-01,\xe9,1,2\n", "it cannot be read: .*utf-8"),
        (b"timestamp,symbol,a,b\n2024-01-01,x,1,2,3\n", "it cannot be read: found more fields"),
        (b"timestamp,symbol,a,b\n2024-01-01,x,high,2\n", "could not parse `high` as dtype `f64` at column 'a'"),
        (b"timestamp,symbol,a,b\n1704067200,x,1,2\nlater,x,1,2\n", "could not parse `later` .* at column 'timestamp'"),
        (b"\x00" * 200_000, "it cannot be read"),
    ],
    ids=range(7),
)
def test_a_csv_file_that_is_no_table_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"table\.csv: .*{message}"):
        read_table(path, SPEC)


@pytest.mark.parametrize("spec", [SPEC, None])
def test_columns_of_one_name_are_refused_in_csv_too(spec: FeatureSpec | None, tmp_path: Path) -> None:
    path = csv(tmp_path, "timestamp,symbol,a,a,b", "2024-01-01,x,1,3,2")
    with pytest.raises(DataError, match=r"table\.csv: there are several columns 'a'. Keep one of each"):
        read_table(path, spec)


def test_columns_of_one_name_are_refused_everywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pa.parquet.write_table(twice, tmp_path / "t.parquet")
    pa.feather.write_feather(twice, tmp_path / "t.feather")
    for made in (twice, pd.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path / "t.parquet", tmp_path / "t.feather"):
        with pytest.raises(DataError, match="cannot be read"):
            read_table(made)
    capfd.readouterr()  # polars prints of its panic


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [1, 2, 3], "b": [1, 2]},
        {"a": [1, "x"]},
        {"a": [2**200]},
        pd.DataFrame({"a": [1, "x"]}),
        pd.DataFrame({"a": [1j]}),
    ],
    ids=["lengths", "mixed", "large", "mixed in pandas", "complex in pandas"],
)
def test_columns_that_no_table_can_hold_are_refused(columns: Any) -> None:
    with pytest.raises(DataError, match="The table cannot be read: "):
        read_table(columns)


@pytest.mark.parametrize("made", [None, 5, [1, 2], np.zeros((2, 2))], ids=["None", "number", "list", "array"])
def test_what_is_no_table_is_refused(made: Any) -> None:
    with pytest.raises(ArgumentError, match=r"is no table. Give a path, or a table of polars, pandas"):
        read_table(made)


def test_a_directory_a_missing_file_and_an_unknown_suffix_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("folder.csv", "missing.parquet"):
        with pytest.raises(ConfigError, match=f"{name}: there is no such file"):
            read_table(tmp_path / name)
    for name in ("table.xlsx", "table"):
        with pytest.raises(ConfigError, match=rf"{name}: the suffix says no format of tables. Use one of: .parquet"):
            format_of(tmp_path / name)
    assert [format_of(Path(f"t.{each}")) for each in ("parquet", "csv", "feather", "arrow", "ipc", "CSV")] == [
        *("parquet", "csv", "feather", "feather", "feather", "csv")
    ]
