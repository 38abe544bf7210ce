import json
import subprocess
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env

from benchmarks import (
    growth,
    learning,
    optimizer_step,
    startup,
    training,
)
from benchmarks.__main__ import SHORT_RESULTS, main
from benchmarks.compiled_step import CompiledStep
from benchmarks.machine import describe
from benchmarks.measure import Comparison, Target, interleave, paired_ratios, reaches
from benchmarks.results import save, write_page
from benchmarks.scores import binned_curve, bootstrap_interval, interquartile_mean
from benchmarks.tables import Table, bound_cell, comparison_table, part_table, range_cell, target_table

# --- measuring --------------------------------------------------------------------------------------------------------


def test_contestants_take_turns_and_the_warm_up_does_not_count():
    ticks = count()
    samples = interleave({"a": lambda: next(ticks), "b": lambda: next(ticks)}, 3, lambda _: None)
    assert samples == {"a": [2, 4, 6], "b": [3, 5, 7]}


def test_what_comes_is_announced():
    said = []
    interleave({"a": lambda: 0}, 2, said.append)
    assert said == ["warm-up of a", "repetition 1 of 2", "repetition 2 of 2"]


def test_ratios_are_taken_pair_by_pair():
    assert paired_ratios([1.0, 9.0, 10.0], [1.0, 3.0, 100.0]) == [1.0, 3.0, 0.1]


def speeds(**changes):
    samples = {"peer": [1.0, 3.0, 100.0], "ours": [1.0, 9.0, 10.0], "other": [2.0, 2.0, 2.0]}
    targets = [Target("T1", "ours", "peer", must=0.9, aim=2.5), Target("T2", "ours", "other", must=10.0)]
    fields = {"title": "work", "unit": "steps/s", "samples": samples, "peer": "peer", "more_is_better": True}
    return Comparison(**{**fields, "targets": targets, **changes})


def test_the_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians():
    assert speeds().median("ours") == 9.0
    assert speeds().ratio("ours") == 1.0
    assert speeds().ratio("ours", "other") == 4.5


@pytest.mark.parametrize(
    ("value", "more_is_better", "verdict"),
    [(1.5, True, True), (1.4, True, False), (1.5, False, True), (1.6, False, False)],
)
def test_a_bound_is_reached_from_the_better_side(value, more_is_better, verdict):
    assert reaches(value, 1.5, more_is_better=more_is_better) is verdict


def test_a_comparison_as_data_has_samples_ratios_and_verdicts():
    data = speeds(details={"bytes": {"ours": 12.0}}).as_dict()
    assert data["contestants"]["ours"] == {
        "samples": [1.0, 9.0, 10.0],
        "median": 9.0,
        "ratio_to_peer": 1.0,
        "bytes": 12.0,
    }
    assert "bytes" not in data["contestants"]["peer"]
    first, second = data["targets"]
    assert (first["ratio"], first["must_reached"], first["aim_reached"]) == (1.0, True, False)
    assert (second["ratio"], second["must_reached"], second["aim_reached"]) == (4.5, False, None)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_comparison_becomes_a_row_per_contestant():
    table = comparison_table(speeds(details={"bytes": {"ours": 12.0}}))
    assert table.title == "work, ratio to peer"
    assert table.columns == ["contestant", "steps/s", "lowest", "highest", "ratio", "bytes"]
    assert table.rows[0] == ["peer", "3.00", "1.00", "100.0", "1.00", "-"]
    assert table.rows[1] == ["ours", "9.00", "1.00", "10.0", "1.00", "12.0"]


def test_a_bound_may_be_on_the_median_itself():
    alone = speeds(targets=[Target("T3", "ours", None, must=8.0, aim=10.0)])
    assert target_table([alone]).rows == [["T3 work: ours in steps/s", "9.00", "≥ 8 reached", "≥ 10 missed"]]
    assert alone.as_dict()["targets"][0]["must_reached"] is True


def test_targets_become_rows_with_verdicts():
    assert target_table([speeds()]).rows == [
        ["T1 work: ours to peer", "1.00", "≥ 0.9 reached", "≥ 2.5 missed"],
        ["T2 work: ours to other", "4.50", "≥ 10 missed", "-"],
    ]


def test_less_is_better_reads_the_other_way():
    assert bound_cell(1.4, 1.5, more_is_better=False) == "≤ 1.5 reached"


def test_parts_are_summed():
    table = part_table("profile", "seconds", {"collect": {"a": 1.0, "b": 2.0}, "train": {"a": 0.5, "b": 20.0}})
    assert table.columns == ["seconds", "collect", "train", "sum"]
    assert table.rows == [["a", "1.00", "0.50", "1.50"], ["b", "2.00", "20.0", "22.0"]]


