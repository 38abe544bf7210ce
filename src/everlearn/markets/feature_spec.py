"""What the policy sees of a table of bars: which columns, in which order, in which units. It goes with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np

from everlearn.core.errors import ArgumentError, StateError, require_in_range, suggestion
from everlearn.markets.account import ACCOUNT_FEATURES

KIND = "market"
"""Of the interface that this is, among those that a model may have."""
_NUMBER, _TEXT, _OPTIONAL_TEXT = int | float, str, str | None


def _require_kinds(what: str, owner: Any, kinds: Mapping[str, Any]) -> None:
    """Refuse attributes, or entries of tuples, of another kind than by name: a file may say anything."""
    for name, kind in kinds.items():
        value = getattr(owner, name)
        for each in value if isinstance(value, tuple) else (value,):
            if not isinstance(each, kind) or isinstance(each, bool):
                raise ArgumentError(f"{what}: {name}={value!r}: give {getattr(kind, '__name__', kind)}.")


@dataclass(frozen=True)
class Thresholds:
    """When a score is a signal.

    Attributes:
        buy: BUY at or above it.
        sell: SELL at or below it.
        dead_zone: A score of a smaller size is reported as 0.
    """

    buy: float = 0.6
    sell: float = -0.6
    dead_zone: float = 0.1

    def __post_init__(self) -> None:
        _require_kinds("thresholds", self, dict.fromkeys(("buy", "sell", "dead_zone"), _NUMBER))
        if not -1 <= self.sell < self.buy <= 1:
            raise ArgumentError(
                f"thresholds: sell={self.sell!r}, buy={self.buy!r}. Scores are from -1 to 1, and sell is below buy."
            )
        if not 0 <= self.dead_zone <= 1:
            raise ArgumentError(f"thresholds: dead_zone={self.dead_zone!r} is outside [0, 1].")


@dataclass(frozen=True)
class FeatureSpec:
    """The columns that make an observation, and the statistics by which they are standardised.

    An observation holds the last ``window`` bars, oldest first, each with all features as ``clip((x - mean) / std)``,
    and then the features of the account. Build one with ``FeatureSpec.fit``, from rows of the training range only.

    Attributes:
        features: Column names, in the order in which the policy sees them and tables must have them.
        mean: Of each feature in the rows it was fitted on.
        std: Standard deviation of each; 1 for a constant one.
        dtypes: Of each column then, as polars names them.
        window: Bars in an observation.
        clip: Largest absolute standardised value, at most a million. What lies beyond is clipped while training and,
            in a table to be scored, makes a row invalid (``out_of_range``).
        account: Features of the account: ``position``, ``bars_held``, ``open_return``. With these, scoring a table is
            sequential.
        timestamp: Name of the column with the time of each bar.
        symbol: Name of the column that says whose bar it is; None where a table has one symbol only.
        price: Name of the column with the prices at which positions change; only environments and backtests read it.
        bar_seconds: Length of a bar where timestamps say its beginning; 0 where they say its end.
        max_gap_seconds: A row is invalid (``stale``) if between two bars of its observation, or from the bar before,
            more time has passed; None: never.
        fitted_until: The last timestamp of the rows it was fitted on, ISO 8601; None if it was not fitted.
        thresholds: When a score is a signal.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtypes: tuple[str, ...]
    window: int = 1
    clip: float = 10.0
    account: tuple[str, ...] = ()
    timestamp: str = "timestamp"
    symbol: str | None = None
    price: str = "close"
    bar_seconds: float = 0.0
    max_gap_seconds: float | None = None
    fitted_until: str | None = None
    thresholds: Thresholds = Thresholds()

    def __post_init__(self) -> None:
        _require_kinds("FeatureSpec", self, _KINDS)
        _require_names(self)
        sizes = {len(each) for each in (self.features, self.mean, self.std, self.dtypes)}
        if len(sizes) != 1:
            raise ArgumentError(
                "FeatureSpec: features, mean, std and dtypes are not equally many. Use FeatureSpec.fit."
            )
        if type(self.window) is not int or self.window < 1:
            raise ArgumentError(f"FeatureSpec: window={self.window!r}: give a number of bars, 1 or more.")
        require_in_range("FeatureSpec: clip", self.clip, 0.0, 1e6, open_low=True)  # infinity would be let through
        require_in_range("FeatureSpec: bar_seconds", self.bar_seconds, 0.0)
        if self.max_gap_seconds is not None:
            require_in_range("FeatureSpec: max_gap_seconds", self.max_gap_seconds, 0.0, open_low=True)
        values = np.array([self.mean, self.std], dtype=np.float64)
        if not np.isfinite(values).all() or (values[1] <= 0).any():
            raise ArgumentError("FeatureSpec: a mean or std is not finite, or a std is not above 0.")

    @classmethod
    def fit(cls, table: Any, features: Sequence[str], **options: Any) -> Self:
        """A specification whose statistics are those of a table: give it the rows of the training range, no others.

        Args:
            table: A path (parquet, csv, feather), or a table of polars, pandas or pyarrow.
            features: Columns, in the order in which the table has them.
            options: Further attributes, such as ``window=16``. A column ``symbol`` is taken for what it says unless
                ``symbol`` is given.

        Raises:
            DataError: If the table lacks columns, or a feature has no finite value.
            ArgumentError: If there is no such option.
        """
        from everlearn.markets.tables import read_table, statistics_of  # which reads by specifications

        known = {field.name for field in fields(cls)} - {"features", "mean", "std", "dtypes", "fitted_until"}
        for name in options:
            if name not in known:
                raise ArgumentError(f"FeatureSpec.fit: there is no option '{name}'.{suggestion(name, known)}")
        frame = read_table(table)
        if "symbol" not in options and "symbol" in frame.columns:
            options["symbol"] = "symbol"
        size = len(features)
        blank = cls.from_dict(
            {"features": features, "mean": [0.0] * size, "std": [1.0] * size, "dtypes": [""] * size, **options}
        )
        return replace(blank, **statistics_of(frame, blank))

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that a table must have to be scored."""
        key = (self.timestamp,) if self.symbol is None else (self.timestamp, self.symbol)
        return (*key, *self.features)

    @property
    def size(self) -> int:
        """Numbers in an observation."""
        return self.window * len(self.features) + len(self.account)

    def standardised(self, values: Any) -> Any:
        """``clip((x - mean) / std, -clip, clip)`` in float64, for arrays and tensors (..., features) alike."""
        mean, std = (_like(values, each) for each in (self.mean, self.std))
        return ((values - mean) / std).clip(-self.clip, self.clip)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, from which ``from_dict`` makes an equal one: what a model's file holds."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {"kind": KIND, **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The specification in plain data.

        Raises:
            ArgumentError: If a value is none that it can have.
        """
        given = {name: value for name, value in data.items() if name != "kind"}
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise ArgumentError(f"FeatureSpec: there is no '{name}'.{suggestion(name, known)}")
        for name in ("features", "mean", "std", "dtypes", "account"):
            if name in given:
                given[name] = _tuple(name, given[name])
        thresholds = given.get("thresholds")
        if isinstance(thresholds, Mapping):
            given["thresholds"] = _thresholds(thresholds)
        missing = [name for name in ("features", "mean", "std", "dtypes") if name not in given]
        if missing:
            raise ArgumentError(f"FeatureSpec: {', '.join(missing)} missing. Use FeatureSpec.fit.")
        return cls(**given)

    @classmethod
    def of(cls, model: Any) -> Self:
        """The specification of the environment that a model was trained in.

        Raises:
            StateError: If it was trained in an environment without one.
        """
        return cls.from_dict(market_interface(model))


