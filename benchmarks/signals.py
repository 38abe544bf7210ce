"""Rows per second from a table in a file to signals in a file, and the memory that it takes, beside SB3's predict."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import stable_baselines3
from polars.io.plugins import register_io_source

from benchmarks.measure import Announce, Comparison, Target, interleave
from benchmarks.plots import draw_comparison, panels
from benchmarks.results import Report
from benchmarks.tables import Table, comparison_table, target_table
from everlearn import DistributionalPPO
from everlearn.markets import FeatureSpec, MarketEnv
from everlearn.signals import SignalPredictor
from everlearn.signals.writing import write_signals

FILES, WIDE = "parquet to parquet", "window 30, with quantiles"
BATCH, ROWS = "SB3 predict, one batch", "SB3 predict, rows"
FEATURES = [f"feature_{number}" for number in range(20)]
METHOD = (
    "A table of {rows:,} bars with 20 features in float64 is scored from parquet to parquet by a policy with two "
    "layers of 64 units, window 1 and no quantiles: reading, checking columns and timestamps, standardising, deciding, "
    "and writing scores, positions, signals and reasons. Beside it the same with a window of 30 bars and quantiles of "
    "a value distribution, and Stable-Baselines3's `predict` on observations in memory, without files, checks or "
    "features: in one batch, and row by row on {single:,} rows. Torch has one thread; polars takes the cores there "
    "are. Peak memory is that of a process of its own, from a table of {rows:,} rows and from one of {large:,}."
)


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        rows: Of the table.
        large: Rows of the large table.
        single: Rows that SB3 is given one by one.
        repetitions: Samples of each contestant, after one to warm up.
    """

    rows: int = 1_000_000
    large: int = 10_000_000
    single: int = 5_000
    repetitions: int = 5


SHORT = Settings(rows=2_000, large=4_000, single=20, repetitions=1)


def run(settings: Settings, announce: Announce) -> Report:
    """Score tables."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        here = Path(folder)
        write_table(here / "bars.parquet", settings.rows)
        for name, window in (("narrow", 1), ("wide", 30)):
            _model(here / "bars.parquet", window).save(here / f"{name}.zip")
        narrow, wide = SignalPredictor.load(here / "narrow.zip", quantiles=()), SignalPredictor.load(here / "wide.zip")
        contestants = {
            FILES: partial(_scored, narrow, here, settings.rows),
            WIDE: partial(_scored, wide, here, settings.rows),
            **_peers(settings),
        }
        speed = Comparison(
            title="Signals",
            unit="rows/s",
            samples=interleave(contestants, settings.repetitions, lambda what: announce(f"Signals: {what}")),
            peer=BATCH,
            more_is_better=True,
            targets=[Target("P7", FILES, None, must=500_000, aim=1_500_000)],
            references=[BATCH, ROWS],
        )
        announce("Signals: memory")
        sizes = {rows: peak_memory(here, rows) for rows in (settings.rows, settings.large)}
    figure, axes = panels("Signals", 1, 1, size=(9.5, 3.0))
    draw_comparison(axes[0][0], speed)
    memory = Table(
        "Peak memory of a process that scores a table",
        ["rows", "MB", "of which before the first row"],
        [[f"{rows:,}", f"{peak:.0f}", f"{before:.0f}"] for rows, (before, peak) in sizes.items()],
    )
    return Report(
        name="signals",
        title="Signals",
        method=METHOD.format(**asdict(settings)),
        settings=asdict(settings),
        data=[speed.as_dict(), {"MB": {str(rows): figures for rows, figures in sizes.items()}}],
        tables=[comparison_table(speed), target_table([speed]), memory],
        figure=figure,
    )


def write_table(path: Path, rows: int, piece: int = 250_000) -> None:
    """A table of random features, piece by piece, so that it may be larger than memory."""
    columns = {"timestamp": pl.Datetime("us", "UTC"), "close": pl.Float64, **dict.fromkeys(FEATURES, pl.Float64)}

    def pieces(*_: Any) -> Iterator[pl.DataFrame]:
        generator = np.random.default_rng(0)
        for start in range(0, rows, piece):
            size = min(piece, rows - start)
            times = pl.Series((start + np.arange(size)) * 60_000_000).cast(columns["timestamp"])
            values = generator.standard_normal((len(FEATURES), size))
            features = dict(zip(FEATURES, values, strict=True))
            yield pl.DataFrame({"timestamp": times, "close": np.full(size, 100.0), **features})

    register_io_source(pieces, schema=columns).sink_parquet(path, maintain_order=True)


def _model(table: Path, window: int) -> DistributionalPPO:
    head = pl.scan_parquet(table).head(1_000).collect()
    env = MarketEnv(head, FeatureSpec.fit(head, FEATURES, window=window))
    return DistributionalPPO("MlpPolicy", env, seed=0, device="cpu", n_steps=64, batch_size=64).learn(64)


def _scored(predictor: SignalPredictor, here: Path, rows: int) -> float:
    begin = time.perf_counter()
    write_signals(predictor, here / "bars.parquet", here / "signals.parquet", overwrite=True)
    return rows / (time.perf_counter() - begin)


def _peers(settings: Settings) -> dict[str, Callable[[], float]]:
    """SB3's ``predict`` of an equal policy, on observations in memory."""
    cycle = [float(number % 7) for number in range(200)]
    bars = {"timestamp": range(200), "close": [1.0] * 200, **{name: cycle for name in FEATURES}}
    model = stable_baselines3.PPO("MlpPolicy", MarketEnv(bars, {"features": FEATURES}), seed=0, device="cpu")
    observations = np.random.default_rng(0).standard_normal((settings.rows, len(FEATURES))).astype(np.float32)

    def one_batch() -> float:
        begin = time.perf_counter()
        model.predict(observations, deterministic=True)
        return settings.rows / (time.perf_counter() - begin)

    def row_by_row() -> float:
        begin = time.perf_counter()
        for observation in observations[: settings.single]:
            model.predict(observation, deterministic=True)
        return settings.single / (time.perf_counter() - begin)

    return {BATCH: one_batch, ROWS: row_by_row}


def peak_memory(here: Path, rows: int) -> tuple[float, float]:
    """MB of a process that has loaded all it needs, and at its peak while it scores so many rows."""
    table = here / f"bars-{rows}.parquet"
    write_table(table, rows)
    files = map(str, (here / "narrow.zip", table, here / "out.parquet"))
    command = [sys.executable, "-m", "benchmarks.signals", *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    table.unlink()
    before, peak = json.loads(done.stdout.splitlines()[-1])
    return before, peak


def main() -> None:
    """Score a table in this process, and say how much memory it took."""
    model, table, out = sys.argv[1:]
    predictor = SignalPredictor.load(model, quantiles=())
    before = _resident()
    write_signals(predictor, table, out, overwrite=True)
    print(json.dumps([before, _resident()]))


def _resident() -> float:
    """MB at this process's peak; what the system's other count says, a child inherits from its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
