"""A population from its configuration to its best member."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from everlearn.checkpoint.files import sweep
from everlearn.checkpoint.lock import RunLock
from everlearn.config import PopulationConfig, RunConfig, dump, import_plugins, load_document, require_imported
from everlearn.config.document import Document
from everlearn.core.errors import ArgumentError
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.core.rng import kept_generators
from everlearn.environments.build import training_environment
from everlearn.pbt.executing import EXECUTORS, Order, executor_of
from everlearn.pbt.outputs import Outputs
from everlearn.pbt.rules import (
    INLINE,
    RAY,
    check_initial,
    check_rules,
    check_used,
    chosen_executor,
    compile_choice,
    cores,
    on_trial,
    rules_of,
    settings_of,
    total_updates,
    worker_count,
)
from everlearn.pbt.run import PopulationRun
from everlearn.population.config import PBTConfig
from everlearn.population.files import drop_all_but, file_problem
from everlearn.population.store import PopulationStore
from everlearn.population.trainer import PopulationTrainer
from everlearn.report.population_display import PopulationDisplay, SilentPopulation
from everlearn.runs.building import build_agent, resolved
from everlearn.runs.checking import check_names
from everlearn.runs.directory import RunDirectory, claim, claim_next
from everlearn.runs.interruption import Interruption
from everlearn.runs.running import Configuration, source_of
from everlearn.runs.time_limit import TimeLimit, seconds_of
from everlearn.runs.writing import write_text, writing


def train_population(
    config: Configuration = None,
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    plugins: Sequence[str] = (),
    time_limit: float | str | None = None,
    display: PopulationDisplay | None = None,
) -> PopulationRun:
    """Train a population of agents that copy from each other, and leave everything in a directory.

    The first SIGINT or SIGTERM ends training; what was trained since the last segments ended is trained again when the
    population is resumed. In a script this belongs under ``if __name__ == "__main__":``, for it starts processes.

    Args:
        config: A YAML file, a mapping with the same keys, or a ``RunConfig``; without a section population it is one of
            ten members.
        out: The population's directory; None takes the next free ``runs/ENVIRONMENT-pbt-n``.
        settings: Dotted key to value, which replaces what ``config`` says.
        overwrite: Replace an earlier run in ``out``.
        plugins: Modules to import, here and in every process, before those that ``config`` names.
        time_limit: Seconds, or a span such as ``"1h30m"``, after which training ends.
        display: Shows the progress; None shows nothing.

    Returns:
        The population; ``load()`` is its best member.

    Raises:
        ArgumentError: If an argument is of another kind.
        ConfigError: If the configuration is not valid or does not fit the environment, or ``out`` is taken.
        PopulationFailed: If all members have failed.
        SaveError: If something cannot be written.
    """
    keep_compiled_code_private()
    limit = TimeLimit(math.inf if time_limit is None else seconds_of(time_limit))
    if isinstance(plugins, str):
        raise ArgumentError(f"plugins={plugins!r}: give a list of names of modules: plugins=[{plugins!r}].")
    wanted, document = load_document(source_of(config), settings, plugins)
    with document.blamed():
        import_plugins(wanted.plugins)
        check_names(wanted)
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        decided, rules = _decided(wanted, document)
        directory = stack.enter_context(_claimed(decided, out, overwrite=overwrite))
        write_text(directory.config, dump(decided))
        plan = _Plan(decided, rules, directory, interruption, limit, display or SilentPopulation())
        return plan.carried_out("Training")


def resume_population(
    run: str | Path, *, time_limit: float | str | None = None, display: PopulationDisplay | None = None
) -> PopulationRun:
    """Go on with a population that was interrupted or killed, from what its journal has to its end.

    Nothing that was committed is done again; what was not comes to the same, on the same kind of machine, as far as the
    environments allow it.

    Args:
        run: Its directory.
        time_limit: As for ``train_population``.
        display: Shows the progress.

    Raises:
        ConfigError: If there is none, another process is at it, or its plug-ins have not been imported.
        StateError: If the journal is damaged.
        PopulationFailed: If all members have failed.
    """
    keep_compiled_code_private()
    limit = TimeLimit(math.inf if time_limit is None else seconds_of(time_limit))
    population = PopulationRun(run)
    directory = population.directory
    with ExitStack() as stack:
        with writing(directory.path):
            stack.enter_context(RunLock(directory.path))
            sweep(directory.path)
        require_imported(population.config.plugins, str(directory.path))
        interruption = stack.enter_context(Interruption())
        plan = _Plan(population.config, population.rules, directory, interruption, limit, display or SilentPopulation())
        return plan.carried_out("Resuming")


@dataclass(frozen=True)
class _Plan:
    """What is to be done."""

    config: RunConfig
    rules: PBTConfig
    directory: RunDirectory
    interruption: Interruption
    limit: TimeLimit
    display: PopulationDisplay

    def carried_out(self, doing: str) -> PopulationRun:
        """Train to the end, or until it is stopped, and leave the records."""
        directory, config = self.directory, self.config
        assert config.seed is not None and config.population is not None
        with ExitStack() as stack:
            with writing(directory.members):
                directory.members.mkdir(exist_ok=True)
            store = stack.enter_context(closing(PopulationStore(directory.population)))
            verify, keep = partial(file_problem, directory.members), partial(drop_all_but, directory.members)
            initial = config.population.initial
            updates = total_updates(config)
            settings = settings_of(config)
            trainer = PopulationTrainer(
                self.rules, store, updates, verify, config.seed, initial, settings=settings, keep=keep
            )
            members = [member.member_id for member in trainer.population.members]
            self.display.announce(self._headline(doing, trainer))
            outputs = Outputs(directory, config, store, self.display)
            executor = executor_of(Order(config, directory, members, outputs.beat))
            stack.callback(executor.close)
            is_over = trainer.run(executor, self._stopped, outputs)
        run = PopulationRun(directory.path)
        run.stopped_by = None if is_over else self._stopped_by()
        write_text(directory.summary, json.dumps(run.summary().as_dict(), indent=1, allow_nan=False) + "\n")
        return run

    def _stopped(self) -> bool:
        return self.interruption.requested() or self.limit.over()

    def _stopped_by(self) -> str:
        signal = self.interruption.signal
        return "time limit" if signal is None else signal.name

    def _headline(self, doing: str, trainer: PopulationTrainer) -> str:
        config, population = self.config, trainer.population
        section = config.population
        assert section is not None
        who = {INLINE: "in this process", RAY: f"up to {section.workers} workers"}.get(
            section.executor, f"{section.workers} processes"
        )
        return (
            f"{doing} a population of {len(population.members)} {config.algorithm.name} on {config.env.id} "
            f"({population.generations} generations of {self.rules.perturbation_interval} updates, {section.executor}, "
            f"{who}, seed {config.seed}) in {self.directory.path}"
        )


def _decided(wanted: RunConfig, document: Document) -> tuple[RunConfig, PBTConfig]:
    """Everything that was left open decided, and checked with an agent on trial."""
    section = wanted.population or PopulationConfig()
    with document.blamed(), kept_generators():
        rules = rules_of(section)
        check_used(wanted.model_copy(update={"population": section}))
        check_initial(section, rules)
        with closing(training_environment(wanted.env, wanted.algorithm.gamma)) as venv:
            decided, _ = resolved(wanted.model_copy(update={"population": section}), venv)
            executor = chosen_executor(decided, rules, EXECUTORS)
            check_rules(rules, build_agent(on_trial(decided, executor), venv), decided)
    section = section.model_copy(update={"executor": executor})
    section = section.model_copy(update={"workers": (workers := worker_count(section))})
    sharing = min(workers, cores()) if executor == RAY else workers  # what a cluster has is not known yet
    algorithm = decided.algorithm.model_copy(update={"compile": compile_choice(decided, sharing)})
    return decided.model_copy(update={"population": section, "algorithm": algorithm}), rules


def _claimed(config: RunConfig, out: str | Path | None, *, overwrite: bool) -> Any:
    if out is not None:
        return claim(Path(out), overwrite=overwrite)
    return claim_next(Path("runs"), f"{config.env.id}-pbt")
