import json
import math
from itertools import count

import numpy as np
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.markets.performance import (
    Estimate,
    Performance,
    Trials,
    calmar_ratio,
    deflated_sharpe_ratio,
    interquartile_difference,
    interquartile_mean,
    performance,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
    sortino_ratio,
    stationary_bootstrap,
)
from everlearn.markets.track_record import TrackRecord

pytestmark = pytest.mark.usefixtures("untouched_generators")


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def record(
    returns: list[float], positions: list[float] | None = None, trades: list[float] | None = None
) -> TrackRecord:
    bars = len(returns)
    held = [1.0] * bars if positions is None else positions
    traded = [0.0] * bars if trades is None else trades
    return TrackRecord(np.arange(bars), returns, held, traded, np.multiply(traded, 0.001))


def measured(returns: list[float], positions: list[float] | None = None) -> dict[str, float | None]:
    return performance(record(returns, positions), 252.0, generator(), resamples=50).as_dict()


def resampled(values: np.ndarray, **options: float | None) -> list[np.ndarray]:
    seen: list[np.ndarray] = []

    def see(resample: np.ndarray) -> float:
        seen.append(resample)
        return 0.0

    stationary_bootstrap(values, see, generator(), **options)
    return seen[:-1]  # the last is the values themselves


def mean(values: np.ndarray) -> float:
    return float(values.mean())


def test_the_sharpe_ratio_is_mean_over_sample_deviation_times_the_root_of_the_year() -> None:
    assert sharpe_ratio([0.01, 0.03], 1.0) == pytest.approx(math.sqrt(2.0))
    assert sharpe_ratio([0.01, 0.03], 4.0) == pytest.approx(2.0 * math.sqrt(2.0))


def test_the_sortino_ratio_counts_losses_alone() -> None:
    assert sortino_ratio([0.02, -0.01], 2.0) == pytest.approx(1.0)
    assert sortino_ratio([0.02, -0.01], 0.5) == pytest.approx(0.5)  # bars of two years
    assert sortino_ratio([0.08, -0.01], 2.0) == pytest.approx(7.0)
    assert sortino_ratio([-0.01], 4.0) == pytest.approx(-2.0)


def test_the_calmar_ratio_is_growth_over_the_deepest_fall() -> None:
    assert calmar_ratio([0.1, -0.5, 1.2], 3.0) == pytest.approx(0.42)
    assert calmar_ratio([-1.0], 252.0) == -1.0


@pytest.mark.parametrize("returns", [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.01]])
@pytest.mark.parametrize("ratio", [sharpe_ratio, sortino_ratio, calmar_ratio])
def test_without_risk_a_ratio_is_undefined(ratio: object, returns: list[float]) -> None:
    assert math.isnan(ratio(returns, 252.0))


@pytest.mark.parametrize("ratio", [sharpe_ratio, sortino_ratio, calmar_ratio])
def test_periods_per_year_are_positive(ratio: object) -> None:
    with pytest.raises(ArgumentError, match="periods_per_year=-1"):
        ratio([0.1, -0.1], -1.0)


@pytest.mark.parametrize(
    "statistic", [probabilistic_sharpe_ratio, interquartile_mean, lambda returns: sortino_ratio(returns, 252.0)]
)
def test_no_bars_and_bars_without_a_number_are_errors(statistic: object) -> None:
    with pytest.raises(ArgumentError, match=r"has the shape \(0,\)"):
        statistic([])
    with pytest.raises(ArgumentError, match=r"\[1\]=nan is not finite"):
        statistic([0.1, math.nan])


def test_the_probabilistic_sharpe_ratio_without_skewness() -> None:
    assert probabilistic_sharpe_ratio([0.01, 0.03]) == pytest.approx(0.921350, abs=1e-6)


