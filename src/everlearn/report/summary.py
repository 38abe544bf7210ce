"""The closing summary of a run: what was learned and where things are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from everlearn.environments.evaluation import Evaluation, is_better
from everlearn.report.evaluation import EvaluationRecord
from everlearn.report.smoothing import rolling_mean, smoothing_window
from everlearn.report.wording import duration, number, spread, spread_of

_STOPS = {"time limit": "the time limit", "callback": "a callback"}


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        directory: Where its files are.
        environment: Id of the environment.
        algorithm: Name of the algorithm.
        seed: The seed that repeats the run.
        steps: Environment steps taken.
        seconds: Time that training took.
        returns: Return of each episode that ended in training.
        evaluation: Deterministic episodes of the trained policy; None if stopped before.
        baseline: Episodes of a random policy; None if not wanted.
        reward_threshold: Mean return at which the environment counts as solved, where its authors say so.
        stopped_by: What ended the run early: a signal's name, ``"time limit"`` or ``"callback"``; None if it ran to
            its end.
        best: The best of the evaluations during training; None without any.
    """

    directory: Path
    environment: str
    algorithm: str
    seed: int
    steps: int
    seconds: float
    returns: list[float]
    evaluation: Evaluation | None
    baseline: Evaluation | None
    reward_threshold: float | None
    stopped_by: str | None
    best: EvaluationRecord | None = None

    @property
    def first_return(self) -> float | None:
        """Mean return of the first episodes; None if none ended."""
        window = smoothing_window(len(self.returns))
        return float(np.mean(self.returns[:window])) if self.returns else None

    @property
    def best_return(self) -> float | None:
        """Best mean return of as many consecutive episodes; None if none ended."""
        window = min(smoothing_window(len(self.returns)), len(self.returns))
        return float(rolling_mean(self.returns, window)[window - 1 :].max()) if self.returns else None

    def verdict(self) -> str:
        """One sentence on what was learned."""
        if self.stopped_by:
            return f"Stopped by {_STOPS.get(self.stopped_by, self.stopped_by)}; the model so far is saved."
        trained, random = self.evaluation, self.baseline
        if not trained or not trained.returns:
            return "Not evaluated: no evaluation episode was asked for, or none ended."
        if self.reward_threshold is not None and trained.mean >= self.reward_threshold:
            return f"Solved: the mean return reaches {number(self.reward_threshold)}, which counts as solved."
        if not random or not random.returns:
            return f"The policy reaches a mean return of {number(trained.mean)}."
        if is_better(trained, random):
            return "Learned: the policy is clearly better than a random one."
        return "Not learned yet: the policy is not clearly better than a random one. Train for more steps."

    def as_dict(self) -> dict[str, Any]:
        """The summary for a machine: strict JSON values only."""
        return {
            "directory": str(self.directory),
            "environment": self.environment,
            "algorithm": self.algorithm,
            "seed": self.seed,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "episodes": len(self.returns),
            "first_return": self.first_return,
            "best_return": self.best_return,
            "evaluation": self.evaluation and self.evaluation.as_dict(),
            "baseline": self.baseline and self.baseline.as_dict(),
            "reward_threshold": self.reward_threshold,
            "best": self.best and self.best._asdict(),
            "stopped_by": self.stopped_by,
            "verdict": self.verdict(),
        }


def summary_from(values: Mapping[str, Any], directory: Path, returns: list[float]) -> Summary:
    """The summary that ``as_dict`` wrote.

    Args:
        values: What it wrote.
        directory: Where the run is now.
        returns: Return of each episode that ended in training, which it leaves out.
    """
    same = ("environment", "algorithm", "seed", "steps", "seconds", "reward_threshold", "stopped_by")
    best = values["best"]
    return Summary(
        directory=directory,
        returns=returns,
        evaluation=_evaluation_from(values["evaluation"]),
        baseline=_evaluation_from(values["baseline"]),
        best=None if best is None else EvaluationRecord(**best),
        **{name: values[name] for name in same},
    )


def _evaluation_from(values: Mapping[str, Any] | None) -> Evaluation | None:
    return None if values is None else Evaluation(values.get("returns", []), values.get("lengths", []))


def print_summary(console: Console, summary: Summary, plugins: Sequence[str] = ()) -> None:
    """Print what was learned, in figures and in a sentence, then where the files are.

    Args:
        console: Where to print.
        summary: What was learned.
        plugins: Modules that have to be imported to evaluate the agent.
    """
    learned = summary.verdict().startswith(("Learned", "Solved"))
    console.print(
        "",
        f"[bold]{escape(f'{summary.algorithm} on {summary.environment}')}[/]: {summary.steps:,} steps in "
        f"{duration(summary.seconds)} ({number(summary.steps / max(summary.seconds, 1e-9))} steps/s), "
        f"seed {summary.seed}",
        "",
        *_figures(summary),
        "",
        Text(summary.verdict(), style="bold green" if learned else "bold yellow"),
        "",
        f"[bold]{escape(str(summary.directory))}[/]",
        *_files(summary, plugins),
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )


def _figures(summary: Summary) -> list[str]:
    """One line per mean return: whose, how much, over what."""
    rows = []
    if summary.evaluation and summary.evaluation.returns:
        episodes = len(summary.evaluation.returns)
        rows.append(("trained policy", spread(summary.evaluation), f"over {episodes} deterministic episodes"))
    if summary.best:
        rows.append(
            (
                "best evaluation",
                spread_of(summary.best.mean_reward, summary.best.std_reward),
                f"over {summary.best.episodes} episodes, after {summary.best.env_step:,} steps",
            )
        )
    if summary.baseline and summary.baseline.returns:
        rows.append(("random policy", spread(summary.baseline), f"over {len(summary.baseline.returns)} episodes"))
    if summary.first_return is not None and summary.best_return is not None:
        window = min(smoothing_window(len(summary.returns)), len(summary.returns))
        rows.append(("at the start", number(summary.first_return), f"mean of the first {window} episodes"))
        rows.append(("at the best", number(summary.best_return), f"best mean of {window} episodes in a row"))
    return [f"  {who:<16}[bold]{value:<16}[/][dim]{over}[/]" for who, value, over in rows]


def _files(summary: Summary, plugins: Sequence[str]) -> list[str]:
    """One line per file: its name, and what to do with it."""
    directory = summary.directory
    checkpoints = ("checkpoints", f"the agent on the way: everlearn inspect {directory}")
    imports = "".join(f" --import {name}" for name in plugins)
    rows = (
        ("model.zip", f"the agent: everlearn evaluate {directory}{imports}"),
        *([checkpoints] if (directory / checkpoints[0]).is_dir() else []),
        *([("", f"the best agent: everlearn evaluate {directory} --best{imports}")] if summary.best else []),
        ("learning_curve.png", "the return of every episode, in one picture"),
        ("episodes.csv", "the same as a table"),
        ("progress.csv, tb", f"every metric: tensorboard --logdir {directory}"),
        ("config.yaml", f"every setting: everlearn train {directory / 'config.yaml'} repeats the run"),
    )
    return [f"  {name:<20}[dim]{escape(meaning)}[/]" for name, meaning in rows]
