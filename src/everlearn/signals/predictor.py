"""A trained policy as a function from tables of bars to tables of signals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from everlearn.checkpoint.limits import Limits
from everlearn.core.errors import ArgumentError, StateError, require_in_range
from everlearn.markets.causality import require_causal
from everlearn.markets.feature_spec import FeatureSpec, Thresholds
from everlearn.markets.instants import SECOND
from everlearn.markets.tables import check_columns, check_prices, pieces, prices_of, read_table, scan_table, told_of
from everlearn.ppo.algorithm import PPO
from everlearn.signals.accounts import AccountKeeper
from everlearn.signals.decision import POSITION, Decide, Decision, in_blocks
from everlearn.signals.looking import Looker, Seen, ahead
from everlearn.signals.scoring import decision_columns

LEVELS = (0.05, 0.5, 0.95)
_LARGEST, _NUMBERS = 65_536, 4_194_304
"""Rows of a piece at most, and numbers in its observations."""
UNSAVED = "unsaved"
_INSTANT = pl.Datetime("us", "UTC")


class SignalPredictor:
    """Scores tables with a policy, by what the model's file says of its observations, and by nothing else.

    Row ``t`` of the result depends on rows up to ``t`` only. Observations are made by the code that makes them in a
    ``MarketEnv``, and decisions in blocks of one size, so that signals over a table are to the bit the actions of
    ``act`` stepping the environment over it. Every path normalises as in training.

    Args:
        spec: What an observation is, and when a score is a signal.
        decide: What decides on observations.
        model_id: In the column ``model_id``.
    """

    def __init__(self, spec: FeatureSpec, decide: Decide, model_id: str) -> None:
        self.spec, self.model_id, self._decide = spec, model_id, decide

    @classmethod
    def of(
        cls,
        model: PPO,
        *,
        quantiles: Sequence[float] | None = None,
        thresholds: Thresholds | None = None,
        model_id: str | None = None,
    ) -> Self:
        """The predictor of a model in memory.

        Args:
            model: A trained agent whose environment was a ``MarketEnv``.
            quantiles: Levels of the value distribution to report, in the environment's own reward; None for 0.05, 0.5
                and 0.95 where the critics predict distributions. Give ``()`` for none, which is faster.
            thresholds: When a score is a signal, instead of what the model says.
            model_id: Its name; the ``content_id`` of the file that the model was loaded from by default.

        Raises:
            StateError: If the model was trained elsewhere, or through a wrapper that changes observations, or its
                actions are no positions.
            ArgumentError: If a level is outside (0, 1), or there is no distribution.
        """
        spec, statistics = FeatureSpec.of(model), model.normaliser_state
        if model.observation_space.shape != (spec.size,):
            raise StateError(
                f"The policy observes {model.observation_space}, and the specification makes {spec.size} numbers: a "
                "wrapper has changed them. Train it on what MarketEnv gives; window= is there for several bars."
            )
        model.policy.set_training_mode(False)
        decision = Decision(model.policy, levels_of(model, quantiles), statistics)
        name = model_id or str(model.parent_content or UNSAVED)
        return cls(spec if thresholds is None else replace(spec, thresholds=thresholds), decision, name)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        quantiles: Sequence[float] | None = None,
        thresholds: Thresholds | None = None,
        sha256: str | None = None,
        limits: Limits | None = None,
    ) -> Self:
        """The predictor of a model's file; nothing else is needed, and nothing in it is executed.

        Args:
            path: A file that a model has saved, a checkpoint, or an export named ``.onnx``, which onnxruntime runs.
            quantiles: As for ``of``; an export has its own.
            thresholds: As for ``of``.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for.

        Raises:
            CheckpointError: If the file is damaged or holds no model.
            StateError: If the model was trained elsewhere than in a ``MarketEnv``.
            ArgumentError: If an export has other quantiles.
        """
        if Path(path).suffix.lower() == ".onnx":
            from everlearn.signals.onnx_decision import load_decision  # which needs packages that nothing else needs

            predictor = cls(*load_decision(Path(path), quantiles, sha256, limits))
            return predictor if thresholds is None else predictor.with_thresholds(asdict(thresholds))
        from everlearn.runs.model_files import class_of

        model = class_of(Path(path)).load(path, device="cpu", sha256=sha256, limits=limits)
        return cls.of(model, quantiles=quantiles, thresholds=thresholds)

    @property
    def decide(self) -> Decide:
        """What decides on observations."""
        return self._decide

    @property
    def levels(self) -> tuple[float, ...]:
        """Of the quantiles of the value distribution that are reported."""
        return self._decide.levels

    def with_thresholds(self, changes: Mapping[str, float]) -> Self:
        """The same with some thresholds changed: ``buy``, ``sell``, ``dead_zone``.

        Raises:
            ArgumentError: If they do not go together.
        """
        thresholds = replace(self.spec.thresholds, **changes)
        return type(self)(replace(self.spec, thresholds=thresholds), self._decide, self.model_id)

    def require_causal(self, table: Any, prefixes: int = 10) -> list[int]:
        """No row of the signals for a table depends on later rows: tried on random prefixes, whose lengths it returns.

        Raises:
            DataError: Naming the first difference.
        """
        moment, bars = datetime.now(UTC), read_table(table, self.spec)
        return require_causal(lambda part: self.predict(part, decided_at=moment), bars, prefixes=prefixes)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Target positions, (rows,), on observations of the environment, (rows, size).

        Args:
            observations: As ``MarketEnv`` gives them, without any normaliser around it.
        """
        decide = self._decide
        return in_blocks(decide, decide.prepared(np.asarray(observations, np.float32)))[:, POSITION]

    def predict(self, table: Any, *, decided_at: datetime | None = None) -> pl.DataFrame:
        """One row of signals for every row of a table, in its order.

        Args:
            table: A path (parquet, csv, feather), or a table of polars, pandas or pyarrow.
            decided_at: For the column of that name, without a zone in UTC; the present by default.

        Returns:
            Timestamp and symbol as in the table, ``signal`` (BUY, SELL, HOLD), ``score``, ``position``, value
            quantiles, ``valid``, ``reason``, ``model_id``, ``bar_close``, ``decided_at``.

        Raises:
            DataError: If a column is missing, renamed, in another order or of another kind, or timestamps are
                missing, unsorted, there twice, or of several zones.
        """
        scored = [*self.predictions(table, decided_at=decided_at)]
        return pl.concat(scored)

    def predictions(self, table: Any, *, decided_at: datetime | None = None) -> Iterator[pl.DataFrame]:
        """The same in pieces, from a table that may be larger than memory; at least one, which may be empty."""
        where = str(table) if isinstance(table, str | Path) else "The table"
        moment = decided_at or datetime.now(UTC)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        frame = scan_table(table, self.spec)
        with told_of(table):
            columns = dict(frame.collect_schema())
            check_columns(columns, self.spec, where)
            if self.spec.account:
                check_prices(columns, self.spec, where)
            chosen, accounts = frame.select(self._columns()), AccountKeeper(self.spec)
            looker = Looker(self.spec, self._decide, where)
            for seen in ahead(looker.look(piece) for piece in pieces(chosen, self._piece_rows())):
                yield self._scored(seen, accounts, moment)
            if not looker.rows:
                yield self._scored(looker.look(chosen.collect()), accounts, moment)

    def schema(self, table: Any) -> pl.Schema:
        """Names and types of the columns of the result for a table."""
        head = scan_table(table, self.spec).head(0)
        return self.predict(head).schema

    # --- one piece ------------------------------------------------------------------------------------------------

    def _columns(self) -> list[str]:
        """Those that are read: what is observed, and the price where the account is; it may be a feature, too."""
        return [*dict.fromkeys([*self.spec.columns, *([self.spec.price] if self.spec.account else [])])]

    def _piece_rows(self) -> int:
        return max(256, min(_LARGEST, _NUMBERS // self.spec.size))

    def _scored(self, seen: Seen, accounts: AccountKeeper, moment: datetime) -> pl.DataFrame:
        if seen.observations is None:
            prices = prices_of(seen.piece, self.spec)
            decisions = accounts.decide(prices, seen.reasons, seen.windows, self._decide)
        else:
            decisions = in_blocks(self._decide, seen.observations)
        return self._assembled(seen, decisions, moment)

    def _assembled(self, seen: Seen, decisions: np.ndarray, moment: datetime) -> pl.DataFrame:
        spec, piece, times, rows = self.spec, seen.piece, seen.times, seen.piece.height
        stamps, names = piece[spec.timestamp], None if spec.symbol is None else piece[spec.symbol]
        if stamps.dtype in (pl.String, pl.Null):
            stamps = pl.Series(spec.timestamp, times).cast(_INSTANT)
        if names is None or names.dtype == pl.Null:
            names = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
        closes = pl.Series(times + np.int64(spec.bar_seconds * SECOND)).cast(_INSTANT)
        return pl.DataFrame(
            {
                "timestamp": stamps,
                "symbol": names,
                **decision_columns(decisions, seen.reasons, spec.thresholds, self.levels),
                "model_id": pl.Series([self.model_id]).new_from_index(0, rows),
                "bar_close": closes,
                "decided_at": pl.Series([moment]).cast(_INSTANT).new_from_index(0, rows),
            }
        )


def levels_of(model: PPO, given: Sequence[float] | None) -> tuple[float, ...]:
    """The levels of value quantiles that a model can report.

    Raises:
        ArgumentError: If one is outside (0, 1), or the critics predict single numbers.
    """
    head = getattr(getattr(model.policy, "ensemble", None), "head", None)
    distributional = head is not None and head.n_outputs > 1
    if given is None:
        return LEVELS if distributional else ()
    if given and not distributional:
        raise ArgumentError(f"quantiles={tuple(given)}: the critics of this model predict no distribution. Give ().")
    for level in given:
        require_in_range("quantiles", level, 0.0, 1.0, open_low=True, open_high=True)
    return tuple(map(float, given))