def test_the_probabilistic_sharpe_ratio_heeds_skewness_and_kurtosis() -> None:
    """SR = 1/2, skewness 2/sqrt(3), kurtosis 7/3: the normal distribution at 0.5 * sqrt(3) / sqrt(0.505983)."""
    assert probabilistic_sharpe_ratio([0.0, 0.0, 0.0, 0.04]) == pytest.approx(0.888290, abs=1e-6)


def test_against_its_own_ratio_the_probability_is_one_half() -> None:
    assert probabilistic_sharpe_ratio([0.0, 0.0, 0.0, 0.04], 0.5) == pytest.approx(0.5)


def test_without_risk_there_is_no_probability() -> None:
    assert math.isnan(probabilistic_sharpe_ratio([0.1, 0.1]))


def test_the_deflated_sharpe_ratio_of_the_paper() -> None:
    """Bailey and Lopez de Prado 2014, a numerical example: 1,250 days with an annualised ratio of 2.5, skewness -3
    and kurtosis 10, best of 100 trials with variance 1/2 (a year of 250 days). A loss on 105 days and a gain on the
    others have very nearly these moments."""
    shape = np.array([-1.0] * 105 + [105 / 1145] * 1145)  # mean 0
    returns = 0.01 * (shape / shape.std(ddof=1) + 2.5 / math.sqrt(250))
    trials = Trials(100, 0.5 / 250)
    assert trials.expected_maximum == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe_ratio(returns, trials) == pytest.approx(0.9004, abs=5e-4)


def test_one_trial_deflates_nothing_and_more_trials_deflate_more() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 500)
    alone, ten, hundred = (deflated_sharpe_ratio(returns, Trials(number, 0.002)) for number in (1, 10, 100))
    assert alone == probabilistic_sharpe_ratio(returns)
    assert alone > ten > hundred


