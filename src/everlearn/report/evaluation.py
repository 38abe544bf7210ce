"""Evaluations as they are recorded while an agent trains, and as they are printed."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from everlearn.environments.evaluation import Evaluation
from everlearn.report.wording import number, spread


class EvaluationRecord(NamedTuple):
    """One evaluation; the fields are the columns of ``evaluations.csv``.

    Attributes:
        env_step: Environment steps of training behind the agent that was evaluated.
        mean_reward: Mean return of the episodes, in the environment's own reward; NaN if none ended.
        std_reward: Standard deviation of the returns between episodes.
        mean_ep_length: Mean number of steps of an episode.
        episodes: Episodes that ended.
        seconds: Time since training began when the evaluation was done.
    """

    env_step: int
    mean_reward: float
    std_reward: float
    mean_ep_length: float
    episodes: int
    seconds: float


def print_evaluation(console: Console, evaluation: Evaluation, title: str, *, each: bool) -> None:
    """Print mean, deviation, range and lengths of the episodes.

    Args:
        console: Where to.
        evaluation: Finished episodes.
        title: What was evaluated.
        each: Print a table of the episodes too.
    """
    if not evaluation.returns:
        console.print(f"{title}: no episode ended.", highlight=False, markup=False, soft_wrap=True)
        return
    if each:
        console.print(_episodes(evaluation))
    lengths = evaluation.lengths
    console.print(
        f"[bold]{escape(title)}[/]: mean return [bold]{spread(evaluation)}[/] over {len(lengths)} episodes "
        f"(min {number(min(evaluation.returns))}, max {number(max(evaluation.returns))}), "
        f"mean length {number(sum(lengths) / len(lengths))}",
        highlight=False,
        soft_wrap=True,
    )


def _episodes(evaluation: Evaluation) -> Table:
    table = Table(box=None, padding=(0, 2))
    for heading in ("episode", "return", "length"):
        table.add_column(heading, justify="right")
    for index, (total, length) in enumerate(zip(evaluation.returns, evaluation.lengths, strict=True), start=1):
        table.add_row(str(index), number(total), f"{length:,}")
    return table
