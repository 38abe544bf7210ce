"""What a step in a market is rewarded with."""

from __future__ import annotations

import math

import pytest

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.markets.rewards import DifferentialSharpe, LogReturn, rewards


def test_log_returns_add_up_to_the_logarithm_of_the_growth() -> None:
    reward = LogReturn()
    assert reward(0.1) == pytest.approx(0.09531018)
    assert reward(0.5) + reward(-0.5) == pytest.approx(math.log(0.75))


def test_the_differential_sharpe_ratio_is_that_of_moody_and_saffell() -> None:
    """After 0.02 the averages are A = 0.002 and B = 0.00004; 0.01 then has (3.2e-7 - 6e-8) / 3.6e-5^1.5."""
    reward = DifferentialSharpe(eta=0.1)
    assert reward(0.02) == 0.0
    assert reward(0.01) == pytest.approx(1.2037037)
    assert reward.get_state() == pytest.approx({"mean": 0.0028, "square": 0.000046})


@pytest.mark.parametrize(("first", "bound"), [(0.001, -10.0), (-0.001, 10.0)])
def test_the_differential_sharpe_ratio_is_at_most_ten_in_size(first: float, bound: float) -> None:
    reward = DifferentialSharpe()
    reward(first)
    assert reward(0.5) == bound


def test_returns_that_are_all_equal_to_zero_are_worth_nothing() -> None:
    reward = DifferentialSharpe()
    assert [reward(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_an_episode_begins_without_averages() -> None:
    reward = DifferentialSharpe(eta=0.1)
    first = [reward(each) for each in (0.02, 0.01)]
    reward.reset()
    assert [reward(each) for each in (0.02, 0.01)] == first


def test_a_reward_goes_on_from_the_state_of_another() -> None:
    first, second = DifferentialSharpe(eta=0.1), DifferentialSharpe(eta=0.1)
    first(0.02)
    second.set_state(first.get_state())
    assert second(0.01) == first(0.01)
    LogReturn().set_state(LogReturn().get_state())


def test_rewards_have_names_and_arguments_in_a_range() -> None:
    assert isinstance(rewards.build("log_return"), LogReturn)
    built = rewards.build({"kind": "differential_sharpe", "eta": 0.5})
    assert isinstance(built, DifferentialSharpe)
    assert built.eta == 0.5
    with pytest.raises(ConfigError, match=r"no reward 'log_returns'. Did you mean 'log_return'"):
        rewards.build("log_returns")
    for eta in (0.0, 1.5, math.nan):
        with pytest.raises(ArgumentError, match="eta"):
            DifferentialSharpe(eta=eta)