def test_trials_count_the_undefined_and_are_kept_per_bar() -> None:
    assert Trials.of([1.0, 3.0, math.nan], 4.0) == Trials(3, 0.5)
    assert Trials.of([1.0, 3.0], 0.5) == Trials(2, 4.0)
    assert Trials.of([1.0], 4.0) == Trials(1, 0.0)
    assert Trials.of([math.nan] * 2, 4.0) == Trials(2, 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trials.of([], 252.0), "number=0"),
        (lambda: Trials(2, -0.1), "variance=-0.1"),
        (lambda: Trials.of([1.0], 0.0), "periods_per_year=0"),
    ],
)
def test_impossible_trials_are_errors(make: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_blocks_longer_than_the_values_only_rotate_them() -> None:
    values = np.arange(20.0)
    starts = set()
    for resample in resampled(values, block_length=1e12, resamples=200):
        assert resample.tolist() == np.roll(values, -int(resample[0])).tolist()
        starts.add(resample[0])
    assert starts == set(values)


@pytest.mark.parametrize(("block_length", "joins"), [(1.0, 1.0), (4.0, 0.25), (None, 0.1)])
def test_a_block_ends_after_each_value_with_the_reciprocal_of_the_mean_length(
    block_length: float | None, joins: float
) -> None:
    draws = np.concatenate(resampled(np.arange(1000.0), block_length=block_length, resamples=50))
    broken = (np.diff(draws) % 1000.0 != 1.0).mean()
    assert broken == pytest.approx(joins, abs=0.01)


def test_the_default_block_is_the_cube_root_rounded_up() -> None:
    for size, length in ((1000, 10.0), (28, 4.0)):
        values = generator().normal(size=size)
        assert stationary_bootstrap(values, mean, generator()) == stationary_bootstrap(
            values, mean, generator(), block_length=length
        )


def test_the_interval_has_as_much_of_the_resamples_outside_on_either_side() -> None:
    numbers = count()
    estimate = stationary_bootstrap(
        np.arange(5.0), lambda _: float(next(numbers)), generator(), resamples=101, confidence=0.9
    )
    assert estimate == pytest.approx((101.0, 5.0, 95.0))


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    values = np.random.default_rng(3).normal(size=400)
    value, low, high = stationary_bootstrap(values, mean, generator(), block_length=1.0)
    assert value == values.mean()
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_rows_stay_together() -> None:
    pairs = np.column_stack([np.arange(50.0), -np.arange(50.0)])
    assert all((resample.sum(axis=1) == 0.0).all() for resample in resampled(pairs, resamples=5))


@pytest.mark.parametrize(("undefined", "known"), [(5, True), (6, False)])
def test_an_interval_is_undefined_if_too_many_resamples_are(undefined: int, known: bool) -> None:
    numbers = count()

    def statistic(_: np.ndarray) -> float:
        number = next(numbers)
        return [math.nan, math.inf][number % 2] if number < undefined else 1.0

    estimate = stationary_bootstrap(np.arange(5.0), statistic, generator(), resamples=100)
    assert estimate.value == 1.0
    assert (estimate.low == estimate.high == 1.0) is known
    assert math.isnan(estimate.low) is not known


def test_a_single_value_has_no_interval() -> None:
    value, low, high = stationary_bootstrap([0.3], mean, generator())
    assert value == 0.3
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, r"len\(values\)=0"),
        ([1.0, 2.0], {"block_length": 0.5}, "block_length=0.5"),
        ([1.0, 2.0], {"resamples": 0}, "resamples=0"),
        ([1.0, 2.0], {"confidence": 1.0}, "confidence=1.0"),
        ([1.0, 2.0], {"confidence": 0.0}, "confidence=0.0"),
    ],
)
def test_impossible_bootstraps_are_errors(values: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        stationary_bootstrap(values, mean, generator(), **options)


@pytest.mark.parametrize(
    ("values", "middle"),
    [([4.0], 4.0), ([5.0, 1.0], 3.0), ([100.0, 1.0, 2.0, 3.0], 2.5), ([0, 1000, 20, 30, 10], 20.0)],
)
def test_the_interquartile_mean_leaves_out_a_quarter_on_each_side(values: list[float], middle: float) -> None:
    assert interquartile_mean(values) == middle


def test_a_difference_over_seeds_is_against_one_baseline_or_each_seeds_own() -> None:
    assert interquartile_difference([3.0, 4.0, 5.0, 106.0], 1.0, generator()).value == 3.5
    assert interquartile_difference([3.0, 5.0], [1.0, 4.0], generator()).value == 1.5
    assert interquartile_difference([3.0, 5.0], [1.0, 3.0], generator()) == Estimate(2.0, 2.0, 2.0)


def test_the_interval_of_a_difference_resamples_seeds_without_blocks() -> None:
    """Of two seeds a resample has both with probability 1/2, and either alone with 1/4."""
    assert interquartile_difference([0.0, 1.0], 0.0, generator()) == Estimate(0.5, 0.0, 1.0)
    assert interquartile_difference([0.0, 1.0], 0.0, generator(), confidence=0.6) == Estimate(0.5, 0.0, 1.0)
    assert interquartile_difference([0.0, 1.0], 0.0, generator(), confidence=0.4) == Estimate(0.5, 0.5, 0.5)
    assert interquartile_difference([0.0, 1.0], 0.0, generator(), resamples=1).low in (0.0, 0.5, 1.0)


def test_one_seed_has_a_difference_and_no_interval() -> None:
    value, low, high = interquartile_difference([3.0], 1.0, generator())
    assert value == 2.0
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize(("strategy", "baseline"), [([1.0, math.nan], 1.0), ([1.0, 2.0], math.inf)])
def test_a_difference_with_an_undefined_figure_is_undefined(strategy: list[float], baseline: float) -> None:
    assert all(math.isnan(each) for each in interquartile_difference(strategy, baseline, generator()))


def test_a_difference_over_no_seeds_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"len\(values\)=0"):
        interquartile_difference([], 1.0, generator())


def test_a_baseline_of_other_seeds_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="baseline has 2 entries for 3 seeds"):
        interquartile_difference([1.0, 2.0, 3.0], [1.0, 2.0], generator())


