from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from everlearn.core.errors import ArgumentError
from everlearn.markets.track_record import TrackRecord
from everlearn.report.market_figures import (
    DARK,
    LIGHT,
    Illustration,
    Strategy,
    decimated,
    drawdown_figure,
    equity_figure,
    png,
    position_figure,
    turnover_figure,
)

pytestmark = pytest.mark.usefixtures("untouched_generators")

MINUS = "\N{MINUS SIGN}"
Draw = Callable[..., Figure]
FIGURES: list[Draw] = [
    equity_figure,
    drawdown_figure,
    position_figure,
    partial(turnover_figure, periods_per_year=252.0),
]
each_figure = pytest.mark.parametrize("draw", FIGURES, ids=["equity", "drawdown", "position", "turnover"])


def record(returns: Sequence[float], positions: Sequence[float] | None = None, dates: bool = False) -> TrackRecord:
    bars = len(returns)
    held = np.ones(bars) if positions is None else np.asarray(positions)
    times = np.datetime64("2024-01-01") + np.arange(bars) if dates else np.arange(bars)
    return TrackRecord(times, returns, held, np.abs(np.diff(held, prepend=0.0)), np.zeros(bars))


def agent(*returns: Sequence[float]) -> Strategy:
    return Strategy("agent", [record(each) for each in returns])


def lines(figure: Figure) -> list[Line2D]:
    """Those of strategies, without the axis at one value."""
    return [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 2]


def heights(line: Line2D) -> list[float]:
    return pytest.approx(line.get_ydata())


def test_equity_begins_at_one_before_the_first_bar() -> None:
    (line,) = lines(equity_figure([agent([0.1, -0.5, 0.2])]))
    assert heights(line) == [1.0, 1.1, 0.55, 0.66]
    assert list(line.get_xdata()) == [0, 0, 1, 2]


def test_drawdown_is_from_the_highest_equity() -> None:
    figure = drawdown_figure([agent([0.1, -0.5, 0.2])])
    (line,) = lines(figure)
    assert heights(line) == [0.0, 0.0, -0.5, -0.4]
    assert figure.axes[0].get_ylim()[1] == 0.0


def test_seeds_are_thin_and_their_median_is_thick() -> None:
    first, second, third, median = lines(equity_figure([agent([0.1, 0.1], [0.2, 0.0], [0.0, 0.5])]))
    assert [line.get_ydata()[-1] for line in (first, second, third)] == pytest.approx([1.21, 1.2, 1.5])
    assert heights(median) == [1.0, 1.1, 1.21]
    assert {line.get_linewidth() for line in (first, second, third)} == {0.6}
    assert median.get_linewidth() > 1.5
    assert median.get_zorder() > first.get_zorder()


def test_one_record_is_one_line() -> None:
    assert len(lines(equity_figure([agent([0.1, 0.1])]))) == 1


def test_baselines_are_dashed_each_in_its_own_way() -> None:
    strategies = [agent([0.1, 0.1]), *(Strategy(name, [record([0.1, 0.2])], baseline=True) for name in "ab")]
    trained, first, second = lines(equity_figure(strategies))
    assert trained.get_linestyle() == "-"
    assert first.get_linestyle() == second.get_linestyle() == "--"
    assert first._unscaled_dash_pattern != second._unscaled_dash_pattern
    assert len({line.get_color() for line in (trained, first, second)}) == 3


def test_equity_is_on_a_logarithmic_scale_on_which_a_ruin_ends_the_line() -> None:
    figure = equity_figure([agent([0.5, -1.0, 0.0])])
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 0.5
    figure.draw_without_rendering()


@pytest.mark.parametrize("growth", [0.002, 0.5, 2.0, 30.0, 1e9])
def test_every_range_of_equity_has_some_ticks_and_not_too_many(growth: float) -> None:
    axes = equity_figure([agent([growth, 0.0])]).axes[0]
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert 3 <= len(shown) <= 12


