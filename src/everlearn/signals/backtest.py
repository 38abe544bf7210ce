"""Walk-forward: agents are trained on the past, tested on what follows, and compared with what needs no agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from everlearn.config import RunConfig, load
from everlearn.core.errors import ArgumentError, ConfigError, require_in_range
from everlearn.environments.build import MARKET
from everlearn.markets.account import LOOK_AHEAD, Costs
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import instants, text_of
from everlearn.markets.performance import (
    Estimate,
    Performance,
    Trials,
    interquartile_difference,
    performance,
    sharpe_ratio,
)
from everlearn.markets.splits import Fold, walk_forward
from everlearn.markets.tables import read_table
from everlearn.markets.track_record import TrackRecord
from everlearn.runs.directory import RunDirectory
from everlearn.runs.model_files import model_at
from everlearn.runs.running import train
from everlearn.signals.predictor import SignalPredictor
from everlearn.signals.records import BASELINES, HOLDING, Bars, Targets, buy_and_hold, track_record

AGENT = "agent"
_QUIET = {
    "evaluation.every": 0,
    "logging.evaluation_episodes": 0,
    "logging.baseline_episodes": 0,
    "checkpoint.every": 0,
}


@dataclass(frozen=True)
class Plan:
    """How an agent is tested.

    Attributes:
        folds: Test windows, one after the other; before each, agents are trained on what came before.
        seeds: Trainings for each fold.
        purge: Bars left out between training and test, because a decision's reward reaches that far.
        embargo: Further bars left out.
        train_bars: Length of a rolling training window; None for all bars before.
        periods_per_year: Bars in a year, by which figures are annualised.
        trials: Configurations that were tried before this one was chosen, members of a population among them: the
            deflated Sharpe ratio allows for the best of so many. At least the seeds count.
        jobs: Trainings at a time.
        seed: Of the first training, and of what is drawn.
    """

    folds: int = 4
    seeds: int = 5
    purge: int = LOOK_AHEAD
    embargo: int = 0
    train_bars: int | None = None
    periods_per_year: float = 252.0
    trials: int = 1
    jobs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("folds", "seeds", "trials", "jobs"):
            require_in_range(name, getattr(self, name), 1)
        require_in_range("periods_per_year", self.periods_per_year, 0.0, open_low=True)
        if self.purge < LOOK_AHEAD:
            raise ArgumentError(
                f"purge={self.purge}: a decision earns until {LOOK_AHEAD} bars later, so that fewer would let training "
                "see prices of the test."
            )


@dataclass(frozen=True)
class Backtest:
    """What came out.

    Attributes:
        plan: How it was tested.
        costs: Of trading.
        folds: What was trained on and tested, as positions among ``times``.
        times: Of all bars, microseconds.
        records: By strategy, one for each seed, of holding one; the agent first.
        performances: Of these.
        excess: Annualised return of the agent less that of each baseline, over seeds.
    """

    plan: Plan
    costs: Costs
    folds: list[Fold]
    times: np.ndarray
    records: dict[str, list[TrackRecord]]
    performances: dict[str, list[Performance]] = field(default_factory=dict)
    excess: dict[str, Estimate] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a machine."""
        folds = [{"train": self._dates(fold.train), "test": self._dates(fold.test)} for fold in self.folds]
        return {
            "plan": vars(self.plan),
            "costs": vars(self.costs),
            "folds": folds,
            "performance": {name: [each.as_dict() for each in own] for name, own in self.performances.items()},
            "excess_return": {name: estimate._asdict() for name, estimate in self.excess.items()},
        }

    def _dates(self, bars: range) -> list[str]:
        return [text_of(self.times[bars.start]), text_of(self.times[bars.stop - 1])]


