"""What a position costs and earns, and what the policy may see of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from everlearn.markets.account import ACCOUNT_FEATURES, LOOK_AHEAD, Account, Costs, net_returns

ALL = ("position", "bars_held", "open_return")


def test_costs_are_a_share_of_what_is_traded() -> None:
    assert Costs(fee=0.01, slippage=0.002).of(np.array([0.0, 0.5, 2.0])).tolist() == pytest.approx([0, 0.006, 0.024])


@pytest.mark.parametrize(
    ("position", "growth", "trade", "earned"),
    [(1.0, 0.1, 1.0, 0.09), (-0.5, 0.1, 1.5, -0.065), (0.0, 0.1, 1.0, -0.01), (-1.0, -0.2, 0.0, 0.2)],
)
def test_a_position_earns_its_share_of_the_growth_less_costs(
    position: float, growth: float, trade: float, earned: float
) -> None:
    assert net_returns(position, growth, trade, Costs(0.01, 0.0)) == pytest.approx(earned)


def test_a_decision_has_earned_two_bars_later() -> None:
    assert LOOK_AHEAD == 2


def test_bars_are_counted_and_the_price_kept_from_when_the_position_took_its_sign() -> None:
    account, seen = Account(), []
    for target, price in [
        (0.5, 100.0),
        (0.9, 110.0),
        (0.1, 90.0),
        (-0.1, 80.0),
        (-1.0, 70.0),
        (0.0, 60.0),
        (1.0, 50.0),
    ]:
        account.execute(target, price)
        seen.append((account.position, account.bars_held, account.entry_price))
    assert seen == [
        (0.5, 0, 100.0),
        (0.9, 1, 100.0),
        (0.1, 2, 100.0),
        (-0.1, 0, 80.0),
        (-1.0, 1, 80.0),
        (0.0, 0, 60.0),
        (1.0, 0, 50.0),
    ]


def test_staying_flat_is_holding_nothing() -> None:
    account = Account()
    for price in (100.0, 110.0):
        account.execute(0.0, price)
    assert account.features(ALL, 200.0) == [0.0, 0.0, 0.0]


def test_the_open_return_is_in_favour_of_the_position_and_in_percent() -> None:
    assert Account(0.5, 7, 100.0).features(ALL, 110.0) == pytest.approx([0.5, 0.07, 100 * math.log(1.1)])
    assert Account(-0.5, 7, 100.0).features(ALL, 110.0) == pytest.approx([-0.5, 0.07, -100 * math.log(1.1)])


def test_bars_held_are_counted_to_a_hundred() -> None:
    assert Account(1.0, 99, 1.0).features(("bars_held",), 1.0) == [0.99]
    assert Account(1.0, 250, 1.0).features(("bars_held",), 1.0) == [1.0]


def test_features_come_in_the_order_that_is_asked_for() -> None:
    assert tuple(ACCOUNT_FEATURES) == ALL
    assert Account(0.5, 10, 100.0).features(("bars_held", "position"), 100.0) == [0.1, 0.5]
