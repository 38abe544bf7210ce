import json
from dataclasses import replace
from itertools import pairwise

import gymnasium
import numpy as np
import pytest

from benchmarks import drifting_arms, drifting_report, population_learning
from benchmarks.drifting import ENV_ID, EPISODE, DriftingTarget
from benchmarks.drifting_arms import SHORT, Settings, Trained
from benchmarks.machine import describe
from benchmarks.population_learning import FIXED, PBT, RANDOM, best_member, contestants, middle
from benchmarks.results import save, write_page
from everlearn.environments.snapshots import restore, snapshot

# --- the task ---------------------------------------------------------------------------------------------------------


def angle(env):
    across, up = env.direction()
    return np.arctan2(up, across)


def act(env, action, steps=1):
    return [env.step(np.array([action], np.float32))[1] for _ in range(steps)]


def best_action(env, observation):
    return np.array([env.direction() @ observation])


def started(**arguments):
    env = DriftingTarget(**arguments)
    env.reset(seed=0)
    return env


def test_by_turns_the_target_runs_and_creeps():
    env = started(phase=4, running=0.1, creeping=0.01)
    angles = [angle(env)]
    for _ in range(3):
        act(env, 0.0, 4)
        angles.append(angle(env))
    assert angles == pytest.approx([0.0, 0.4, 0.44, 0.84])


def test_a_reward_is_the_squared_distance_from_the_observation_in_the_targets_direction():
    env = started(running=0.5, creeping=0.0)
    observation = env.get_state()["observation"]
    assert act(env, 2.0) == pytest.approx([-((2.0 - observation[0]) ** 2)])
    env.set_state({**env.get_state(), "time": 0, "observation": np.array([1.0, 0.0], np.float32)})
    assert act(env, 1.0) == [0.0]


def test_noise_makes_rewards_vary_and_leaves_the_return_of_an_episode_as_it_is():
    env = started(phase=EPISODE, noise=10.0)
    observation, rewards = env.reset()[0], []
    for _ in range(2 * EPISODE):
        observation, reward, *_ = env.step(best_action(env, observation))
        rewards.append(reward)
    runs, creeps = np.split(np.array(rewards), 2)
    assert np.abs(runs).max() < 1e-9
    assert 7 < creeps.std() < 13
    assert abs(creeps.sum()) < 1e-9


def test_time_goes_on_over_episodes_until_there_is_a_seed():
    env = started(phase=2)
    act(env, 0.0, 3)
    env.reset()
    assert (env.runs(), env.get_state()["time"]) == (False, 3)
    env.reset(seed=1)
    assert (env.runs(), env.get_state()["time"], env.get_state()["owed"]) == (True, 0, 0.0)


def test_an_environment_goes_on_from_the_state_of_another_exactly():
    first, second = (gymnasium.make(ENV_ID, phase=4) for _ in range(2))
    for seed, env in enumerate((first, second)):
        env.reset(seed=seed)
    for _ in range(5):  # so that noise is owed
        first.step(np.zeros(1, np.float32))
    state = snapshot(first)
    assert state["level"] == "exact"
    assert restore(second, state)
    for _ in range(40):
        (own, *rest), (others, *others_rest) = (env.step(np.ones(1, np.float32)) for env in (first, second))
        assert np.array_equal(own, others)
        assert rest == others_rest


# --- the arms ---------------------------------------------------------------------------------------------------------


def test_the_grid_spans_what_may_be_drawn():
    values = drifting_arms.grid(Settings())
    assert (len(values), values[0], values[-1]) == (8, drifting_arms.LOWEST, drifting_arms.HIGHEST)
    ratios = [after / before for before, after in pairwise(values)]
    assert ratios == pytest.approx([200 ** (1 / 7)] * 7)


def test_the_oracle_changes_its_learning_rate_with_the_target():
    assert drifting_arms.oracle_schedule(replace(Settings(), phases=3)) == [0.1, 0.006, 0.1]


@pytest.mark.slow
def test_all_members_live_through_the_same_phases(monkeypatch, tmp_path):
    """They are trained in the same environments, one after the other."""
    seen, step = [], DriftingTarget.step
    monkeypatch.setattr(
        DriftingTarget, "step", lambda env, action: (seen.append(env.get_state()["time"]), step(env, action))[1]
    )
    drifting_arms.pbt(0, SHORT, tmp_path / "run")
    steps = SHORT.phases * SHORT.updates * EPISODE
    assert np.bincount(seen).tolist() == [SHORT.members * 8] * steps