def test_both_ends_of_a_range_have_as_many_decimals():
    assert range_cell(9.0, 180.25) == "9.0 to 180.2"


def test_markdown_has_a_rule_and_figures_to_the_right():
    table = Table("Title", ["who", "how much"], [["a", "1"]])
    assert table.markdown() == "### Title\n\n| who | how much |\n| --- | ---: |\n| a | 1 |"


def test_in_the_terminal_a_verdict_has_a_colour_and_other_cells_have_none():
    columns = Table("Title", ["who", "must"], [["a", "≥ 1 reached"], ["b", "≥ 1 missed"]]).rich().columns
    assert [[cell.style for cell in column.cells] for column in columns] == [["", ""], ["green", "red"]]


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "mean"), [([100, 0, 1, 2, 3, 4, 5, 6], 3.5), ([1, 2, 6], 3.0), ([[0, 1], [9, 100]], 5.0)]
)
def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end(scores, mean):
    assert interquartile_mean(scores) == mean


def test_resampling_never_mixes_tasks():
    assert bootstrap_interval([[1, 1, 1], [5, 5, 5]], np.random.default_rng(0)) == (3.0, 3.0)


@pytest.mark.parametrize(("level", "interval"), [(0.95, (0.0, 1.0)), (0.4, (0.5, 0.5))])
def test_the_interval_of_two_seeds_is_that_of_four_equally_likely_resamples(level, interval):
    assert bootstrap_interval([[0, 1]], np.random.default_rng(0), level) == interval


def test_normalised_scores_have_the_random_policy_at_0_and_the_peer_at_1():
    assert learning.normalised([-1200.0, -200.0, -700.0], random=-1200.0, peer=-200.0) == [0.0, 1.0, 0.5]


def test_a_curve_is_the_mean_of_each_bin_and_a_bin_without_episodes_repeats_the_one_before():
    curve = binned_curve([15, 20, 21, 45, 99], [1, 3, 7, 11, 13], [0, 10, 20, 30, 40, 50])
    assert curve.tolist() == [2, 2, 7, 7, 12]  # 20 belongs to (10, 20], and 99 to the last bin


def test_an_episode_ends_at_the_step_over_all_environments_at_which_it_was_seen_to_end():
    venv = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    venv.reset()
    seen = []
    for step in range(1, 101):
        _, _, _, infos = venv.step(np.array([0, step % 2]))
        seen += [(2 * step, info["episode"]["r"]) for info in infos if "episode" in info]
    steps, returns = training.episodes_of(venv)
    assert sorted(zip(steps, returns, strict=True)) == sorted(seen)


# --- growth and start-up ----------------------------------------------------------------------------------------------


def test_an_exponent_is_the_slope_on_logarithmic_axes():
    assert growth.exponents([1, 2, 4], [1.0, 1.0, 4.0]) == pytest.approx((1.0, 2.0))
    assert growth.exponents([10, 1000], [3.0, 30.0]) == pytest.approx((0.5, 0.5))


def test_a_start_is_timed_to_its_end():
    assert startup.seconds(("-c", "import time; time.sleep(0.2)")) > 0.2
    with pytest.raises(subprocess.CalledProcessError):
        startup.seconds(("-c", "raise SystemExit(3)"))


