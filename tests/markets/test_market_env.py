"""The environment: when a decision is executed, what it earns, what it sees, and that it goes on from its state."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from stable_baselines3.common.env_checker import check_env as check_by_sb3

from everlearn.core.errors import ArgumentError, ConfigError, DataError, OrderError
from everlearn.markets import MarketEnv
from tests.markets.small_markets import ACCOUNT, PRICES, act, market, plain, table

# --- the checkers ---------------------------------------------------------------------------------------------------

EXPECTED = ("minimum value is -infinity", "maximum value is infinity", "alternative render modes")


@pytest.mark.parametrize("positions", ["continuous", "discrete"])
@pytest.mark.parametrize("account", [(), ACCOUNT])
@pytest.mark.parametrize("window", [1, 5])
def test_checkers_of_gymnasium_and_sb3_find_nothing(positions: Any, account: Any, window: int) -> None:
    spec = {"features": ["return_1", "momentum_8"], "window": window, "account": list(account)}
    for reward in ("log_return", "differential_sharpe"):
        env = MarketEnv(PRICES, spec, positions=positions, reward=reward, episode_bars=7)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_by_gymnasium(env)
            check_by_sb3(env)
        assert [str(each.message) for each in caught if not any(text in str(each.message) for text in EXPECTED)] == []


# --- timing ---------------------------------------------------------------------------------------------------------


def test_a_decision_is_executed_at_the_next_bar_and_earns_until_the_one_after() -> None:
    env = market(fee=0.01, random_start=False)
    first, info = env.reset()
    assert (first.tolist(), info["bar"], info["position"], info["timestamp"]) == (
        [0.0],
        0,
        0.0,
        "1970-01-01T00:00:00+00:00",
    )
    outcomes = act(env, 1.0, -0.5, -0.5)
    assert [each[0].tolist() for each in outcomes] == [[1.0], [2.0], [3.0]]
    assert [each[1] for each in outcomes] == pytest.approx([math.log(0.89), math.log(0.935), 0.0])
    assert [each[2:4] for each in outcomes] == [(False, False), (False, False), (False, True)]
    infos = [each[4] for each in outcomes]
    assert [each["return"] for each in infos] == pytest.approx([-0.11, -0.065, 0.0])
    assert [each["trade"] for each in infos] == [1.0, 1.5, 0.0]
    assert [each["position"] for each in infos] == [1.0, -0.5, -0.5]
    assert [each["bar"] for each in infos] == [1, 2, 3]
    assert infos[-1]["timestamp"] == "1970-01-01T03:00:00+00:00"


def test_short_positions_earn_what_prices_lose() -> None:
    env = market(fee=0.0, random_start=False)
    env.reset()
    assert [each[1] for each in act(env, -1.0, -1.0)] == pytest.approx([math.log(1.1), math.log(0.9)])


def test_fee_and_slippage_are_paid_for_what_changes_hands() -> None:
    env = market([100.0] * 6, fee=0.01, slippage=0.005, random_start=False)
    env.reset()
    earned = [each[4]["return"] for each in act(env, 1.0, 1.0, -1.0, 0.0)]
    assert earned == pytest.approx([-0.015, 0.0, -0.03, -0.015])


def test_actions_are_a_target_position_or_one_of_three_choices() -> None:
    assert market().action_space == gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    assert market(positions="discrete").action_space == gymnasium.spaces.Discrete(3)


def test_targets_are_held_within_one() -> None:
    env = market(random_start=False)
    env.reset()
    assert [each[4]["position"] for each in act(env, 7.0, -7.0)] == [1.0, -1.0]


def test_discrete_choices_are_short_flat_and_long() -> None:
    env = market(positions="discrete", fee=0.0, random_start=False)
    env.reset()
    taken = [env.step(choice)[4] for choice in (np.int64(2), 0, np.array(1))]
    assert [each["position"] for each in taken] == [1.0, -1.0, 0.0]
    assert [each["return"] for each in taken] == pytest.approx([-0.1, -0.1, 0.0])


@pytest.mark.parametrize("choice", [-1, 3])
def test_choices_that_there_are_not_are_refused(choice: int) -> None:
    env = market(positions="discrete")
    env.reset()
    with pytest.raises(ArgumentError, match="there are 0, 1 and 2, which are short, flat and long"):
        env.step(choice)


def test_features_of_the_account_are_as_of_the_execution_of_the_decision_before() -> None:
    env = market(spec=plain(account=ACCOUNT), random_start=False)
    first, _ = env.reset()
    seen = [first, *(each[0] for each in act(env, 0.5, 0.25, -1.0))]
    assert [each[1:].tolist() for each in seen] == [
        pytest.approx([0.0, 0.0, 0.0]),
        pytest.approx([0.5, 0.0, 0.0]),
        pytest.approx([0.25, 0.01, 100 * math.log(99 / 110)]),
        pytest.approx([-1.0, 0.0, 0.0]),
    ]
    again, _ = env.reset()
    assert again.tolist() == first.tolist()


def test_ruin_terminates_and_costs_a_finite_reward() -> None:
    env = market([100.0, 100.0, 200.0, 100.0, 100.0, 100.0], fee=0.0, random_start=False)
    env.reset()
    ((_, reward, terminated, truncated, info),) = act(env, -1.0)
    assert (terminated, truncated, info["return"]) == (True, False, -1.0)
    assert reward == pytest.approx(math.log(1e-9))
    with pytest.raises(OrderError, match="episode is over"):
        act(env, 0.0)


def test_steps_need_an_episode() -> None:
    env = market(random_start=False)
    with pytest.raises(OrderError, match=r"none has begun. Call reset"):
        act(env, 0.0)
    env.reset()
    act(env, 0.0, 0.0, 0.0)
    with pytest.raises(OrderError, match="The episode is over"):
        act(env, 0.0)


def test_the_reward_may_be_another_and_begins_anew_with_each_episode() -> None:
    env = market(reward={"kind": "differential_sharpe", "eta": 0.1}, fee=0.0, random_start=False)
    env.reset()
    first = [each[1] for each in act(env, 0.2, 0.1)]
    assert first[0] == 0.0
    assert first[1] != 0.0
    env.reset()
    assert [each[1] for each in act(env, 0.2, 0.1)] == first


# --- episodes -------------------------------------------------------------------------------------------------------


def length(env: MarketEnv) -> int:
    """Steps from here to the end."""
    for step in range(1, 100):
        if any(act(env, 0.0)[0][2:4]):
            return step
    raise AssertionError


@pytest.mark.parametrize(("episode_bars", "steps"), [(None, 6), (1, 1), (4, 4), (6, 6), (50, 6)])
def test_an_episode_ends_after_its_bars_or_with_the_data(episode_bars: int | None, steps: int) -> None:
    env = market([100.0] * 8, episode_bars=episode_bars, random_start=False)
    env.reset(seed=0)
    assert length(env) == steps


@pytest.mark.parametrize(("window", "firsts"), [(1, {0, 1, 2, 3, 4}), (3, {2, 3, 4})])
def test_a_random_start_covers_all_bars_and_never_leaves_the_data(window: int, firsts: set[int]) -> None:
    env = market([100.0] * 8, plain(window=window), episode_bars=2)
    found = {env.reset(seed=seed)[1]["bar"] for seed in range(60)}
    assert found == firsts
    for seed in range(10):
        env.reset(seed=seed)
        assert length(env) == 2


def test_without_a_random_start_the_first_bar_is_the_first_of_all_that_can_be_seen() -> None:
    env = market([100.0] * 8, plain(window=3), episode_bars=2, random_start=False)
    assert {env.reset(seed=seed)[1]["bar"] for seed in range(20)} == {2}


def test_every_symbol_is_drawn_and_the_seed_decides() -> None:
    env = MarketEnv(PRICES, {"features": ["return_1"]}, episode_bars=5)
    drawn = [env.reset(seed=seed)[1] for seed in range(20)]
    assert {each["symbol"] for each in drawn} == {"S0", "S1"}
    assert [env.reset(seed=seed)[1] for seed in range(20)] == drawn


def test_symbol_and_bar_may_be_chosen() -> None:
    env = MarketEnv(PRICES, {"features": ["return_1"]}, episode_bars=5)
    _, info = env.reset(options={"symbol": "S1", "bar": 57})
    assert (info["symbol"], info["bar"], length(env)) == ("S1", 57, 1)
    with pytest.raises(ArgumentError, match=r"there is no symbol 'S2'. Known: S0, S1"):
        env.reset(options={"symbol": "S2"})
    for bar in (-1, 58):
        with pytest.raises(ArgumentError, match=rf"bar={bar} is outside \[0, 57\]"):
            env.reset(options={"bar": bar})


def test_choosing_moves_the_draws_of_later_episodes_not() -> None:
    env = MarketEnv(PRICES, {"features": ["return_1"]}, episode_bars=5)
    env.reset(seed=3)
    expected = env.reset()[1]
    env.reset(seed=3, options={"symbol": "S1", "bar": 9})
    assert env.reset()[1] == expected


def test_start_and_end_choose_the_rows() -> None:
    env = market(
        [float(100 + bar) for bar in range(10)],
        random_start=False,
        start="1970-01-01T02:00:00",
        end="1970-01-01T08:00:00Z",
    )
    first, info = env.reset()
    assert (first.tolist(), info["timestamp"], length(env)) == ([2.0], "1970-01-01T02:00:00+00:00", 4)


def test_statistics_are_those_of_the_chosen_rows_only() -> None:
    frame = table([100.0] * 6).with_columns(x=pl.Series([1e6, 1.0, 3.0, 1.0, 3.0, -1e6]))
    env = MarketEnv(frame, {"features": ["x"]}, start="1970-01-01T01:00:00", end="1970-01-01T05:00:00")
    assert (env.feature_spec.mean, env.feature_spec.std) == ((2.0,), (1.0,))
    assert env.feature_spec.fitted_until == "1970-01-01T04:00:00+00:00"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"positions": "both"}, ArgumentError, "there are 'continuous' and 'discrete'"),
        ({"fee": -0.1}, ArgumentError, "fee"),
        ({"fee": math.nan}, ArgumentError, "fee"),
        ({"slippage": 2.0}, ArgumentError, "slippage"),
        ({"episode_bars": 0}, ArgumentError, "episode_bars"),
        ({"reward": "sharpe"}, ConfigError, "no reward 'sharpe'"),
        ({"start": "soon"}, ArgumentError, "start='soon' is no timestamp"),
        ({"start": "1970-01-01T03:00:00"}, DataError, "the bars are too few: 2"),
        ({"end": "1970-01-01"}, DataError, "there are no rows"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        market(**options)
