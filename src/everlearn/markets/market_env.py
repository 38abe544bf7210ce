"""An environment in which an agent takes positions in a market, bar by bar, from a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from everlearn.core.errors import ArgumentError, OrderError, StateError, require_in_range
from everlearn.markets.account import LOOK_AHEAD, Account, Costs, net_returns
from everlearn.markets.feature_spec import KIND, FeatureSpec
from everlearn.markets.instants import text_of
from everlearn.markets.rewards import rewards
from everlearn.markets.series import feature_spec_of, series_of
from everlearn.markets.tables import between, read_table

Action = np.ndarray | np.integer[Any] | int | float
POSITIONS = ("continuous", "discrete")


class MarketEnv(gymnasium.Env[np.ndarray, Any]):
    """Target positions from -1 (all short) to 1 (all long), decided on each bar and executed at the next.

    At bar ``t`` the agent sees the bars up to ``t``. The position it decides on is taken at the price of bar ``t + 1``
    and earns until that of bar ``t + 2``: the step's reward is ``log(1 + p * (P[t+2] / P[t+1] - 1) - costs)``, with the
    costs of the change from the position before. Nothing that it observes lies after the bar it decides on. Features of
    the account are as of the execution of the decision before.

    An episode ends (``truncated``) after ``episode_bars`` steps or with the data, and (``terminated``) with ruin. Bars
    before the first full window are not traded. Its state can be taken out and put back, so that trainings resume
    exactly.

    Args:
        table: A path (parquet, csv, feather); a table of polars, pandas or pyarrow; or ``{"kind": "regimes", ...}`` for
            generated prices.
        spec: What is observed: a ``FeatureSpec``; a mapping as ``as_dict`` gives it; or the arguments of
            ``FeatureSpec.fit`` as a mapping, which is then fitted on the chosen rows of the table.
        positions: ``continuous`` is one number in [-1, 1]; ``discrete`` are the choices short, flat and long (0, 1, 2).
        fee: Share of the value traded that goes to the exchange.
        slippage: Share of the value traded by which prices are missed.
        reward: ``log_return``, ``differential_sharpe``, or ``{"kind": name, ...}``.
        episode_bars: Steps of an episode; None for all bars of a symbol.
        random_start: Whether an episode begins at a random bar; otherwise with the first.
        start: Rows before this timestamp are not used (ISO 8601).
        end: Nor those from this one on.

    Raises:
        DataError: If the table does not fit the specification, has gaps in features or prices, or too few bars.
        ArgumentError: If an argument is outside its range.
    """

    def __init__(
        self,
        table: Any,
        spec: FeatureSpec | Mapping[str, Any],
        *,
        positions: Literal["continuous", "discrete"] = "continuous",
        fee: float = Costs.fee,
        slippage: float = Costs.slippage,
        reward: str | Mapping[str, Any] = "log_return",
        episode_bars: int | None = None,
        random_start: bool = True,
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        if positions not in POSITIONS:
            raise ArgumentError(f"positions={positions!r}: there are 'continuous' and 'discrete'.")
        require_in_range("fee", fee, 0.0, 1.0)
        require_in_range("slippage", slippage, 0.0, 1.0)
        if episode_bars is not None:
            require_in_range("episode_bars", episode_bars, 1)
        if isinstance(spec, Mapping) and spec.get("kind") == KIND:
            spec = FeatureSpec.from_dict(spec)
        known = spec if isinstance(spec, FeatureSpec) else None
        timestamp = known.timestamp if known else str(spec.get("timestamp", "timestamp"))  # type: ignore[union-attr]
        frame = between(read_table(table, known), timestamp, start, end)
        self.feature_spec = feature_spec_of(spec, frame)
        self.series = [*series_of(frame, self.feature_spec)]
        self.costs = Costs(fee, slippage)
        self.positions: Literal["continuous", "discrete"] = positions
        self.random_start = random_start
        self._episode_bars = episode_bars
        self._reward = rewards.build(reward)
        bound = self.feature_spec.clip if not self.feature_spec.account else np.inf
        self.observation_space = spaces.Box(-bound, bound, (self.feature_spec.size,), np.float32)
        self.action_space = spaces.Discrete(3) if positions == "discrete" else spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._account = Account()
        self._which, self._bar, self._steps_left = 0, self.series[0].first, 0

    @property
    def policy_interface(self) -> dict[str, Any]:
        """What a model's file says of the observations; ``FeatureSpec.of(model)`` reads it."""
        return self.feature_spec.as_dict()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode, flat, in a symbol and at a bar that are drawn at random.

        Args:
            seed: Of the draws.
            options: ``{"symbol": ..., "bar": ...}`` for a certain symbol, or a certain position among its bars.
        """
        super().reset(seed=seed)
        options = options or {}
        drawn = int(self.np_random.integers(len(self.series)))
        self._which = self._index_of(options["symbol"]) if "symbol" in options else drawn
        series = self.series[self._which]
        last = len(series) - LOOK_AHEAD - 1  # on which a decision can be made
        steps = self._episode_bars or len(series)
        latest = max(last - steps + 1, series.first) if self.random_start else series.first
        drawn = int(self.np_random.integers(series.first, latest + 1))
        self._bar = int(options.get("bar", drawn))
        if not series.first <= self._bar <= last:
            raise ArgumentError(f"options: bar={self._bar} is outside [{series.first}, {last}].")
        self._steps_left = min(steps, last - self._bar + 1)
        self._account = Account()
        self._reward.reset()
        return self._observation(), self._info(0.0, 0.0)

    def step(self, action: Action) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide on the position that is taken at the next bar's price.

        Raises:
            OrderError: If no episode goes on.
            ArgumentError: If there is no such choice.
        """
        if self._steps_left <= 0:
            raise OrderError("The episode is over, or none has begun. Call reset() before step().")
        series, account = self.series[self._which], self._account
        target = self._target(action)
        bought_at, valued_at = series.prices[self._bar + 1], series.prices[self._bar + 2]
        trade = abs(target - account.position)
        earned = float(net_returns(target, valued_at / bought_at - 1.0, trade, self.costs))
        ruined = earned <= -1.0
        reward = self._reward(max(earned, -1.0 + 1e-9))
        self._bar += 1
        account.execute(target, float(bought_at))
        self._steps_left = 0 if ruined else self._steps_left - 1
        return self._observation(), reward, ruined, self._steps_left <= 0 and not ruined, self._info(earned, trade)

    def get_state(self) -> dict[str, Any]:
        """Where the episode stands; the table is not part of it."""
        return {
            "which": self._which,
            "bar": self._bar,
            "steps_left": self._steps_left,
            "account": vars(self._account).copy(),
            "reward": self._reward.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            StateError: If the table has no such bars.
        """
        symbols, last = len(self.series), state["bar"] + state["steps_left"] + LOOK_AHEAD
        if state["which"] >= symbols or last > len(self.series[state["which"]]):
            raise StateError("The state is of a table with more bars or symbols. Restore it with the table it was in.")
        self._which, self._bar, self._steps_left = state["which"], state["bar"], state["steps_left"]
        self._account = Account(**state["account"])
        self._reward.set_state(state["reward"])

    def _target(self, action: Action) -> float:
        if self.positions == "discrete":
            choice = int(np.asarray(action).item())
            if choice not in (0, 1, 2):
                raise ArgumentError(f"action={action!r}: there are 0, 1 and 2, which are short, flat and long.")
            return choice - 1.0
        value = float(np.asarray(action, np.float32).reshape(-1)[0])
        return min(max(value, -1.0), 1.0)

    def _observation(self) -> np.ndarray:
        series, spec = self.series[self._which], self.feature_spec
        account = None
        if spec.account:
            account = np.array([self._account.features(spec.account, float(series.prices[self._bar]))], np.float32)
        observation: np.ndarray = series.windows.observations(slice(self._bar, self._bar + 1), account)[0]
        return observation

    def _info(self, earned: float, trade: float) -> dict[str, Any]:
        """Of the decision that was made: what it has earned, and the bar that is seen now."""
        series = self.series[self._which]
        return {
            "symbol": series.symbol,
            "timestamp": text_of(series.times[self._bar]),
            "bar": self._bar,
            "position": self._account.position,
            "return": earned,
            "trade": trade,
        }

    def _index_of(self, symbol: Any) -> int:
        names = [series.symbol for series in self.series]
        if symbol not in names:
            raise ArgumentError(f"options: there is no symbol {symbol!r}. Known: {', '.join(map(str, names))}.")
        return names.index(symbol)