def ticks(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_ticks_are_plain_numbers_and_percentages() -> None:
    assert {"0.5", "1", "2"} <= set(ticks(equity_figure([agent([-0.5, 4.0])])))
    assert {"1", "100", "10,000"} <= set(ticks(equity_figure([agent([99.0, 99.0, 0.0])])))
    assert equity_figure([agent([-0.5, 4.0])]).axes[0].get_yticks(minor=True).size == 0
    assert f"{MINUS}50%" in ticks(drawdown_figure([agent([-0.5, 0.0])]))
    assert "1,000" in ticks(turnover_figure([agent([0.0, 0.0])], 1000.0))


def test_where_the_account_began_is_marked() -> None:
    marks = [line.get_ydata() for line in equity_figure([agent([0.1, 0.1])]).axes[0].get_lines()]
    assert [1.0, 1.0] in [list(each) for each in marks]


def test_turnover_is_drawn_from_nothing_upwards() -> None:
    assert turnover_figure([agent([0.0] * 3)], 252.0, window=2).axes[0].get_ylim()[0] == 0.0
    always = Strategy("agent", [record([0.0] * 3, positions=[1.0, -1.0, 1.0])])
    assert turnover_figure([always], 252.0).axes[0].get_ylim()[0] == 0.0


def test_turnover_is_the_mean_of_whole_windows_per_year() -> None:
    traded = Strategy("agent", [record([0.0] * 4, positions=[1.0, 0.0, 0.0, 0.5])])
    (line,) = lines(turnover_figure([traded], 100.0, window=2))
    assert heights(line) == [100.0, 50.0, 25.0]
    assert list(line.get_xdata()) == [1, 2, 3]


def test_the_window_of_turnover_is_a_twentieth_of_the_longest_record() -> None:
    strategies = [agent([0.0] * 80), agent([0.0] * 40)]
    assert "mean of 4 bars" in turnover_figure(strategies, 252.0).axes[0].get_ylabel()
    assert "mean of 1 bars" in turnover_figure([agent([0.0] * 5)], 252.0).axes[0].get_ylabel()


def test_a_window_longer_than_the_record_leaves_its_mean() -> None:
    figure = turnover_figure([agent([0.0] * 4)], 4.0, window=9)
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [1.0]


def filled(figure: Figure, panel: int = 0) -> np.ndarray:
    (area,) = (each for each in figure.axes[panel].collections if isinstance(each, PolyCollection))
    return area.get_paths()[0].vertices


def test_positions_are_the_mean_of_the_records() -> None:
    both = Strategy("agent", [record([0.0] * 3, [1.0, 0.5, -1.0]), record([0.0] * 3, [0.0, 0.5, 0.0])])
    shape = filled(position_figure([both]))
    for begin, end, height in ((0, 1, 0.5), (1, 2, 0.5), (2, 2, -0.5)):
        assert [begin, height] in shape.tolist()
        assert [end, height] in shape.tolist()


def test_each_strategy_has_a_panel_of_positions_on_one_scale() -> None:
    strategies = [agent([0.0] * 4), Strategy("hold", [record([0.0] * 4)], baseline=True)]
    figure = position_figure(strategies)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["agent", "hold"]
    assert {axes.get_ylim() for axes in figure.axes} == {(-1.05, 1.05)}
    assert {f"{MINUS}1", "0", "1"} <= set(ticks(figure)) <= {f"{MINUS}2", f"{MINUS}1", "0", "1", "2"}
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "bar"]
    assert [list(axes.get_lines()[0].get_ydata()) for axes in figure.axes] == [[0.0, 0.0]] * 2


def test_many_positions_are_drawn_as_means_of_stretches() -> None:
    figure = position_figure([Strategy("agent", [record([0.0] * 1001, positions=[1.0, 0.0, 0.5] * 333 + [1.0, 1.0])])])
    assert figure.axes[0].get_title(loc="left") == "agent, mean of 3 bars"
    assert set(filled(figure)[:, 1].round(9)) == {0.0, 0.5, 1.0}


def test_positions_beyond_one_are_not_cut() -> None:
    low, high = position_figure([Strategy("agent", [record([0.0] * 2, positions=[-1.5, 2.0])])]).axes[0].get_ylim()
    assert (low, high) == (-1.5, 2.0)


def test_a_long_series_is_decimated() -> None:
    returns = np.tile([0.01, -0.01], 5000)
    for line in lines(equity_figure([agent(returns, returns)])):
        assert len(line.get_xdata()) <= 4000
        assert line.get_xdata()[-1] == 9999


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=400), st.integers(4, 40))
def test_decimation_keeps_ends_and_extremes_and_the_order(numbers: list[int], points: int) -> None:
    values = np.array(numbers, dtype=float)
    rows = decimated(values, points)
    assert len(rows) <= max(points, 1)
    assert (rows[0], rows[-1]) == (0, len(values) - 1)
    assert (np.diff(rows) > 0).all()
    assert (values[rows].min(), values[rows].max()) == (values.min(), values.max())


def test_decimation_keeps_what_is_short() -> None:
    assert decimated(np.arange(7.0), 7).tolist() == list(range(7))