_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("features", "dtypes", "account", "timestamp", "price"), _TEXT),
    **dict.fromkeys(("symbol", "fitted_until"), _OPTIONAL_TEXT),
    **dict.fromkeys(("mean", "std", "clip", "bar_seconds"), _NUMBER),
    "max_gap_seconds": _NUMBER | None,
    "thresholds": Thresholds,
}


def market_interface(model: Any) -> Mapping[str, Any]:
    """What a model says of its environment, if that was a market.

    Raises:
        StateError: If it was not.
    """
    interface = getattr(model, "policy_interface", None)
    if not isinstance(interface, Mapping) or interface.get("kind") != KIND:
        raise StateError(
            f"This {type(model).__name__} has no feature specification: it was not trained in a MarketEnv. Train it in "
            "one, or in an environment with an attribute 'policy_interface', as FeatureSpec.as_dict() gives it."
        )
    return interface


def _require_names(spec: FeatureSpec) -> None:
    names = [*spec.features, spec.timestamp, *([] if spec.symbol is None else [spec.symbol])]
    if not spec.features or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(f"FeatureSpec: features={spec.features!r}: give the names of one column or more.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArgumentError(f"FeatureSpec: {', '.join(map(repr, twice))} is named twice. Name each column once.")
    for name in spec.account:
        if name not in ACCOUNT_FEATURES:
            raise ArgumentError(f"FeatureSpec: account={name!r}: no such feature.{suggestion(name, ACCOUNT_FEATURES)}")


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ArgumentError(f"FeatureSpec: {name}={value!r}: give a list.")
    return tuple(value)


def _thresholds(data: Mapping[str, Any]) -> Thresholds:
    known = [field.name for field in fields(Thresholds)]
    for name in data:
        if name not in known:
            raise ArgumentError(f"FeatureSpec: thresholds has no '{name}'.{suggestion(name, known)}")
    return Thresholds(**data)


def _like(values: Any, numbers: tuple[float, ...]) -> Any:
    """The numbers as what ``values`` is, an array or a tensor, in float64."""
    if isinstance(values, np.ndarray):
        return np.array(numbers, dtype=np.float64)
    import torch

    return torch.tensor(numbers, dtype=torch.float64, device=values.device)
