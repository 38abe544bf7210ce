"""What a policy decides, in blocks, and what signals are made of it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO as SB3PPO

from everlearn import PPO, DistributionalPPO
from everlearn.core.errors import ArgumentError, StateError
from everlearn.markets import Thresholds
from everlearn.markets.windows import Reason
from everlearn.ppo.policy import ActorCriticPolicy
from everlearn.signals.decision import BLOCK, Decision, in_blocks, require_positions, reward_unit
from everlearn.signals.predictor import levels_of
from everlearn.signals.scoring import decision_columns, quantile_names
from tests.signals.markets_for_tests import agent

DEFAULTS = Thresholds()
GENERATOR = np.random.default_rng(7)
OBSERVATIONS = GENERATOR.standard_normal((2400, 2)).astype(np.float32)


def tensor(observations: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(observations)


# --- score and position ---------------------------------------------------------------------------------------------


def test_the_score_of_a_continuous_policy_is_its_target_position() -> None:
    policy = agent().policy
    decided = in_blocks(Decision(policy), OBSERVATIONS)
    with torch.no_grad():
        means = policy.get_distribution(tensor(OBSERVATIONS)).distribution.mean.numpy()[:, 0]
    assert decided[:, 0].tolist() == decided[:, 1].tolist()
    assert decided[:, 1] == pytest.approx(np.clip(means, -1, 1), abs=1e-6)
    assert {-1.0, 1.0} <= set(decided[:, 1].tolist())


def test_a_discrete_policy_scores_by_its_probabilities_and_takes_the_likeliest_position() -> None:
    policy = agent("discrete").policy
    decided = in_blocks(Decision(policy), OBSERVATIONS)
    with torch.no_grad():
        probabilities = policy.get_distribution(tensor(OBSERVATIONS)).distribution.probs.numpy()
    assert decided[:, 0] == pytest.approx(probabilities[:, 2] - probabilities[:, 0], abs=1e-6)
    assert decided[:, 1].tolist() == (probabilities.argmax(axis=1) - 1.0).tolist()
    assert set(decided[:, 1].tolist()) == {-1.0, 0.0, 1.0}


def test_squashed_actions_stay_within_their_bounds() -> None:
    model = agent()
    policy = type(model.policy)(
        model.observation_space, model.action_space, lambda _: 1e-3, use_sde=True, squash_output=True
    )
    with torch.no_grad():
        policy.action_net.weight.mul_(300)
    decided = in_blocks(Decision(policy), OBSERVATIONS)[:, 1]
    assert decided == pytest.approx(policy.predict(OBSERVATIONS, deterministic=True)[0][:, 0], abs=1e-6)


def test_a_policy_of_sb3_decides_too_and_predicts_no_distribution() -> None:
    space = agent().observation_space
    env = gymnasium.make("Pendulum-v1")
    policy = SB3PPO("MlpPolicy", env, device="cpu").policy_class(space, agent().action_space, lambda _: 1e-3)
    assert in_blocks(Decision(policy), OBSERVATIONS).shape == (2400, 2)
    with pytest.raises(ArgumentError, match=r"quantiles=\(0.5,\): a ActorCriticPolicy predicts no distribution"):
        Decision(policy, (0.5,))


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (1,)), spaces.Discrete(3)], ids=str)
def test_positions_are_decided_on(space: Any) -> None:
    require_positions(space)


@pytest.mark.parametrize(
    "space",
    [
        *(spaces.Box(-1, 1, (2,)), spaces.Box(0, 1, (1,)), spaces.Box(-1, 2, (1,)), spaces.Box(-1, 1, (1, 1))),
        *(spaces.Discrete(2), spaces.Discrete(3, start=-1), spaces.MultiDiscrete([3])),
    ],
    ids=str,
)
def test_other_actions_are_no_positions(space: Any) -> None:
    with pytest.raises(StateError, match=r"no target positions: signals need Box\(-1, 1, \(1,\)\) or Discrete\(3\)"):
        require_positions(space)


def test_a_policy_of_other_actions_does_not_decide() -> None:
    with pytest.raises(StateError, match=r"The policy's actions are Discrete\(2\)"):
        Decision(PPO("MlpPolicy", "CartPole-v1", device="cpu").policy)


# --- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["continuous", "discrete"])
def test_a_row_has_the_same_bits_wherever_it_stands_and_whatever_stands_beside_it(positions: str) -> None:
    decide = Decision(agent(positions).policy, (0.1, 0.9))
    whole = in_blocks(decide, OBSERVATIONS)
    assert whole.shape == (2400, 4)
    for start, end in [(0, 1), (2399, 2400), (100, 1124), (1023, 1025), (3, 2400), (0, 0)]:
        assert in_blocks(decide, OBSERVATIONS[start:end]).tobytes() == whole[start:end].tobytes()
    order = GENERATOR.permutation(2400)
    assert in_blocks(decide, OBSERVATIONS[order]).tobytes() == whole[order].tobytes()


@pytest.mark.parametrize("widths", [[64, 64], [300, 17]], ids=str)
@pytest.mark.parametrize("size", [5, 120])
def test_a_row_s_bits_do_not_depend_on_its_place_in_wider_networks_either(size: int, widths: list[int]) -> None:
    seen = GENERATOR.standard_normal((BLOCK + 77, size)).astype(np.float32)
    space = spaces.Box(-10, 10, (size,))
    policy = ActorCriticPolicy(space, spaces.Discrete(3), lambda _: 1e-3, net_arch=widths, value_head="quantile")
    decide, order = Decision(policy, (0.5,)), GENERATOR.permutation(len(seen))
    whole = in_blocks(decide, seen)
    assert in_blocks(decide, seen[order]).tobytes() == whole[order].tobytes()
    assert in_blocks(decide, seen[700:701]).tobytes() == whole[700:701].tobytes()


def test_blocks_are_of_one_size() -> None:
    class Counting:
        levels, dtype, raw = (), np.float32, False

        def __init__(self) -> None:
            self.seen: list[np.ndarray] = []

        def block(self, seen: np.ndarray) -> np.ndarray:
            self.seen.append(seen)
            return np.repeat(seen.sum(axis=1, keepdims=True), 2, axis=1)

    counting = Counting()
    decided = in_blocks(counting, OBSERVATIONS)  # type: ignore[arg-type]
    assert [each.shape for each in counting.seen] == [(BLOCK, 2)] * 3
    assert not counting.seen[-1][2400 % BLOCK :].any()
    assert decided[:, 0].tolist() == OBSERVATIONS.sum(axis=1).tolist()


@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_threads_changes_no_bit_and_stays_what_it_was(count: int) -> None:
    decide = Decision(agent().policy, (0.5,))
    expected, before = in_blocks(decide, OBSERVATIONS).tobytes(), torch.get_num_threads()
    torch.set_num_threads(count)
    inside: list[int] = []
    handle = decide.policy.action_net.register_forward_hook(lambda *_: inside.append(torch.get_num_threads()))
    try:
        assert in_blocks(decide, OBSERVATIONS).tobytes() == expected
        assert torch.get_num_threads() == count
    finally:
        handle.remove()
        torch.set_num_threads(before)
    assert set(inside) == {1}


def test_the_number_of_threads_is_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            in_blocks(Decision(agent().policy), OBSERVATIONS[:, :1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- value quantiles ------------------------------------------------------------------------------------------------


def test_value_quantiles_are_those_of_the_critics_in_the_environment_s_reward() -> None:
    """Rewards were normalised in training, so that the critics count in the normaliser's deviations."""
    model = agent(normalised=True)
    state: Any = model.normaliser_state
    decided = in_blocks(Decision(model.policy, (0.1, 0.5, 0.9), state), model.normalize_obs(OBSERVATIONS))
    with torch.no_grad():
        seen = tensor(model.normalize_obs(OBSERVATIONS))
        atoms = torch.cat([each.atoms()[0] for each in model.policy.predict_distributions(seen)], -1)
        atoms = model.policy.return_scale.denormalize(atoms).sort(-1).values.numpy()
    deviation = float(np.sqrt(model.get_vec_normalize_env().ret_rms.var + 1e-8))
    assert deviation == pytest.approx(reward_unit(state)) != 1.0
    places = [int(np.ceil(level * atoms.shape[1] - 1e-6)) - 1 for level in (0.1, 0.5, 0.9)]
    assert decided[:, 2:] == pytest.approx(atoms[:, places] * deviation, rel=1e-4, abs=1e-6)
    assert (np.diff(decided[:, 2:], axis=1) >= 0).all()
    assert (decided[:, 2] < decided[:, 4]).all()


