"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from everlearn.environments.evaluation import Evaluation
from everlearn.report.smoothing import rolling_mean, smoothing_window
from everlearn.report.summary import Summary
from everlearn.report.wording import duration, spread

_EPISODES, _MEAN, _TRAINED, _RANDOM = "#9db9dc", "#1f4e8c", "#d1495b", "#8a8a8a"


def draw_learning_curve(path: Path, steps: Sequence[int], summary: Summary) -> None:
    """Write a PNG of every episode's return, their rolling mean, the random policy and the final evaluation.

    Args:
        path: The file to write.
        steps: Environment step at which each episode of ``summary.returns`` ended.
        summary: The run.
    """
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_baseline(axes, summary.baseline)
    if summary.returns:
        _draw_training(axes, steps, summary.returns)
    _draw_evaluation(axes, summary)
    _dress(axes, summary)
    figure.savefig(path)


def _draw_training(axes: Axes, steps: Sequence[int], returns: Sequence[float]) -> None:
    window = smoothing_window(len(returns))
    means = rolling_mean(returns, window)
    last = np.append(np.diff(steps) > 0, True)  # of the episodes that ended at the same step
    size = float(np.clip(3000 / len(returns), 2, 16))
    axes.scatter(steps, returns, s=size, color=_EPISODES, alpha=0.7, linewidths=0, label="episodes in training")
    axes.plot(np.compress(last, steps), means[last], color=_MEAN, linewidth=2, label=f"mean of {window} episodes")


def _draw_baseline(axes: Axes, baseline: Evaluation | None) -> None:
    if baseline and baseline.returns:
        low, high = baseline.mean - baseline.std, baseline.mean + baseline.std
        axes.axhspan(low, high, color=_RANDOM, alpha=0.2, linewidth=0)
        axes.axhline(
            baseline.mean, color=_RANDOM, linewidth=1.2, linestyle="--", label=f"random policy {spread(baseline)}"
        )


def _draw_evaluation(axes: Axes, summary: Summary) -> None:
    trained = summary.evaluation
    if trained and trained.returns:
        axes.errorbar(
            summary.steps,
            trained.mean,
            yerr=trained.std,
            fmt="D",
            markersize=8,
            capsize=4,
            color=_TRAINED,
            zorder=5,
            label=f"trained, deterministic {spread(trained)}",
        )


def _dress(axes: Axes, summary: Summary) -> None:
    axes.set_title(f"{summary.algorithm} on {summary.environment}", loc="left", fontsize=14, fontweight="bold", pad=12)
    axes.set_title(
        f"{summary.steps:,} steps in {duration(summary.seconds)}, seed {summary.seed}",
        loc="right",
        fontsize=9,
        color="#555555",
        pad=12,
    )
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of an episode")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlim(left=0)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="best")
