import base64
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from everlearn.core.errors import ArgumentError
from everlearn.markets.performance import Estimate, Performance
from everlearn.markets.splits import walk_forward
from everlearn.report.backtest_page import BacktestPage, FoldTable, Result, backtest_html, write_backtest_page
from everlearn.report.market_figures import Illustration

FIGURES = Performance(
    bars=504,
    periods_per_year=252.0,
    total_return=0.5,
    annualised_return=0.2247,
    volatility=0.151,
    sharpe=Estimate(1.42, -0.31, 2.44),
    sortino=2.05,
    maximum_drawdown=0.183,
    calmar=1.23,
    turnover=0.05,
    turnover_per_year=1234.5,
    costs_per_year=0.0063,
    exposure=0.75,
    hit_rate=0.531,
    probabilistic_sharpe=0.97,
    deflated_sharpe=0.612,
    trials=40,
    confidence=0.95,
)
LOSING = replace(FIGURES, annualised_return=-0.1, sharpe=Estimate(-0.5, -1.5, 0.5), maximum_drawdown=0.4)
NOTHING = replace(FIGURES, sharpe=Estimate(math.nan, math.nan, math.nan), annualised_return=math.inf, hit_rate=math.nan)
PAGE = BacktestPage(
    title="Backtest of a trend follower",
    facts={"Data": "prices.parquet"},
    results=[Result("agent", {"seed 0": FIGURES})],
    costs="5 basis points of what is traded.",
)
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
VOID = {"meta", "img", "source", "br", "!doctype"}