def test_without_normalised_rewards_the_unit_is_one() -> None:
    assert reward_unit(None) == 1.0
    state: Any = agent(normalised=True).normaliser_state
    assert reward_unit({**state, "settings": {**state["settings"], "norm_reward": False}}) == 1.0


def test_observations_are_normalised_as_in_training() -> None:
    model = agent(normalised=True)
    decide = Decision(model.policy, (), model.normaliser_state)
    expected: Any = model.get_vec_normalize_env().normalize_obs(OBSERVATIONS)
    assert decide.prepared(OBSERVATIONS).tobytes() == expected.tobytes()
    assert Decision(agent().policy).prepared(OBSERVATIONS) is OBSERVATIONS


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        ((0.05, 0.5, 0.95), ["value_q05", "value_q50", "value_q95"]),
        ((0.025, 0.999), ["value_q2.5", "value_q99.9"]),
        ((0.07, 0.29), ["value_q07", "value_q29"]),  # times 100 these are 7.000000000000001 and 28.999999999999996
    ],
)
def test_quantiles_are_named_in_percent(levels: tuple[float, ...], names: list[str]) -> None:
    assert quantile_names(levels) == names


# --- signals --------------------------------------------------------------------------------------------------------


def columns(
    scores: list[float], thresholds: Thresholds = DEFAULTS, reasons: list[Reason] | None = None
) -> pl.DataFrame:
    decisions = np.array([[score, 0.25, 7.0] for score in scores], np.float32).reshape(-1, 3)
    given = np.array(reasons or [Reason.ok] * len(scores), np.uint8)
    return pl.DataFrame(decision_columns(decisions, given, thresholds, (0.5,)))


