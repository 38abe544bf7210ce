import warnings

import pytest

from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.population.config import PBTConfig, smallest_interval, warn_of_warmup
from everlearn.population.exploit import BinaryTournament, KTournament, RequiredGap, Truncation
from everlearn.population.explore import PerturbOrResample, Reset
from everlearn.population.pb2 import PB2
from everlearn.population.space import HyperparamConfig

X = HyperparamConfig("x", 0.0, 1.0)


def test_the_defaults_are_those_of_the_specification() -> None:
    config = PBTConfig()
    assert (config.population_size, config.perturbation_interval, config.truncation_ratio) == (10, 5, 0.2)
    assert (config.exploit_method, config.explore_method, config.metric_mode) == ("truncation", "both", "max")
    assert (config.ready_percentage, config.min_ready_members, config.ready_check_max_wait) == (0.8, 2, 10)
    assert (config.optimizer_exploit_strategy, config.copied, config.burn_in, config.mutate_all) == (
        "copy",
        "everything",
        0,
        False,
    )
    assert config.exploit == Truncation(0.2)
    assert config.explore == PerturbOrResample()


@pytest.mark.parametrize(
    ("changes", "exploit"),
    [
        ({"truncation_ratio": 0.4}, Truncation(0.4)),
        ({"exploit_method": {"kind": "Truncation"}, "truncation_ratio": 0.4}, Truncation(0.4)),
        ({"exploit_method": {"kind": "truncation", "ratio": 0.1}}, Truncation(0.1)),
        ({"exploit_method": "BinaryTournament"}, BinaryTournament()),
        ({"exploit_method": {"kind": "k_tournament", "size": 5}}, KTournament(size=5)),
        ({"exploit_method": KTournament(2, 0)}, KTournament(2, 0)),
        ({"relative_gap": 0.1}, RequiredGap(Truncation(0.2), 0.1, 0.0)),
        ({"absolute_gap": 2.0}, RequiredGap(Truncation(0.2), 0.0, 2.0)),
    ],
)
def test_who_copies_whom_is_a_name_a_mapping_or_an_object(changes, exploit) -> None:
    assert PBTConfig(**changes).exploit == exploit


def test_how_values_change_is_a_name_a_mapping_or_an_object() -> None:
    assert PBTConfig(explore_method={"kind": "pb2", "candidates": 7}).explore == PB2(candidates=7)
    assert PBTConfig(explore_method=Reset(0.5)).explore == Reset(0.5)


def test_mutations_of_ray_join_the_others() -> None:
    config = PBTConfig(hyperparams=[X], hyperparam_mutations={"lr": [1e-3, 1e-4], "optimizer": {"sigma": [0.1, 0.2]}})
    assert [each.name for each in config.space] == ["x", "lr", "optimizer.sigma"]


@pytest.mark.parametrize(
    ("size", "share", "ready"), [(10, 0.8, 8), (4, 0.8, 3), (100, 0.57, 57), (1, 0.8, 1), (3, 0.1, 1)]
)
def test_ready_is_the_share_rounded_down_and_at_least_one(size: int, share: float, ready: int) -> None:
    assert PBTConfig(population_size=size, ready_percentage=share).ready_members == ready


def test_b31_four_members_have_one_at_the_bottom() -> None:
    assert PBTConfig(population_size=4).truncated_members == 1
    assert PBTConfig(population_size=1).truncated_members == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population_size": 0}, "population_size=0"),
        ({"population_size": 2.0}, "population_size=2.0 is no whole number"),
        ({"population_size": True}, "population_size=True is no whole number"),
        ({"perturbation_interval": 0}, "perturbation_interval=0"),
        ({"ready_check_max_wait": 0}, "ready_check_max_wait=0"),
        ({"min_ready_members": 0}, "min_ready_members=0"),
        ({"min_ready_members": 11}, "min_ready_members=11 is more than population_size=10"),
        ({"burn_in": -1}, "burn_in=-1"),
        ({"ready_percentage": 0.0}, "ready_percentage=0"),
        ({"ready_percentage": 1.1}, "ready_percentage=1.1"),
        ({"truncation_ratio": 0.0}, "truncation_ratio=0"),
        ({"truncation_ratio": 0.6}, "the top and the bottom of the population would overlap"),
        ({"truncation_ratio": float("nan")}, "truncation_ratio=nan"),
        ({"truncation_ratio": 0.0, "exploit_method": "none"}, "truncation_ratio=0"),
        ({"min_ready_members": 3, "population_size": 2}, "min_ready_members=3 is more than population_size=2"),
        ({"metric_mode": "maximum"}, "metric_mode='maximum' is unknown. Give one of: max, min"),
        ({"optimizer_exploit_strategy": "keep"}, "Give one of: copy, reset"),
        ({"copied": "all"}, "Give one of: everything, weights"),
        ({"relative_gap": -0.1}, "relative_gap=-0.1"),
        ({"exploit_method": "trucation"}, "no exploit method 'trucation'. Did you mean 'truncation'"),
        ({"explore_method": "prturb"}, "no explore method 'prturb'. Did you mean 'perturb'"),
        ({"explore_method": {"kind": "pb2", "candidate": 3}}, "Did you mean 'candidates'"),
        ({"explore_method": "reset", "hyperparams": [X]}, "x: the explore method 'reset' needs a default"),
        ({"hyperparams": [X, X]}, "'x' is the hyper-parameter 'x' again"),
        ({"hyperparams": [X], "hyperparam_mutations": {"x": [1, 2]}}, "'x' is the hyper-parameter 'x' again"),
        ({"hyperparams": [{"name": "x"}]}, "is no HyperparamConfig"),
    ],
)
def test_row_25_rules_that_cannot_be_meant_are_refused(changes, message: str) -> None:
    with pytest.raises((ConfigError, ArgumentError), match=message):
        PBTConfig(**changes)


def test_row_25_a_top_and_a_bottom_that_just_do_not_meet_are_taken() -> None:
    assert PBTConfig(truncation_ratio=0.5).truncated_members == 5


def test_row_25_small_populations_are_taken() -> None:
    for size in (1, 2, 3):
        assert PBTConfig(population_size=size).population_size == size


def test_b32_an_interval_that_is_over_before_the_warm_up_is_warned_of() -> None:
    message = "perturbation_interval=2 updates of 50 optimizer steps .* vgs_warmup_steps=100 .* to 3 or more"
    with pytest.warns(UserWarning, match=message):
        assert warn_of_warmup(perturbation_interval=2, steps_per_update=50, vgs_warmup_steps=100)


def test_b32_an_interval_that_is_long_enough_is_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_of_warmup(perturbation_interval=3, steps_per_update=50, vgs_warmup_steps=100)
        assert not warn_of_warmup(perturbation_interval=1, steps_per_update=1, vgs_warmup_steps=0)


@pytest.mark.parametrize(("steps", "warmup"), [(50, 100), (30, 100), (101, 100), (100, 100), (1, 0)])
def test_b32_the_smallest_interval_is_enough_and_one_less_is_not(steps: int, warmup: int) -> None:
    interval = smallest_interval(steps, warmup)
    assert interval * steps > warmup >= (interval - 1) * steps


def test_b32_updates_have_steps() -> None:
    with pytest.raises(ArgumentError, match="steps_per_update=0"):
        warn_of_warmup(1, 0, 100)