def configuration_of(run: Path, settings: Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration of a run, or in a file, that trades a market.

    Raises:
        ConfigError: If there is none, or it is for something else.
    """
    directory = RunDirectory(run)
    path = directory.config if run.is_dir() else run
    if not path.is_file():
        raise ConfigError(f"{run}: there is no configuration. Name a run's directory or a YAML file.")
    config = load(path, settings)
    if config.env.id != MARKET:
        raise ConfigError(f"{path}: env.id is '{config.env.id}'. A backtest needs '{MARKET}', which trades a table.")
    return config


def backtest(
    run: str | Path,
    table: str | Path,
    out: Path,
    plan: Plan,
    *,
    settings: Mapping[str, Any] | None = None,
    announce: Callable[[str], object] = lambda _: None,
) -> Backtest:
    """Train and test agents walk-forward.

    For each test window and seed an agent is trained from the configuration of the run, on the bars before the window
    less those that are purged; its feature statistics are fitted there too. Its signals for the window are executed at
    the next bar's prices, with the environment's costs, and a position is carried over from one window to the next.

    Args:
        run: A run's directory, or a configuration file.
        table: A path (parquet, csv, feather).
        out: Directory for the trainings.
        plan: How it is tested.
        settings: Dotted key to value, which replaces what the configuration says.
        announce: Told about each training.

    Raises:
        ConfigError: If the configuration is for something else than a market.
        DataError: If the table does not fit.
        ArgumentError: If there are too few bars for the plan.
    """
    config = configuration_of(Path(run), settings)
    frame = read_table(table)
    timestamp = str(config.env.kwargs.get("spec", {}).get("timestamp", "timestamp"))
    times = np.unique(instants(frame[timestamp], str(table)))
    folds = walk_forward(len(times), plan.folds, purge=plan.purge, embargo=plan.embargo, train_bars=plan.train_bars)
    jobs = [
        _Job(config, Path(table), times, fold, plan.seed + seed, out / f"fold-{number}" / f"seed-{plan.seed + seed}")
        for (number, fold), seed in product(enumerate(folds, start=1), range(plan.seeds))
    ]
    decided: dict[tuple[int, int], pl.DataFrame] = {}
    for job, signals in zip(jobs, _carried_out(jobs, plan.jobs), strict=True):
        decided[job.fold.test.start, job.seed] = signals
        announce(
            f"{job.out}: trained to {text_of(times[job.fold.train.stop - 1])}, tested to "
            f"{text_of(times[job.fold.test.stop - 1])}"
        )
    costs = Costs(config.env.kwargs.get("fee", Costs().fee), config.env.kwargs.get("slippage", Costs().slippage))
    records: dict[str, list[TrackRecord]] = {AGENT: [], HOLDING: [], **{name: [] for name in BASELINES}}
    for seed in range(plan.seed, plan.seed + plan.seeds):
        whole = pl.concat(decided[fold.test.start, seed] for fold in folds)
        bars, targets = _traded(whole)
        generator = np.random.default_rng([plan.seed, seed])
        records[AGENT].append(track_record(bars, targets, costs))
        for name, baseline in BASELINES.items():
            records[name].append(track_record(bars, baseline(bars, targets, generator), costs))
    records[HOLDING].append(track_record(bars, buy_and_hold(bars), costs))
    return _judged(Backtest(plan, costs, folds, times, records))


@dataclass(frozen=True)
class _Job:
    """One training, and its test."""

    config: RunConfig
    table: Path
    times: np.ndarray
    fold: Fold
    seed: int
    out: Path

    def run(self) -> pl.DataFrame:
        """Train, and decide on every bar of the test window: time, symbol, price and target position."""
        fold, times = self.fold, self.times
        kwargs = {**self.config.env.kwargs, "table": str(self.table)}
        kwargs |= {"start": text_of(times[fold.train.start]), "end": text_of(times[fold.train.stop])}
        settings = {"env.kwargs": kwargs, "seed": self.seed, **_QUIET}
        train(self.config, out=self.out, settings=settings, overwrite=True)
        predictor = SignalPredictor.load(model_at(self.out), quantiles=())
        bars = read_table(self.table, predictor.spec)
        return test_decisions(predictor, bars, times[fold.test.start], times[fold.test.stop - 1])


def test_decisions(predictor: SignalPredictor, frame: pl.DataFrame, first: int, last: int) -> pl.DataFrame:
    """``time``, ``symbol``, ``price`` and ``target`` from one instant to another; flat where nothing can be decided.

    The bars before the first are there for the windows of the first observations only.

    Args:
        predictor: What decides.
        frame: The table.
        first: Microseconds.
        last: Microseconds.
    """
    spec: FeatureSpec = predictor.spec
    times = instants(frame[spec.timestamp], "The table")
    seen = frame.with_columns(pl.Series("time", times)).filter(pl.col("time") <= last)
    group = [] if spec.symbol is None else [spec.symbol]
    before = pl.col("time") < first
    history = seen.filter(before)
    history = history.group_by(group, maintain_order=True).tail(spec.window) if group else history.tail(spec.window)
    part = pl.concat([history.select(seen.columns), seen.filter(~before)])
    signals = predictor.predict(part)
    return pl.DataFrame(
        {
            "time": part["time"],
            "symbol": signals["symbol"].cast(pl.String).fill_null(""),
            "price": part[spec.price].cast(pl.Float64),
            "target": signals["position"].cast(pl.Float64).fill_null(0.0),
        }
    ).filter(pl.col("time") >= first)


def _carried_out(jobs: list[_Job], at_a_time: int) -> Iterator[pl.DataFrame]:
    if at_a_time == 1:
        yield from (job.run() for job in jobs)
        return
    with ProcessPoolExecutor(at_a_time, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_Job.run, jobs)


def _traded(decided: pl.DataFrame) -> tuple[dict[str, Bars], Targets]:
    """By symbol, the bars of all test windows end to end, and what was decided on them."""
    bars: dict[str, Bars] = {}
    targets: dict[str, np.ndarray] = {}
    for symbol in decided["symbol"].unique(maintain_order=True):
        own = decided.filter(pl.col("symbol") == symbol).sort("time")
        bars[symbol] = Bars(own["time"].to_numpy(), own["price"].to_numpy())
        targets[symbol] = own["target"].to_numpy()[: len(bars[symbol])]
    return bars, targets


def _judged(result: Backtest) -> Backtest:
    plan, generator = result.plan, np.random.default_rng([result.plan.seed, 1])
    sharpes = [sharpe_ratio(each.returns, plan.periods_per_year) for each in result.records[AGENT]]
    spread = Trials.of(sharpes, plan.periods_per_year)
    trials = Trials(max(plan.trials, plan.seeds), spread.variance)
    for name, records in result.records.items():
        counted = trials if name == AGENT else Trials(1, 0.0)
        result.performances[name] = [
            performance(record, plan.periods_per_year, generator, trials=counted) for record in records
        ]
    returns = {name: [each.annualised_return for each in own] for name, own in result.performances.items()}
    for name in (HOLDING, *BASELINES):
        result.excess[name] = interquartile_difference(returns[AGENT], returns[name], generator)
    return result
