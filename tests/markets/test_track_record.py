import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.markets.track_record import (
    TrackRecord,
    annualised_return,
    exposure,
    hit_rate,
    maximum_drawdown,
    turnover,
    volatility,
)

DAYS = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[D]")


def record(**changes: object) -> TrackRecord:
    values = {
        "timestamps": DAYS,
        "returns": [0.1, -0.5, 0.2],
        "positions": [1.0, -0.5, 0.0],
        "trades": [1.0, 1.5, 0.5],
        "costs": [0.001, 0.0015, 0.0005],
    }
    return TrackRecord(**(values | changes))


def test_equity_begins_with_one_and_multiplies() -> None:
    assert record().equity == pytest.approx([1.0, 1.1, 0.55, 0.66])


def test_drawdown_is_measured_from_the_highest_equity_so_far() -> None:
    assert record().drawdown == pytest.approx([0.0, 0.0, -0.5, -0.4])


def test_the_start_counts_as_a_highest_equity() -> None:
    falling = record(returns=[-0.2, -0.5, 0.0])
    assert falling.drawdown == pytest.approx([0.0, -0.2, -0.6, -0.6])
    assert maximum_drawdown(falling.returns) == pytest.approx(0.6)


def test_after_a_ruin_nothing_is_left() -> None:
    ruined = record(returns=[0.1, -1.0, 0.2])
    assert ruined.equity.tolist() == [1.0, 1.1, 0.0, 0.0]
    assert ruined.drawdown.tolist() == [0.0, 0.0, -1.0, -1.0]
    assert maximum_drawdown(ruined.returns) == 1.0
    assert annualised_return(ruined.returns, 252.0) == -1.0


def test_what_never_falls_has_no_drawdown() -> None:
    assert math.copysign(1.0, maximum_drawdown([0.1, 0.0, 0.2])) == 1.0
    assert maximum_drawdown([0.1, 0.0, 0.2]) == 0.0


def test_growth_is_compounded_to_a_year() -> None:
    assert annualised_return([0.1, 0.1], 2.0) == pytest.approx(0.21)
    assert annualised_return([0.21, 0.0], 1.0) == pytest.approx(0.1)
    assert annualised_return([0.5, -0.5], 2.0) == pytest.approx(-0.25)
    assert annualised_return([0.1], 2.0) == pytest.approx(0.21)


def test_growth_beyond_every_float_is_infinite() -> None:
    assert annualised_return([1.0], 525_600.0) == math.inf


def test_volatility_is_the_sample_deviation_over_a_year() -> None:
    assert volatility([0.01, 0.03], 2.0) == pytest.approx(0.02)
    assert volatility([0.01, 0.03], 0.5) == pytest.approx(0.01)  # bars of two years
    assert math.isnan(volatility([0.01], 2.0))


def test_volatility_of_a_constant_is_zero_up_to_rounding() -> None:
    prices = 1.001 ** np.arange(50)
    returns = prices[1:] / prices[:-1] - 1.0
    assert np.ptp(returns) > 0.0
    assert volatility(returns, 252.0) == 0.0
    assert volatility([0.0, 0.0], 252.0) == 0.0


def test_turnover_is_the_mean_trade_per_bar_or_year() -> None:
    assert turnover([1.0, 0.0, 0.0, 1.0]) == 0.5
    assert turnover([-1.0, 0.0, 0.0, 1.0], 252.0) == 126.0


def test_exposure_counts_long_and_short_alike() -> None:
    assert exposure([1.0, -0.5, 0.0, 0.5]) == 0.5


def test_the_hit_rate_is_of_bars_with_position_and_result() -> None:
    assert hit_rate([0.1, -0.1, 0.2, 0.0, 0.3, 0.05], [1.0, 1.0, -1.0, 1.0, 0.0, 0.5]) == 0.75


@pytest.mark.parametrize(("returns", "positions"), [([0.1, -0.1], [0.0, 0.0]), ([0.0, 0.0], [1.0, 1.0])])
def test_without_position_or_result_there_is_no_hit_rate(returns: list[float], positions: list[float]) -> None:
    assert math.isnan(hit_rate(returns, positions))