class Reader(HTMLParser):
    """The rows, the texts and the attributes of a page; elements have to be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "small" and "td" in self.open:
            self.rows[-1][-1] += " | "

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        data = data.replace(MINUS, "-")
        if "style" not in self.open:
            self.texts.append(data)
        if self.rows and self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, begin: str) -> list[str]:
        (row,) = (row for row in self.rows if row[0].startswith(begin))
        return row


def read(**changes: object) -> Reader:
    return Reader(backtest_html(replace(PAGE, **changes)))


def illustrations() -> list[Illustration]:
    return [Illustration("Equity", "What it became", b"light bytes", b"dark bytes")]


def test_the_title_and_what_was_tested_are_there() -> None:
    texts = read(facts={"Data": "prices.parquet", "Period": "2019 to 2023"}).texts
    assert texts.count("Backtest of a trend follower") == 2  # in the window's title too
    assert "agent, 1 seed, 504 bars (2.0 years)" in texts
    for first, second in (("Data", "prices.parquet"), ("Period", "2019 to 2023")):
        assert texts[texts.index(first) + 1] == second


def test_every_text_is_escaped() -> None:
    evil = "<script>alert('1')</script>&\""
    html = backtest_html(
        BacktestPage(
            title=evil,
            facts={evil: evil},
            results=[Result(evil, {evil: FIGURES, "other": FIGURES}), Result("single", {evil: FIGURES})],
            costs=evil,
            differences={evil: Estimate(1.0, 0.5, 1.5)},
            illustrations=[Illustration(evil, evil, b"", b"")],
            warnings=[evil],
            notes={evil: evil},
        )
    )
    assert "<script" not in html
    page = Reader(html)
    assert sum(text.count(evil) for text in page.texts) == 15
    ((_, image),) = (each for each in page.tags if each[0] == "img")
    assert image["alt"] == f"{evil}: {evil}"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = read(illustrations=illustrations(), fold_table=FoldTable(walk_forward(100, 2), 2, 0))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "form"}
    addresses = [value for _, given in page.tags for name, value in given.items() if name in ("src", "srcset", "href")]
    assert len(addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "url(" not in backtest_html(PAGE)
    policies = [given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_figures_are_inlined_for_light_and_dark_screens() -> None:
    page = read(illustrations=illustrations())
    ((_, dark),) = (each for each in page.tags if each[0] == "source")
    ((_, light),) = (each for each in page.tags if each[0] == "img")
    assert base64.b64decode(light["src"].removeprefix("data:image/png;base64,")) == b"light bytes"
    assert base64.b64decode(dark["srcset"].removeprefix("data:image/png;base64,")) == b"dark bytes"
    assert dark["media"] == "screen and (prefers-color-scheme: dark)"
    assert light["alt"] == "Equity: What it became"


def test_a_row_has_every_figure_and_the_interval_of_the_sharpe_ratio() -> None:
    page = read()
    expected = {
        "Strategy": "agent | seed 0",
        "Return p.a.": "22.5%",
        "Volatility p.a.": "15.1%",
        "Sharpe": "1.42 | -0.31 to 2.44",
        "Sortino": "2.05",
        "Maximum drawdown": "18.3%",
        "Calmar": "1.23",
        "Turnover p.a.": "1,234.5",
        "Costs p.a.": "0.63%",
        "Exposure": "75%",
        "Hit rate": "53.1%",
        "P(Sharpe\xa0>\xa00)": "97.0%",
        "Deflated Sharpe": "61.2%",
    }
    assert page.rows == [list(expected), list(expected.values())]


def test_several_seeds_have_their_median_and_a_row_each() -> None:
    third = replace(FIGURES, annualised_return=0.4, sharpe=Estimate(3.0, 2.0, 4.0))
    page = read(results=[Result("agent", {"seed 0": FIGURES, "seed 1": LOSING, "seed 2": third})])
    assert [row[0] for row in page.rows[1:]] == ["agent | median of 3 seeds", "seed 0", "seed 1", "seed 2"]
    assert [row[1] for row in page.rows[1:]] == ["22.5%", "22.5%", "-10.0%", "40.0%"]
    sharpes = ["1.42", "1.42 | -0.31 to 2.44", "-0.50 | -1.50 to 0.50", "3.00 | 2.00 to 4.00"]
    assert [row[3] for row in page.rows[1:]] == sharpes
    assert "agent, 3 seeds, 504 bars (2.0 years)" in page.texts


def test_the_median_leaves_out_what_is_undefined() -> None:
    page = read(results=[Result("agent", {"seed 0": FIGURES, "seed 1": NOTHING})])
    assert page.row("agent")[1] == "22.5%"
    nothing = read(results=[Result("agent", {"seed 0": NOTHING, "seed 1": NOTHING})])
    assert nothing.row("agent")[1] == DASH


def test_what_is_undefined_or_infinite_is_a_dash() -> None:
    row = read(results=[Result("agent", {"seed 0": NOTHING})]).row("agent")
    assert (row[1], row[3], row[10]) == (DASH, f"{DASH} | {DASH} to {DASH}", DASH)


def test_negative_figures_have_a_minus_sign() -> None:
    assert f"{MINUS}0.31 to 2.44" in backtest_html(PAGE)


def test_baselines_are_marked() -> None:
    page = read(results=[*PAGE.results, Result("hold", {"": LOSING}, baseline=True)])
    assert [given.get("class") for tag, given in page.tags if tag == "tr"] == [None, "whole", "whole baseline"]


def tile(page: Reader, heading: str) -> list[str]:
    begin = page.texts.index(heading)
    return page.texts[begin + 1 : begin + 4]


def test_the_tiles_show_one_record_with_its_interval() -> None:
    page = read()
    assert tile(page, "Sharpe")[:2] == ["1.42", "95% interval -0.31 to 2.44"]
    assert tile(page, "Maximum drawdown")[:2] == ["18.3%", "Deflated Sharpe"]
    assert tile(page, "Deflated Sharpe")[:2] == ["61.2%", "best of 40 trials"]


def test_the_tiles_show_the_median_and_range_of_seeds_of_the_first_strategy() -> None:
    results = [Result("agent", {"seed 0": FIGURES, "seed 1": LOSING}), Result("hold", {"": NOTHING}, baseline=True)]
    page = read(results=results)
    assert tile(page, "Sharpe")[:2] == ["0.46", "seeds -0.50 to 1.42"]
    assert tile(page, "Return p.a.")[:2] == ["6.2%", "seeds -10.0% to 22.5%"]
    assert tile(page, "Deflated Sharpe") == ["61.2%", "seeds 61.2% to 61.2%", "best of 40 trials"]


def test_warnings_stand_before_the_figures_and_only_if_there_are_any() -> None:
    texts = read(warnings=["One symbol only.", "Two years only."]).texts
    begin = texts.index("Read this first")
    assert texts[begin + 1 : begin + 3] == ["One symbol only.", "Two years only."]
    assert begin < texts.index("Performance")
    assert "Read this first" not in read().texts


def test_differences_over_seeds_have_a_sign_and_an_interval() -> None:
    page = read(differences={"Sharpe ratio minus hold": Estimate(0.5, 0.1, 0.9), "minus random": Estimate(-1.0, -2, 0)})
    assert page.row("Sharpe ratio minus hold") == ["Sharpe ratio minus hold", "+0.50", "0.10 to 0.90"]
    assert page.row("minus random") == ["minus random", "-1.00", "-2.00 to 0.00"]
    assert "Compared over seeds" not in read().texts


def test_folds_are_named_by_the_first_and_last_bar() -> None:
    page = read(fold_table=FoldTable(walk_forward(2000, 2, embargo=3, min_train=1500), 2, 3))
    assert page.row("1")[:5] == ["1", "0 to 1,499", "2", "3", "1,505 to 1,751"]
    assert page.row("2")[:5] == ["2", "0 to 1,746", "2", "3", "1,752 to 1,999"]
    assert "Folds" not in read().texts


@pytest.mark.parametrize(
    ("timestamps", "train", "test"),
    [
        (np.datetime64("2024-01-01") + np.arange(10), "2024-01-01 to 2024-01-04", "2024-01-07 to 2024-01-10"),
        (
            np.datetime64("2024-01-01T00:00:00.000000") + np.arange(10) * np.timedelta64(1, "h"),
            "2024-01-01 00:00 to 2024-01-01 03:00",
            "2024-01-01 06:00 to 2024-01-01 09:00",
        ),
        (np.arange(100, 110), "0 to 3", "6 to 9"),
    ],
)
def test_folds_have_dates_where_bars_have_and_times_where_bars_have(
    timestamps: np.ndarray, train: str, test: str
) -> None:
    row = read(fold_table=FoldTable(walk_forward(10, 1, min_train=4), 2, 0, timestamps)).row("1")
    assert (row[1], row[4]) == (train, test)


def test_the_timeline_of_a_fold_is_to_scale() -> None:
    page = read(fold_table=FoldTable(walk_forward(20, 2, purge=2, train_bars=6), 2, 0))
    bars = [(each["class"], float(each["x"]), float(each["width"])) for tag, each in page.tags if tag == "rect"]
    assert bars == [("train", 0, 30), ("test", 40, 30), ("train", 30, 30), ("test", 70, 30)]


def test_the_method_says_how_it_was_measured() -> None:
    text = " ".join(read(notes={"Seeds": "Trained anew in each fold."}).texts)
    for part in (
        "executed at the next bar",
        "5 basis points of what is traded.",
        "annualised with 252 bars per year",
        "95%. Of one record by the stationary bootstrap",
        "among 40 trials",
        "Seeds Trained anew in each fold.",
    ):
        assert part in text
    assert "among 1 trial (" in " ".join(read(results=[Result("a", {"": replace(FIGURES, trials=1)})]).texts)


def test_the_page_suits_phones_dark_screens_and_paper() -> None:
    html = backtest_html(PAGE)
    metas = [given for tag, given in Reader(html).tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    for medium in ("@media screen and (prefers-color-scheme: dark)", "@media (max-width: 45rem)", "@media print"):
        assert medium in html


@pytest.mark.parametrize(
    "results",
    [
        [],
        [Result("agent", {})],
        [*PAGE.results, Result("hold", {})],
        [*PAGE.results, Result("hold", {"": replace(FIGURES, periods_per_year=365.0)})],
        [*PAGE.results, Result("hold", {"": replace(FIGURES, confidence=0.9)})],
    ],
)
def test_results_that_are_missing_or_measured_otherwise_are_errors(results: list[Result]) -> None:
    with pytest.raises(ArgumentError, match="Give one strategy or more, each with a record, and all with the same"):
        replace(PAGE, results=results)


def test_the_file_is_the_page(tmp_path: Path) -> None:
    write_backtest_page(tmp_path / "page.html", PAGE)
    assert (tmp_path / "page.html").read_bytes() == backtest_html(PAGE).encode("utf-8")
