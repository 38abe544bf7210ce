"""How a population stands or what it has come to, for a person and for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from everlearn.population import scheduler_statistics as counted
from everlearn.population.ledger import Incident
from everlearn.population.members import MemberId, MetricMode
from everlearn.population.population import Population
from everlearn.population.store import Journal
from everlearn.report.population_rows import MemberRow, is_finished, last_line, member_rows, value_words
from everlearn.report.population_table import member_table
from everlearn.report.wording import duration, number

_STOPS = {"time limit": "the time limit"}
_MOST_INCIDENTS = 100
"""Incidents that a summary has; the journal has the causes in full."""
_SHOWN_INCIDENTS = 5
_FILES = (
    ("model.zip", "the best member as an agent: everlearn evaluate {directory}{imports}"),
    ("lineage.png", "who took over whom, and from where the best comes"),
    ("schedules.png", "the hyper-parameters of all members over time"),
    ("scores.png", "the scores of all members over time"),
    ("generations.jsonl", "a line for each generation"),
    ("tb", "every metric, of the population and of each member: tensorboard --logdir {directory}/tb"),
    ("config.yaml", "every setting: everlearn pbt {directory}/config.yaml repeats the population"),
)


@dataclass(frozen=True)
class PopulationSummary:
    """How a population stands.

    Attributes:
        directory: Where its files are.
        environment: Id of the environment.
        algorithm: Name of the algorithm.
        seed: The seed that repeats it.
        done: Generations that have been trained.
        generations: How many there are.
        env_steps: Environment steps of all members together.
        seconds: Time that training took.
        exploits: How often a member took over another's state.
        failures: Segments that have failed.
        interruptions: How often a worker was lost and its segment trained again.
        members: All of them, in their order.
        incidents: What went wrong, latest first, each in a line.
        metric_mode: Whether a score is better when it is higher or lower.
        is_training: Whether a process is at it.
        stopped_by: What ended training early: a signal's name or ``"time limit"``; None if nothing has.
    """

    directory: Path
    environment: str
    algorithm: str
    seed: int | None
    done: int
    generations: int
    env_steps: int
    seconds: float
    exploits: int
    failures: int
    interruptions: int
    members: tuple[MemberRow, ...]
    incidents: tuple[Incident, ...]
    metric_mode: MetricMode
    is_training: bool = False
    stopped_by: str | None = None

    @property
    def best(self) -> MemberRow | None:
        """The best member; None before the first score."""
        return next((row for row in self.members if row.is_best), None)

    @property
    def speed(self) -> float:
        """Environment steps of all members together, per second."""
        return self.env_steps / max(self.seconds, 1e-9)

    @property
    def is_over(self) -> bool:
        """Whether all generations have been trained."""
        return self.done == self.generations

    def verdict(self) -> str:
        """One sentence on how it stands."""
        if self.is_over:
            best = self.best
            return (
                "Finished, and no member has a score."
                if best is None or best.score is None
                else f"Finished: the best, member {best.member_id}, reaches a score of {number(best.score)}."
            )
        where = f"generation {self.done + 1} of {self.generations}"
        states = [row.state for row in self.members]
        here = f"{where}; {states.count('done')} of {len(states)} members are done in it"
        if "failed" in states:
            here += f", {states.count('failed')} failed"
        if self.is_training:
            return f"In training: {here}."
        if self.stopped_by is not None:
            return f"Stopped by {_STOPS.get(self.stopped_by, self.stopped_by)} in {here}; what is done is kept."
        return f"Not finished: {here}."

    def as_dict(self) -> dict[str, Any]:
        """The summary for a machine: strict JSON values only."""
        best = self.best
        return {
            "directory": str(self.directory),
            "environment": self.environment,
            "algorithm": self.algorithm,
            "seed": self.seed,
            "best_member": None if best is None else best.member_id,
            "best_score": None if best is None else best.score,
            "best_hyperparams": None if best is None else dict(best.hyperparams),
            "generations_done": self.done,
            "generations": self.generations,
            "env_steps": self.env_steps,
            "seconds": round(self.seconds, 3),
            "env_steps_per_second": round(self.speed, 3),
            "exploits": self.exploits,
            "failures": self.failures,
            "interruptions": self.interruptions,
            "metric_mode": self.metric_mode,
            "training": self.is_training,
            "stopped_by": self.stopped_by,
            "verdict": self.verdict(),
            "members": [row.as_dict() for row in self.members],
            "incidents": [
                {"member": each.member_id, "updates": each.step, "what": each.what} for each in self.incidents
            ],
        }


def population_summary(
    population: Population,
    journal: Journal,
    *,
    directory: Path,
    environment: str,
    algorithm: str,
    seed: int | None,
    seconds: float | None = None,
    is_training: bool = False,
    stopped_by: str | None = None,
) -> PopulationSummary:
    """The summary of a population.

    Args:
        population: As it stands.
        journal: From which that follows; it has what was tried in vain, too.
        directory: Where its files are.
        environment: Id of the environment.
        algorithm: Name of the algorithm.
        seed: The seed that repeats it.
        seconds: Time that training took; None for what the journal says.
        is_training: Whether a process is at it.
        stopped_by: What ended training early, if something has.
    """
    results = [*chain(*journal.results.values(), journal.failures)]
    latest = population.ledger.incidents[: -_MOST_INCIDENTS - 1 : -1]
    return PopulationSummary(
        directory=directory,
        environment=environment,
        algorithm=algorithm,
        seed=seed,
        done=population.generation + is_finished(population),
        generations=population.generations,
        env_steps=population.env_steps,
        seconds=journal.seconds if seconds is None else seconds,
        exploits=population.ledger.counts[counted.EXPLOITS],
        failures=sum(result.error is not None for result in results),
        interruptions=sum(len(result.interruptions) for result in results),
        members=member_rows(population),
        incidents=tuple(Incident(each.member_id, each.step, _in_a_line(each.what)) for each in latest),
        metric_mode=population.config.metric_mode,
        is_training=is_training,
        stopped_by=stopped_by,
    )


def print_population(
    console: Console, summary: PopulationSummary, plugins: Sequence[str] = (), *, most: int = 20
) -> None:
    """Print how a population stands, its members, what went wrong last, and where the files are.

    Args:
        console: Where to print.
        summary: How it stands.
        plugins: Modules that have to be imported to evaluate its agents.
        most: Members at most; of more the best and the worst are shown.
    """
    has_learned = summary.is_over and summary.best is not None
    steps = f"{summary.env_steps:,} env steps in " if summary.env_steps else ""
    speed = f" ({number(summary.speed)} env steps/s)" if summary.env_steps else ""
    seed = "" if summary.seed is None else f", seed {summary.seed}"
    members = f"{len(summary.members)} member{'' if len(summary.members) == 1 else 's'}"
    console.print(
        "",
        f"[bold]{escape(f'{summary.algorithm} on {summary.environment}')}[/]: {members}, {summary.done} of "
        f"{summary.generations} generations, {steps}{duration(summary.seconds)}{speed}{seed}",
        "",
        *_figures(summary),
        "",
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )
    console.print(member_table(summary.members, console.width, summary.metric_mode, most=most))
    verdict = Text(summary.verdict(), style="bold green" if has_learned else "bold yellow")
    console.print(
        "", verdict, *_causes(summary.members), *_incidents(summary), sep="\n", highlight=False, soft_wrap=True
    )
    name = f"[bold]{escape(str(summary.directory))}[/]"
    console.print("", name, *_files(summary, plugins), sep="\n", highlight=False, soft_wrap=True)


def _figures(summary: PopulationSummary) -> list[str]:
    """One line each: the best member, how often states were taken over, what went wrong how often."""
    rows, best = [], summary.best
    if best is not None and best.score is not None:
        values = ", ".join(f"{name} {value_words(value)}" for name, value in best.hyperparams.items())
        rows.append(("best member", str(best.member_id), values))
        rows.append(("its score", number(best.score), f"after {best.step:,} updates"))
    rows.append(("exploits", f"{summary.exploits:,}", "a member took over a better one's state"))
    if summary.failures:
        rows.append(("failures", f"{summary.failures:,}", "a segment could not be trained"))
    if summary.interruptions:
        rows.append(("interruptions", f"{summary.interruptions:,}", "a worker was lost, and its segment trained again"))
    return [f"  {what:<16}[bold]{escape(f'{value:<12}')}[/][dim]{escape(meaning)}[/]" for what, value, meaning in rows]


def _causes(rows: Sequence[MemberRow]) -> list[Text]:
    """Who has failed in this generation, and why."""
    failed: list[tuple[MemberId, str]] = [(row.member_id, row.cause) for row in rows if row.cause is not None]
    return [Text(f"  member {member_id} has failed: {cause}", style="red") for member_id, cause in failed]


def _incidents(summary: PopulationSummary) -> list[Text]:
    """The latest."""
    if not summary.incidents:
        return []
    shown = summary.incidents[:_SHOWN_INCIDENTS]
    lines = [f"  member {each.member_id}, after {each.step:,} updates: {each.what}" for each in shown]
    more = len(summary.incidents) - len(shown)
    lines += [f"  and {more}{'' if more < _MOST_INCIDENTS - len(shown) else ' or more'} before these"] if more else []
    return [Text(""), Text("What went wrong, latest first:", style="bold"), *map(Text, lines)]


def _files(summary: PopulationSummary, plugins: Sequence[str]) -> list[str]:
    """One line per file that is there: its name, and what to do with it."""
    imports = "".join(f" --import {name}" for name in plugins)
    rows = [(name, meaning) for name, meaning in _FILES if (summary.directory / name).exists()]
    return [
        f"  {name:<20}[dim]{escape(meaning.format(directory=summary.directory, imports=imports))}[/]"
        for name, meaning in rows
    ]


def _in_a_line(what: str) -> str:
    """An incident without the places in the code that it came through."""
    lines = what.strip().splitlines() or [""]
    return lines[0] if len(lines) == 1 else f"{lines[0].split(': ')[0]}: {last_line(what)}"