# --- the benchmarks ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("name", optimizer_step.COMPILED)
def test_a_compiled_step_is_the_eager_one(name):
    shapes = [(7, 5), (7,), (3, 7)]
    eager, graphed = (
        optimizer_step.OWN_OPTIMIZERS[name](optimizer_step.parameters_with_gradients(shapes)) for _ in range(2)
    )
    step = CompiledStep(graphed)
    for _ in range(5):
        eager.step()
        step()
    for expected, found in zip(eager.param_groups[0]["params"], graphed.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_the_networks_have_the_sizes_in_their_names():
    assert [network.numel for network in optimizer_step.NETWORKS] == [11_085, 470_308, 10_010_000]
    assert len(optimizer_step.NETWORKS[0].shapes) == 13


def test_every_contestant_has_the_same_parameters_and_gradients():
    (first, _), (second, _) = (optimizer_step.parameters_with_gradients([(2, 3), (2,)]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first.grad, second.grad)


def test_the_state_of_adam_is_two_numbers_per_parameter_and_a_counter():
    optimizer = torch.optim.Adam(optimizer_step.parameters_with_gradients([(10, 10)]))
    optimizer.step()
    assert optimizer_step.state_bytes(optimizer) == 8.04


def test_microseconds_are_those_of_one_step(monkeypatch):
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(optimizer_step.time, "perf_counter", lambda: next(clock))
    calls = []
    assert optimizer_step.microseconds(lambda: calls.append(1), 5) == pytest.approx(100_000)
    assert len(calls) == 5


def read(directory, name):
    content = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    assert (directory / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert content["machine"].keys() >= {"processor", "cores", "threads", "python", "torch", "everlearn", "date"}
    assert content["short"] is True
    return content


def test_the_command_measures_all_but_learning_and_leaves_figures_pictures_and_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "seconds", len)
    main(short=True)
    directory = tmp_path / SHORT_RESULTS
    throughputs, steps = read(directory, "throughput"), read(directory, "optimizers")
    assert [data["title"] for data in throughputs["data"]] == ["HalfCheetah-v5", "CartPole-v1"]
    for data in throughputs["data"]:
        assert data["contestants"].keys() == {"SB3 PPO", "SBX PPO", "PPO", "DistributionalPPO"}
        assert all(each["first iteration, s"] > 0 for each in data["contestants"].values())
        assert list(data["seconds"]) == ["simulation", "inference", "rest of the collection", "update", "other"]
        assert all(seconds > 0 for part in data["seconds"].values() for seconds in part.values())
        assert all(data["limits"][name]["update"] > 0 for name in ("PPO", "DistributionalPPO"))
    assert throughputs["machine"]["SBX PPO"].startswith("everlearn")
    contestants = steps["data"][0]["contestants"]
    both = [contestants["AdamW foreach"]["samples"], contestants["randn"]["samples"]]
    assert contestants["AdamW foreach + randn"]["samples"] == [sum(pair) for pair in zip(*both, strict=True)]
    assert contestants["AdaptiveUPGD"]["bytes per parameter"] == pytest.approx(12, abs=0.1)
    files = read(directory, "files")["data"]
    assert [data["title"] for data in files] == ["Saving", "Loading"]
    assert all(data["contestants"]["everlearn.PPO"]["MB"] > 0 for data in files)
    assert [target["label"] for target in files[0]["targets"]] == ["P6", "P6"]
    page = (directory / "README.md").read_text(encoding="utf-8")
    assert all(part in page for part in ("## Throughput", "(throughput.png)", "| SB3 PPO |", "(optimizers.json)"))
    assert page.count("figures mean nothing") == 8
    speed, memory = read(directory, "signals")["data"]
    assert min(speed["contestants"]["parquet to parquet"]["samples"]) > 0
    assert all(before < peak for before, peak in memory["MB"].values())
    assert [data["axis"] for data in read(directory, "growth")["data"]] == [axis.name for axis in growth.AXES]
    populations = read(directory, "population")["data"][0]["contestants"]
    assert populations.keys() == {"everlearn pbt, inline"}
    assert populations["everlearn pbt, inline"]["median"] > 0
    controllers = read(directory, "population-scale")["data"]
    assert [data["population"] for data in controllers] == ["4", "8", "4, pieces of 2, 1 records"]
    assert all(data["median"]["generation"] > data["median"]["results"] > 0 for data in controllers)
    starts = read(directory, "startup")["data"][0]["contestants"]
    assert starts["everlearn --help"]["samples"] == [len(startup.COMMANDS["everlearn --help"])]
    assert "DistributionalPPO" in capsys.readouterr().out


def test_learning_scores_every_contestant_with_every_seed(tmp_path):
    settings = training.Settings(tasks=("CartPole-v1",), seeds=2, share=0.005, episodes=2, jobs=1)
    save(learning.run(settings, lambda _: None), tmp_path, describe(1), short=True)
    write_page(tmp_path)
    data = read(tmp_path, "learning")["data"]
    assert {(outcome["training"]["contestant"], outcome["training"]["seed"]) for outcome in data} == {
        (name, seed) for name in training.ALGORITHMS for seed in (0, 1)
    }
    assert all(0 < outcome["score"] <= 500 and len(outcome["curve"]) == 40 for outcome in data)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| DistributionalPPO without VGS |" in page


def test_the_short_form_of_learning_keeps_what_was_chosen_and_hardly_trains():
    settings = learning.shortened(training.Settings(seeds=5, jobs=3))
    assert (settings.seeds, settings.jobs, settings.steps("CartPole-v1")) == (2, 3, 1000)


@pytest.mark.slow
def test_trainings_in_processes_give_what_trainings_in_turn_give():
    settings = training.Settings(tasks=("CartPole-v1",), seeds=1, share=0.003, episodes=1, jobs=2)
    assert list(training.train_all(settings)) == list(training.train_all(replace(settings, jobs=1)))
