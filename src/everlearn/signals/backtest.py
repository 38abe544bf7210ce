"""Walk-forward: agents are trained on the past, tested on what follows, and compared with what needs no agent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from everlearn.config import RunConfig, load
from everlearn.core.errors import ArgumentError, ConfigError, DataError, require_in_range, suggestion
from everlearn.environments.build import MARKET
from everlearn.markets.account import LOOK_AHEAD, Costs
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import text_of
from everlearn.markets.performance import (
    Estimate,
    Performance,
    Trials,
    interquartile_difference,
    performance,
    sharpe_ratio,
)
from everlearn.markets.splits import Fold, walk_forward
from everlearn.markets.tables import between, read_table, times_of
from everlearn.markets.track_record import TrackRecord
from everlearn.runs.directory import RunDirectory
from everlearn.signals.fold_jobs import FoldJob, carried_out
from everlearn.signals.records import BASELINES, HOLDING, Bars, Targets, buy_and_hold, track_record

AGENT = "agent"


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
            deflated Sharpe ratio allows for the best of so many. Seeds do not count: all of them are reported.
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
            "excess_return": {name: _plain(estimate) for name, estimate in self.excess.items()},
        }

    def _dates(self, bars: range) -> list[str]:
        return [text_of(self.times[bars.start]), text_of(self.times[bars.stop - 1])]


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in estimate._asdict().items()}


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
    spec = config.env.kwargs.get("spec")
    if not isinstance(spec, Mapping) or "features" not in spec:
        raise ConfigError(f"{path}: env.kwargs.spec names no features. Give it as in examples/market.yaml.")
    if "mean" in spec or "std" in spec:
        raise ConfigError(
            f"{path}: env.kwargs.spec has the means and deviations of features, which may be those of bars that are "
            "tested on. Leave them out: they are fitted on the bars of each training."
        )
    return config


def _times(config: RunConfig, table: str | Path) -> np.ndarray:
    """All instants of the table at which there are bars to use, rising."""
    kwargs = config.env.kwargs
    timestamp = kwargs["spec"].get("timestamp", FeatureSpec.timestamp)
    frame = between(read_table(table), timestamp, kwargs.get("start"), kwargs.get("end"))
    return np.unique(times_of(frame, timestamp, str(table)))


def _require_prices(config: RunConfig, table: str | Path, first: int) -> None:
    """Refuse prices of test windows that no account can be reckoned with, before anything is trained."""
    spec = config.env.kwargs["spec"]
    timestamp, price = spec.get("timestamp", FeatureSpec.timestamp), spec.get("price", FeatureSpec.price)
    frame = read_table(table)
    if price not in frame.columns:
        raise DataError(f"{table}: there is no column '{price}' with prices.{suggestion(price, frame.columns)}")
    times, prices = times_of(frame, timestamp, str(table)), frame[price].cast(pl.Float64, strict=False).to_numpy()
    wrong = np.flatnonzero((times >= first) & ~(np.isfinite(prices) & (prices > 0)))
    if len(wrong):
        when, found = text_of(times[wrong[0]]), frame[price][int(wrong[0])]
        raise DataError(f"{table}: the price '{price}' at {when} is {found!r}. Prices are above 0.")


def backtest(
    run: str | Path,
    table: str | Path,
    out: Path,
    plan: Plan,
    *,
    settings: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    announce: Callable[[str], object] = lambda _: None,
) -> Backtest:
    """Train and test agents walk-forward.

    For each test window and seed an agent is trained from the configuration of the run, on the bars before the window
    less those that are purged; its feature statistics are fitted there too. Its signals for the window are executed at
    the next bar's prices, with the environment's costs, and a position is carried over from one window to the next; an
    agent that sees its account begins each window flat. Where the environment has ``start`` or ``end``, bars outside
    are neither trained nor tested on.

    Args:
        run: A run's directory, or a configuration file.
        table: A path (parquet, csv, feather).
        out: Directory for the trainings.
        plan: How it is tested.
        settings: Dotted key to value, which replaces what the configuration says.
        plugins: Modules to import, in every process.
        announce: Told about each training.

    Raises:
        ConfigError: If the configuration is for something else than a market, or its features were standardised
            already, by bars that the agents must not know.
        DataError: If the table does not fit.
        ArgumentError: If there are too few bars for the plan.
        Stopped: If a signal came.
    """
    config = configuration_of(Path(run), settings)
    times = _times(config, table)
    folds = walk_forward(len(times), plan.folds, purge=plan.purge, embargo=plan.embargo, train_bars=plan.train_bars)
    _require_prices(config, table, int(times[folds[0].test.start]))
    jobs = [
        FoldJob(
            config,
            Path(table),
            (int(times[fold.train.start]), int(times[fold.train.stop])),
            (int(times[fold.test.start]), int(times[fold.test.stop - 1])),
            plan.seed + seed,
            out / f"fold-{number}" / f"seed-{plan.seed + seed}",
            plugins,
        )
        for (number, fold), seed in product(enumerate(folds, start=1), range(plan.seeds))
    ]
    decided: dict[tuple[int, int], pl.DataFrame] = {}
    for job, decisions in zip(jobs, carried_out(jobs, plan.jobs), strict=True):
        decided[job.test[0], job.seed] = decisions
        announce(f"{job.out}: trained before {text_of(job.train[1])}, tested to {text_of(job.test[1])}")
    costs = Costs(config.env.kwargs.get("fee", Costs.fee), config.env.kwargs.get("slippage", Costs.slippage))
    records: dict[str, list[TrackRecord]] = {AGENT: [], HOLDING: [], **{name: [] for name in BASELINES}}
    for seed in range(plan.seed, plan.seed + plan.seeds):
        whole = pl.concat(decided[int(times[fold.test.start]), seed] for fold in folds)
        bars, targets = _traded(whole)
        generator = np.random.default_rng([plan.seed, seed])
        records[AGENT].append(track_record(bars, targets, costs))
        for name, baseline in BASELINES.items():
            records[name].append(track_record(bars, baseline(bars, targets, generator), costs))
    records[HOLDING].append(track_record(bars, buy_and_hold(bars), costs))
    return judged(Backtest(plan, costs, folds, times, records))


def _traded(decided: pl.DataFrame) -> tuple[dict[str, Bars], Targets]:
    """By symbol, the bars of all test windows end to end, and what was decided on them."""
    bars: dict[str, Bars] = {}
    targets: dict[str, np.ndarray] = {}
    for symbol in decided["symbol"].unique(maintain_order=True):
        own = decided.filter(pl.col("symbol") == symbol).sort("time")
        bars[symbol] = Bars(own["time"].to_numpy(), own["price"].to_numpy())
        targets[symbol] = own["target"].to_numpy()[: len(bars[symbol])]
    return bars, targets


def judged(result: Backtest) -> Backtest:
    """The same with the performance of each record, and what the agent has earned beyond the others."""
    plan, generator = result.plan, np.random.default_rng([result.plan.seed, 1])
    sharpes = [sharpe_ratio(each.returns, plan.periods_per_year) for each in result.records[AGENT]]
    spread = Trials.of(sharpes, plan.periods_per_year)
    by_luck = 1.0 / len(result.records[AGENT][0])  # variance of a Sharpe ratio per bar that is 0 in truth (Lo 2002)
    trials = Trials(plan.trials, max(spread.variance, by_luck))
    for name, records in result.records.items():
        counted = trials if name == AGENT else Trials(1, 0.0)
        result.performances[name] = [
            performance(record, plan.periods_per_year, generator, trials=counted) for record in records
        ]
    returns = {name: [each.annualised_return for each in own] for name, own in result.performances.items()}
    for name in (HOLDING, *BASELINES):
        result.excess[name] = interquartile_difference(returns[AGENT], returns[name], generator)
    return result
