"""What holds for populations however long they live, whatever their rules."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn import HyperparamConfig, PBTConfig, PBTScheduler

NAMES = ("truncation", "binary_tournament", "k_tournament", "t_test", "threshold")
EXPLORES = ("perturb", "resample", "both")
WIDE = [
    HyperparamConfig("learning_rate", 1e-5, 1e-2, is_log_scale=True),
    HyperparamConfig("gamma", 0.9, 0.999, scale="one_minus"),
    HyperparamConfig("ent_coef", 0.0, 0.01),
    HyperparamConfig("n_epochs", 1, 3),
    HyperparamConfig("batch_size", 32, 512, divides=2048),
    HyperparamConfig("normalize_advantage", values=[True, False]),
]


def lived(seed: int, exploit: str, explore: str, size: int, generations: int) -> PBTScheduler:
    """A population whose scores are random, with some missing."""
    config = PBTConfig(
        population_size=size,
        hyperparams=WIDE,
        exploit_method=exploit,
        explore_method=explore,
        checkpoint_dir=None,
        ready_percentage=1.0,
    )
    scheduler, generator = PBTScheduler(config, seed), np.random.default_rng(seed)
    scheduler.initialize_population()
    for generation in range(1, generations + 1):
        for member in scheduler.members:
            for step in (1, 2):
                score = float(generator.normal()) if generator.random() < 0.9 else math.nan
                scheduler.update_performance(member, score, 5 * generation + step)
        for member in scheduler.members:
            scheduler.exploit_and_explore(member)
    return scheduler


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(NAMES), st.sampled_from(EXPLORES), st.integers(1, 8))
def test_b30_values_stay_in_range_and_keep_their_type_for_ever(
    seed: int, exploit: str, explore: str, size: int
) -> None:
    for member in lived(seed, exploit, explore, size, 10).members:
        for config in WIDE:
            value = member.hyperparams[config.name]
            assert config.allowed.contains(value), (config.name, value)
            assert type(value) is type(config.allowed.sample(np.random.default_rng(0)))


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.sampled_from(NAMES), st.sampled_from(EXPLORES))
def test_b30_a_population_does_not_collapse_to_one_value(seed: int, exploit: str, explore: str) -> None:
    """Even if all descend from one, and even at the bounds."""
    members = lived(seed, exploit, explore, 8, 60).members
    for name in ("learning_rate", "gamma", "ent_coef"):
        assert len({member.hyperparams[name] for member in members}) > 1, name


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(NAMES), st.sampled_from((*EXPLORES, "pb2")))
def test_the_same_seed_and_scores_decide_the_same(seed: int, exploit: str, explore: str) -> None:
    first, second = (lived(seed, exploit, explore, 4, 4) for _ in range(2))
    assert first.events == second.events


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(NAMES))
def test_b31_no_source_ever_lacked_a_score(seed: int, exploit: str) -> None:
    for event in lived(seed, exploit, "both", 6, 10).events:
        if event.source_id is not None:
            assert math.isfinite(event.source_performance)
            assert event.source_id != event.member_id