def test_performance_has_every_figure_of_a_record() -> None:
    measured = record([0.1, -0.5, 1.2], positions=[1.0, -0.5, 0.0], trades=[1.0, 1.5, 0.5])
    trials = Trials(5, 0.02)
    found = performance(measured, 3.0, generator(), trials=trials, resamples=200, confidence=0.8, block_length=2.0)
    assert (found.bars, found.periods_per_year, found.trials, found.confidence) == (3, 3.0, 5, 0.8)
    assert found.total_return == pytest.approx(0.21)
    assert found.annualised_return == pytest.approx(0.21)
    assert found.volatility == pytest.approx(math.sqrt(0.743333333 * 3.0))
    assert found.sharpe == stationary_bootstrap(
        measured.returns,
        lambda returns: sharpe_ratio(returns, 3.0),
        generator(),
        resamples=200,
        confidence=0.8,
        block_length=2.0,
    )
    assert found.sharpe.value == pytest.approx(0.8 / 3.0 / math.sqrt(0.743333333) * math.sqrt(3.0))
    assert found.sortino == pytest.approx(1.6)
    assert (found.maximum_drawdown, found.calmar) == pytest.approx((0.5, 0.42))
    assert (found.turnover, found.turnover_per_year, found.costs_per_year) == pytest.approx((1.0, 3.0, 0.003))
    assert (found.exposure, found.hit_rate) == pytest.approx((0.5, 0.5))
    assert found.probabilistic_sharpe == probabilistic_sharpe_ratio(measured.returns)
    assert found.deflated_sharpe == deflated_sharpe_ratio(measured.returns, trials)


def test_performance_alone_is_deflated_by_one_trial() -> None:
    found = performance(record([0.01, 0.03, -0.01]), 252.0, generator())
    assert found.trials == 1
    assert found.deflated_sharpe == found.probabilistic_sharpe


def test_the_same_generator_gives_the_same_interval() -> None:
    returns = np.random.default_rng(5).normal(0.001, 0.01, 100).tolist()
    assert measured(returns) == measured(returns)
    assert measured(returns)["sharpe_low"] < measured(returns)["sharpe"] < measured(returns)["sharpe_high"]


def test_the_figures_are_strict_json_with_flat_names() -> None:
    values = measured([0.01, -0.02, 0.03, 0.01])
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values.keys() == {*Performance.__dataclass_fields__, "sharpe_low", "sharpe_high"}


@pytest.mark.parametrize(
    ("returns", "positions", "undefined"),
    [
        ([0.001] * 30, None, {"sharpe", "sharpe_low", "sharpe_high", "sortino", "calmar"}),
        ([0.0] * 30, [0.0] * 30, {"sharpe", "sharpe_low", "sharpe_high", "sortino", "calmar", "hit_rate"}),
        ([-0.01], None, {"sharpe", "sharpe_low", "sharpe_high", "volatility"}),
        ([-1.0], None, {"sharpe", "sharpe_low", "sharpe_high", "volatility"}),
        ([0.5] + [0.0] * 29, None, {"sharpe_low", "sharpe_high", "sortino", "calmar"}),
        ([0.02, -1.0, 0.01, 0.02, -0.01, 0.03], None, set()),
        ([99.0, 98.0, 97.0, -0.5], None, {"annualised_return", "calmar"}),
    ],
)
def test_what_is_undefined_or_infinite_is_none(
    returns: list[float], positions: list[float] | None, undefined: set[str]
) -> None:
    values = measured(returns, positions)
    probabilities = {"probabilistic_sharpe", "deflated_sharpe"} if values["sharpe"] is None else set()
    assert {name for name, value in values.items() if value is None} == undefined | probabilities


def test_a_ruin_is_a_loss_of_everything() -> None:
    values = measured([0.02, -1.0, 0.01, 0.02, -0.01, 0.03])
    assert [values[name] for name in ("total_return", "annualised_return", "maximum_drawdown", "calmar")] == [
        -1,
        -1,
        1,
        -1,
    ]
