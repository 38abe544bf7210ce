"""Walk-forward splits: training always lies before testing, with a gap between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

from everlearn.core.errors import ArgumentError, require_in_range
from everlearn.markets.account import LOOK_AHEAD


@final
@dataclass(frozen=True)
class Fold:
    """What is learned from and what is tested on, as ranges of bars.

    Attributes:
        train: Bars of the training window.
        test: Bars of the test window; all lie after the training window.
    """

    train: range
    test: range

    @property
    def gap(self) -> int:
        """How many bars between training and test belong to neither."""
        return self.test.start - self.train.stop


def walk_forward(
    bars: int,
    folds: int,
    *,
    purge: int = LOOK_AHEAD,
    embargo: int = 0,
    train_bars: int | None = None,
    min_train: int | None = None,
) -> list[Fold]:
    """Folds whose test windows tile the last bars in order, each with ``purge + embargo`` bars after its training.

    The first training window begins with the first bar and has ``min_train`` bars; what is left after it and the gap
    is divided into test windows whose sizes differ by at most one bar. Later training windows reach from the first
    bar, or over the last ``train_bars`` bars, to the gap before their test. So no bar is tested twice, and none that
    a decision in training has been rewarded by is tested in the same fold (Lopez de Prado 2018, chapter 7).

    Args:
        bars: Length of the table.
        folds: Number of test windows.
        purge: How many bars after a decision its reward is known. A decision at the close of bar t is executed at
            t + 1 and earns until t + 2: two.
        embargo: Further bars that are left out, against dependence between neighbouring bars.
        train_bars: Largest training window, which then rolls; None lets it grow.
        min_train: First training window; by default ``train_bars``, or else what, with the gap, is one of
            ``folds + 1`` equal parts of the table.

    Raises:
        ArgumentError: If there are too few bars, naming what to change.
    """
    for name, value, low in (("bars", bars, 1), ("folds", folds, 1), ("purge", purge, 0), ("embargo", embargo, 0)):
        require_in_range(name, value, low)
    gap = purge + embargo
    first = _first_test(bars, folds, gap, train_bars, min_train)
    if bars - first < folds:
        raise ArgumentError(
            f"Of {bars} bars, {max(0, bars - first)} are left for {folds} test windows after a first training window "
            f"of {first - gap} and a gap of {gap}. Bring more bars, or lower folds, min_train, train_bars or embargo."
        )
    edges = [first + (bars - first) * index // folds for index in range(folds + 1)]
    size = bars if train_bars is None else train_bars
    return [
        Fold(train=range(max(0, start - gap - size), start - gap), test=range(start, stop))
        for start, stop in pairwise(edges)
    ]


def _first_test(bars: int, folds: int, gap: int, train_bars: int | None, min_train: int | None) -> int:
    """The bar with which the first test begins."""
    if train_bars is not None:
        require_in_range("train_bars", train_bars, 1)
    if min_train is not None:
        require_in_range("min_train", min_train, 1, bars if train_bars is None else train_bars)
        return min_train + gap
    if train_bars is not None:
        return train_bars + gap
    first = -(-bars // (folds + 1))
    if first <= gap:
        raise ArgumentError(
            f"The first of {folds + 1} equal parts of {bars} bars has {first}, which leaves none to train on before a "
            f"gap of {gap}. Bring more bars, lower folds, purge or embargo, or set min_train."
        )
    return first