@pytest.mark.slow
def test_pbt_and_random_search_begin_with_the_same_members(tmp_path):
    copying = drifting_arms.pbt(1, SHORT, tmp_path / "pbt")
    drawing = drifting_arms.random_search(1, SHORT, tmp_path / "random")
    assert np.array_equal(copying.scores[0], drawing.scores[0])
    assert np.array_equal(copying.learning_rates[0], drawing.learning_rates[0])
    assert (drawing.learning_rates == drawing.learning_rates[0]).all()
    assert (copying.learning_rates != copying.learning_rates[0]).any()


# --- what is made of the scores ---------------------------------------------------------------------------------------

TINY = replace(Settings(), seeds=2, members=2, phases=2, updates=2, interval=1)


def trained(*scores):
    return [Trained(np.array(each, float), np.ones((4, 2))) for each in scores]


def test_hindsight_chooses_after_the_first_phase_and_a_fixed_setting_for_all_seeds():
    seed_0, seed_1 = [[9, 0], [9, 0], [1, 4], [3, 4]], [[9, 0], [9, 0], [7, 5], [6, 5]]
    told = np.zeros((2, 4))
    found = contestants(
        {PBT: trained(seed_0, seed_1), RANDOM: trained(seed_0, seed_1), FIXED: trained(seed_0, seed_1)}, told, 2
    )
    assert found["best fixed setting"].tolist() == [[0, 0, 4, 4], [0, 0, 5, 5]]
    assert found["random search, one member"].tolist() == [[0, 0, 4, 4], [9, 9, 7, 6]]
    assert found["random search, best at the time"].tolist() == [[9, 9, 4, 4], [9, 9, 7, 6]]
    assert found["PBT"].tolist() == [[9, 9, 4, 4], [9, 9, 7, 6]]
    assert found["oracle schedule"] is told


def test_to_have_failed_counts_as_the_worst_score():
    assert best_member(np.array([[5.0, 4.0, 0.0], [np.nan, 4.0, 0.0]])) == 1
    assert best_member(np.array([[5.0, 4.0, 3.0], [np.nan, 3.0, 3.0]])) == 0


def test_the_middle_of_learning_rates_is_taken_in_logarithms():
    assert middle(np.array([[0.1, 0.001], [0.2, 0.2]])) == pytest.approx([0.01, 0.2])


def test_means_are_taken_by_phase_after_the_first_and_at_the_ends():
    values = np.array([[1.0, 3.0, 5.0, np.nan], [np.nan, np.nan, 2.0, 4.0]])
    assert drifting_report.by_phase(values, TINY).tolist() == [[2.0, 5.0], pytest.approx([np.nan, 3.0], nan_ok=True)]
    assert drifting_report.after_first(values, TINY).tolist() == [5.0, 3.0]
    long = replace(TINY, phases=1, updates=8)
    assert drifting_report.at_ends(np.arange(8.0), long).tolist() == [6.5]


def test_a_difference_says_who_is_better_only_where_the_interval_leaves_out_0():
    flat = [[0, 0, 1, 1], [0, 0, 1, 1]]
    curves = {
        "oracle schedule": np.add(flat, 1.0),
        "best fixed setting": np.subtract(flat, 0.5),
        "random search, one member": np.array([[0, 0, 0, 0], [0, 0, 2, 2]]),
        "PBT": np.array(flat),
    }
    assert drifting_report.difference_table(curves, TINY).rows == [
        ["PBT - oracle schedule", "-1.00", "-1.00", "-1.00", "-1.00 to -1.00", "oracle schedule"],
        ["PBT - best fixed setting", "0.50", "0.50", "0.50", "0.50 to 0.50", "PBT"],
        ["PBT - random search, one member", "1.00", "-1.00", "0.00", "-1.00 to 1.00", "undecided"],
    ]


def test_the_study_leaves_figures_a_picture_and_a_page(tmp_path):
    said = []
    save(population_learning.run(SHORT, said.append), tmp_path, describe(1), short=True)
    write_page(tmp_path)
    content = json.loads((tmp_path / "population-learning.json").read_text(encoding="utf-8"))
    assert len(said) == 8
    assert {(each["arm"], each["seed"]) for each in content["data"]} == {
        (arm, seed) for arm in (PBT, RANDOM, FIXED, "oracle schedule") for seed in (0, 1)
    }
    assert [table["title"] for table in content["tables"]][-2:] == [
        "Fixed settings",
        "Median learning rate in the last quarter of each phase",
    ]
    fixed = next(each for each in content["data"] if each["arm"] == FIXED)
    assert [member["first_learning_rate"] for member in fixed["members"]] == [0.001, 0.2]
    assert all(len(member["phases"]) == SHORT.phases for member in fixed["members"])
    assert (tmp_path / "population-learning.png").read_bytes().startswith(b"\x89PNG")
    assert "| PBT, median member |" in (tmp_path / "README.md").read_text(encoding="utf-8")
