"""One agent of a walk-forward test: trained on the bars before a window, deciding on those in it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import polars as pl

from everlearn.config import RunConfig
from everlearn.core.errors import EverlearnError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import instants, text_of
from everlearn.markets.tables import read_table
from everlearn.runs.model_files import model_at
from everlearn.runs.running import train
from everlearn.signals.predictor import SignalPredictor

_QUIET = {
    "evaluation.every": 0,
    "logging.evaluation_episodes": 0,
    "logging.baseline_episodes": 0,
    "checkpoint.every": 0,
}
_INSTANT = "microseconds since 1970"
"""A column that no table has."""


class Stopped(EverlearnError):  # noqa: N818 - the family's names are the words for what happened
    """A signal has come while an agent was trained: what it has learned so far is no result.

    Args:
        out: Of the training.
        name: Of the signal.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.name = out, name
        super().__init__(f"{out}: stopped by {name}; the test is not complete and nothing is reported. Start it again.")


@dataclass(frozen=True)
class FoldJob:
    """One training, and its test.

    Attributes:
        config: Of the training, but for the bars and the seed.
        table: The bars.
        train: From one instant on, before another, in microseconds.
        test: From one instant to another, both included.
        seed: Of the training.
        out: Its directory.
        plugins: Modules that it needs.
    """

    config: RunConfig
    table: Path
    train: tuple[int, int]
    test: tuple[int, int]
    seed: int
    out: Path
    plugins: Sequence[str] = ()

    def run(self) -> pl.DataFrame:
        """Train, and decide on every bar of the test window: time, symbol, price and target position.

        Raises:
            Stopped: If a signal has ended the training early.
        """
        start, end = map(text_of, self.train)
        kwargs = {**self.config.env.kwargs, "table": str(self.table), "start": start, "end": end}
        settings = {"env.kwargs": kwargs, "seed": self.seed, **_QUIET}
        done = train(self.config, out=self.out, settings=settings, overwrite=True, plugins=self.plugins)
        ended = done.summary.stopped_by
        if ended in signal.Signals.__members__:
            raise Stopped(self.out, str(ended))
        predictor = SignalPredictor.load(model_at(self.out), quantiles=())
        return decisions_between(predictor, read_table(self.table, predictor.spec), *self.test)


def carried_out(jobs: Sequence[FoldJob], at_a_time: int) -> Iterator[pl.DataFrame]:
    """The decisions of all jobs in their order; where one fails, those that have not begun are left."""
    if at_a_time == 1:
        yield from (job.run() for job in jobs)
        return
    pool = ProcessPoolExecutor(at_a_time, mp_context=get_context("spawn"))
    try:
        yield from pool.map(FoldJob.run, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def decisions_between(predictor: SignalPredictor, frame: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    """``time``, ``symbol``, ``price`` and ``target`` from one instant to another; flat where nothing can be decided.

    The bars before the first are there for the windows of the first observations only.

    Args:
        predictor: What decides.
        frame: The table.
        first: Microseconds.
        last: Microseconds.
    """
    spec: FeatureSpec = predictor.spec
    times = pl.Series(_INSTANT, instants(frame[spec.timestamp], "The table"))
    seen = frame.with_columns(times).filter(pl.col(_INSTANT) <= last)
    before = pl.col(_INSTANT) < first
    history = seen.filter(before)
    if spec.symbol is None:
        history = history.tail(spec.window)
    else:
        history = history.group_by(spec.symbol, maintain_order=True).tail(spec.window).select(seen.columns)
    part = pl.concat([history, seen.filter(~before)])
    signals = predictor.predict(part)
    return pl.DataFrame(
        {
            "time": part[_INSTANT],
            "symbol": signals["symbol"].cast(pl.String).fill_null(""),
            "price": part[spec.price].cast(pl.Float64),
            "target": signals["position"].cast(pl.Float64).fill_null(0.0),
        }
    ).filter(pl.col("time") >= first)