def test_decimation_keeps_a_peak_between_the_drawn_values() -> None:
    values = np.zeros(100_000)
    values[12_345], values[54_321] = 1.0, -1.0
    assert {12_345, 54_321} <= set(decimated(values).tolist())


@each_figure
def test_the_axes_have_labels_with_units(draw: Draw) -> None:
    figure = draw([agent([0.1, -0.1, 0.1])])
    label = figure.axes[0].get_ylabel() or figure.get_supylabel()
    assert any(unit in label for unit in ("start = 1", "from the highest", "equity per year", "share of equity"))
    assert figure.axes[0].get_xlabel() == "bar"


@each_figure
@pytest.mark.parametrize(("returns", "dates"), [([0.1], True), ([-1.0], False), ([0.0] * 3, False)])
def test_the_smallest_records_can_be_drawn(draw: Draw, dates: bool, returns: list[float]) -> None:
    draw([Strategy("agent", [record(returns, dates=dates)])]).draw_without_rendering()


def test_bars_are_plain_numbers() -> None:
    figure = equity_figure([agent([0.0] * 10_001)])
    figure.draw_without_rendering()
    assert "10,000" in [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_dates_are_written_as_dates() -> None:
    figure = equity_figure([Strategy("agent", [record([0.01] * 30, dates=True)])])
    figure.draw_without_rendering()
    assert "2024-01-05" in [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert figure.axes[0].get_xlabel() == ""


def test_the_legend_covers_no_line() -> None:
    names = ["an agent whose name is rather long", "buy and hold", "random", "always out of the market"]
    figure = equity_figure([Strategy(name, [record([0.1, 0.1])] * 2) for name in names])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"{name} (median of 2)" for name in names]
    assert legend.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1
    assert legend.get_window_extent().x1 <= figure.bbox.x1


@each_figure
def test_names_are_no_formulae_and_never_left_out(draw: Draw) -> None:
    figure = draw([Strategy(r"_$\undefined$", [record([0.1, 0.1])])])
    figure.draw_without_rendering()
    shown = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert (shown or [figure.axes[0].get_title(loc="left")]) == [r" _\$\undefined\$"]


@each_figure
def test_no_strategy_and_mixed_timestamps_are_errors(draw: Draw) -> None:
    with pytest.raises(ArgumentError, match="no strategy to draw"):
        draw([])
    with pytest.raises(ArgumentError, match="one kind of timestamps"):
        draw([agent([0.1, 0.1]), Strategy("dated", [record([0.1, 0.1], dates=True)])])


def test_a_window_without_bars_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="window=0"):
        turnover_figure([agent([0.1, 0.1])], 252.0, window=0)


def test_a_strategy_has_records_and_all_over_the_same_bars() -> None:
    with pytest.raises(ArgumentError, match="'empty' has no records"):
        Strategy("empty", [])
    with pytest.raises(ArgumentError, match="records of the strategy 'uneven' have different bars"):
        Strategy("uneven", [record([0.1, 0.1]), record([0.1, 0.1, 0.1])])


def test_an_illustration_is_drawn_for_light_and_for_dark_surroundings() -> None:
    seen = []

    def draw(theme: object) -> Figure:
        seen.append(theme)
        return equity_figure([agent([0.1, 0.1])], theme=theme)

    shown = Illustration.of("Equity", "What it became.", draw)
    assert seen == [LIGHT, DARK]
    assert shown == Illustration("Equity", "What it became.", png(draw(LIGHT)), png(draw(DARK)))
    assert shown.light != shown.dark


@each_figure
def test_the_colours_are_those_of_the_theme(draw: Draw) -> None:
    figure = draw([agent([0.1, 0.1, 0.1])], theme=DARK)
    assert to_hex(figure.get_facecolor()) == to_hex(figure.axes[0].get_facecolor()) == DARK.paper
    texts = [*figure.axes[0].get_xticklabels(), figure.axes[0].xaxis.label, figure.axes[0].yaxis.label]
    assert {text.get_color() for text in texts} == {DARK.ink}
    drawn = [line.get_color() for line in lines(figure)] or [to_hex(figure.axes[0].collections[0].get_facecolor()[0])]
    assert drawn == [DARK.agents[0]]


def test_a_figure_is_a_png_the_same_each_time() -> None:
    first, second = (png(equity_figure([agent([0.1, 0.1])])) for _ in range(2))
    assert first.startswith(b"\x89PNG")
    assert first == second
    assert b"Matplotlib" not in first