@pytest.mark.parametrize(
    ("thresholds", "scores", "signals"),
    [
        (Thresholds(), [0.6, 0.59, -0.59, -0.6, 1.0, -1.0], ["BUY", "HOLD", "HOLD", "SELL", "BUY", "SELL"]),
        (Thresholds(0.7, -0.7), [0.7, -0.7], ["BUY", "SELL"]),
        (Thresholds(1.0, -1.0), [1.0, np.nextafter(np.float32(1), 0), -1.0], ["BUY", "HOLD", "SELL"]),
        (Thresholds(0.3, 0.2, 0.0), [0.3, 0.25, 0.2], ["BUY", "HOLD", "SELL"]),
    ],
)
def test_a_signal_is_at_or_beyond_its_threshold(thresholds: Thresholds, scores: Any, signals: list[str]) -> None:
    assert columns(scores, thresholds)["signal"].to_list() == signals


def test_a_score_in_the_dead_zone_is_nought_and_at_its_border_is_not() -> None:
    found = columns([0.0999, -0.0999, 0.1, -0.1, 0.05])
    assert found["score"].to_list() == [0.0, 0.0, np.float32(0.1), np.float32(-0.1), 0.0]
    assert found["position"].to_list() == [0.25] * 5
    eager = columns([0.07, 0.13], Thresholds(0.05, -0.05, 0.1))
    assert eager["signal"].to_list() == ["HOLD", "BUY"]


def test_a_row_that_is_not_valid_holds_no_number_and_the_signal_hold() -> None:
    reasons = [Reason.ok, Reason.stale, Reason.out_of_range, Reason.nan_feature, Reason.warmup]
    found = columns([0.9, 0.9, -0.9, np.nan, 0.9], reasons=reasons)
    assert found["reason"].to_list() == ["ok", "stale", "out_of_range", "nan_feature", "warmup"]
    assert found["valid"].to_list() == [True, False, False, False, False]
    assert found["signal"].to_list() == ["BUY", "HOLD", "HOLD", "HOLD", "HOLD"]
    assert found.select("score", "position", "value_q50").rows() == [(np.float32(0.9), 0.25, 7.0), *[(None,) * 3] * 4]


def test_types_do_not_depend_on_the_rows() -> None:
    schema = columns([0.9]).schema
    assert schema == {
        "signal": pl.Enum(["SELL", "HOLD", "BUY"]),
        "score": pl.Float32,
        "position": pl.Float32,
        "value_q50": pl.Float32,
        "valid": pl.Boolean,
        "reason": pl.Enum(["ok", "stale", "out_of_range", "nan_feature", "warmup"]),
    }
    assert columns([]).schema == columns([0.9], reasons=[Reason.warmup]).schema == schema


# --- which models there are signals of ------------------------------------------------------------------------------


def test_default_levels_are_reported_where_critics_predict_distributions() -> None:
    quantile, scalar = agent(), agent(algorithm=PPO)
    assert isinstance(quantile, DistributionalPPO)
    assert levels_of(quantile, None) == (0.05, 0.5, 0.95)
    assert levels_of(quantile, ()) == levels_of(scalar, None) == levels_of(scalar, ()) == ()
    assert levels_of(quantile, [0.25]) == (0.25,)
    with pytest.raises(ArgumentError, match=r"quantiles=\(0.5,\): the critics of this model predict no distribution"):
        levels_of(scalar, [0.5])
    for level in (0.0, 1.0, float("nan"), 5.0):
        with pytest.raises(ArgumentError, match="quantiles"):
            levels_of(quantile, [level])
