"""What positions would have earned: by hand, and as the environment reckons."""

import numpy as np
import pytest

from everlearn.core.errors import DataError
from everlearn.markets import MarketEnv
from everlearn.markets.account import Costs
from everlearn.signals.records import BASELINES, Bars, buy_and_hold, track_record

DAY = 86_400_000_000
PRICES = np.array([100.0, 110.0, 121.0, 108.9, 108.9, 130.68])
FREE = Costs(0.0, 0.0)


def bars(prices: np.ndarray = PRICES, start: int = 0) -> Bars:
    return Bars((start + np.arange(len(prices))) * DAY, prices)


def test_a_decision_is_executed_at_the_next_bar_and_earns_until_the_one_after() -> None:
    record = track_record({"A": bars()}, {"A": np.array([1.0, 1.0, -1.0, 0.5])}, FREE)
    assert record.returns == pytest.approx([0.1, -0.1, 0.0, 0.1])  # 121/110, 108.9/121, short 1, half of 1.2
    assert record.timestamps.tolist() == [
        day.item() for day in np.arange(2, 6) * np.timedelta64(DAY, "us") + np.datetime64(0, "us")
    ]
    assert record.trades == pytest.approx([1.0, 0.0, 2.0, 1.5])
    assert record.positions.tolist() == [1.0, 1.0, -1.0, 0.5]


def test_each_change_of_position_is_paid_for() -> None:
    record = track_record({"A": bars()}, {"A": np.array([1.0, 1.0, -1.0, 0.5])}, Costs(fee=0.01, slippage=0.005))
    assert record.costs == pytest.approx([0.015, 0.0, 0.03, 0.0225])
    assert record.returns == pytest.approx([0.1 - 0.015, -0.1, -0.03, 0.1 - 0.0225])


def test_symbols_have_equal_weights_on_each_day() -> None:
    """The second begins a bar later, so that it has a part in three of the four days."""
    both = {"A": bars(), "B": bars(np.array([10.0, 10.0, 11.0, 11.0, 11.0]), start=1)}
    targets = {"A": np.array([1.0, 1.0, 1.0, 1.0]), "B": np.array([1.0, 0.0, 0.0])}
    record = track_record(both, targets, FREE)
    assert record.returns == pytest.approx([0.1, (-0.1 + 0.1) / 2, 0.0, 0.1])
    assert record.positions == pytest.approx([1.0, 1.0, 0.5, 0.5])


def test_it_is_the_account_of_the_environment() -> None:
    generator = np.random.default_rng(0)
    prices = 100 * np.exp(np.cumsum(0.02 * generator.standard_normal(50)))
    table = {"timestamp": np.arange(50), "close": prices, "x": generator.standard_normal(50)}
    env = MarketEnv(table, {"features": ["x"]}, fee=0.001, slippage=0.002, random_start=False)
    env.reset()
    targets = generator.uniform(-1, 1, 48).astype(np.float32)
    rewards = [env.step(np.array([target]))[1] for target in targets]
    record = track_record({"": bars(prices)}, {"": targets.astype(np.float64)}, env.costs)
    assert np.log1p(record.returns) == pytest.approx(rewards, rel=1e-12)


def test_more_than_everything_is_never_lost() -> None:
    record = track_record({"A": bars(np.array([1.0, 1.0, 3.0, 3.0]))}, {"A": np.array([-1.0, -1.0])}, FREE)
    assert record.returns.tolist() == [-1.0, 0.0]
    assert record.equity[-1] == 0.0


def test_two_bars_are_too_few() -> None:
    with pytest.raises(DataError, match="needs the prices of 2 more"):
        track_record({"A": bars(PRICES[:2])}, {"A": np.array([])}, FREE)


def test_baselines_have_the_agents_positions_without_its_sense() -> None:
    agent = {"A": np.sin(np.arange(40.0))}
    own, generator = {"A": bars(np.ones(42))}, np.random.default_rng(0)
    assert buy_and_hold(own)["A"].tolist() == [1.0] * 40
    made = {name: baseline(own, agent, generator)["A"] for name, baseline in BASELINES.items()}
    for name in ("random", "random timing"):
        assert sorted(made[name]) == sorted(agent["A"])
        assert not np.array_equal(made[name], agent["A"])
    turned = made["random timing"]
    assert np.sum(np.abs(np.diff(turned, append=turned[0]))) == pytest.approx(
        np.sum(np.abs(np.diff(agent["A"], append=agent["A"][0])))
    )