@pytest.mark.parametrize("statistic", [annualised_return, volatility, turnover])
def test_periods_per_year_are_positive(statistic: object) -> None:
    with pytest.raises(ArgumentError, match="periods_per_year=0"):
        statistic([0.1, 0.2], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"returns": [0.1, 0.2]}, "returns has 2 entries and timestamps 3"),
        ({"positions": [1.0]}, "positions has 1 entries and timestamps 3"),
        ({"trades": [1.0] * 4}, "trades has 4 entries"),
        ({"costs": [0.0] * 4}, "costs has 4 entries"),
        ({"timestamps": DAYS[:2]}, "returns has 3 entries and timestamps 2"),
        ({"returns": [[0.1, 0.2, 0.3]]}, r"returns has the shape \(1, 3\)"),
        ({"timestamps": DAYS[:0]}, r"timestamps has the shape \(0,\)"),
        ({"timestamps": [DAYS]}, r"timestamps has the shape \(1, 3\)"),
        ({"returns": [0.1, math.nan, 0.2]}, r"returns\[1\]=nan is not finite"),
        ({"costs": [0.1, 0.1, math.inf]}, r"costs\[2\]=inf is not finite"),
        ({"returns": [0.1, 0.1, -1.01]}, r"returns\[2\]=-1.01 is below -1"),
        ({"trades": [1.0, -0.5, 0.0]}, r"trades\[1\]=-0.5 is negative"),
        ({"timestamps": DAYS[[0, 2, 1]]}, r"timestamps\[2\]=2024-01-02.* is not after"),
        ({"timestamps": DAYS[[0, 0, 1]]}, r"timestamps\[1\]=2024-01-01.* is not after"),
        ({"timestamps": np.array(["2024-01-01", "NaT", "2024-01-03"], "M8[us]")}, r"timestamps\[1\]=NaT is no time"),
        ({"timestamps": ["2024-01-01", "2024-01-02", "2024-01-03"]}, "timestamps are of the type <U10"),
    ],
)
def test_what_is_no_record_is_an_error_that_names_the_array(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        record(**changes)


def test_a_bar_may_have_no_trade_and_no_position() -> None:
    idle = record(positions=[0.0] * 3, trades=[0.0] * 3, costs=[0.0] * 3)
    assert (exposure(idle.positions), turnover(idle.trades)) == (0.0, 0.0)


def test_timestamps_are_kept_in_microseconds_or_as_integers() -> None:
    assert record().timestamps.dtype == np.dtype("datetime64[us]")
    assert record(timestamps=np.arange(3, dtype=np.uint8)).timestamps.dtype == np.int64


def test_a_record_is_a_copy_that_cannot_be_changed() -> None:
    returns = np.array([0.1, -0.5, 0.2])
    kept = record(returns=returns)
    returns[0] = 9.0
    assert kept.returns[0] == 0.1
    for name in ("timestamps", "returns", "positions", "trades", "costs"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(kept, name)[0] = 0
    with pytest.raises(FrozenInstanceError):
        kept.returns = returns
    assert len(kept) == 3


def test_joined_records_are_one_account_that_goes_on() -> None:
    later = record(timestamps=DAYS + 3, returns=[1.0, 0.0, 0.0], positions=[0.5, 0.5, 0.5])
    joined = TrackRecord.join([record(), later])
    assert len(joined) == 6
    assert joined.equity == pytest.approx([1.0, 1.1, 0.55, 0.66, 1.32, 1.32, 1.32])
    assert joined.timestamps.tolist() == [*record().timestamps.tolist(), *later.timestamps.tolist()]
    assert joined.positions.tolist() == [1.0, -0.5, 0.0, 0.5, 0.5, 0.5]
    assert joined.trades.tolist() == [1.0, 1.5, 0.5] * 2
    assert joined.costs.tolist() == [0.001, 0.0015, 0.0005] * 2


def test_records_that_overlap_or_are_out_of_order_are_not_joined() -> None:
    later = record(timestamps=DAYS + 3)
    with pytest.raises(ArgumentError, match=r"Record 1 begins at 2024-01-01.*, not after 2024-01-06.*, where record 0"):
        TrackRecord.join([later, record()])
    with pytest.raises(ArgumentError, match="Record 2 begins at 2024-01-06"):
        TrackRecord.join([record(), later, record(timestamps=DAYS + 5)])


def test_no_records_and_mixed_timestamps_are_not_joined() -> None:
    with pytest.raises(ArgumentError, match="no records to join"):
        TrackRecord.join([])
    with pytest.raises(ArgumentError, match="one kind of timestamps"):
        TrackRecord.join([record(), record(timestamps=[0, 1, 2])])
