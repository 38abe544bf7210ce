"""A run that was interrupted, continued as if it had not been."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from everlearn.checkpoint.errors import NoValidCheckpoint
from everlearn.checkpoint.files import sweep
from everlearn.checkpoint.lock import RunLock
from everlearn.config import RunConfig, load, require_imported
from everlearn.core.errors import ArgumentError, ConfigError
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.core.resume_level import Level
from everlearn.core.threads import threads
from everlearn.environments.build import training_environment
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.model_file import ModelFile, read_model_file
from everlearn.report import Display, Silent
from everlearn.runs.building import device_of
from everlearn.runs.checkpointing import checkpoint_store
from everlearn.runs.directory import RunDirectory
from everlearn.runs.interruption import Interruption
from everlearn.runs.learning import Order
from everlearn.runs.names import algorithms
from everlearn.runs.recording import LogPositions
from everlearn.runs.run import Run
from everlearn.runs.running import Callbacks, callbacks_of, carried_out
from everlearn.runs.time_limit import TimeLimit, seconds_of
from everlearn.runs.writing import writing


@dataclass(frozen=True)
class _Point:
    """From where a run goes on.

    Attributes:
        file: The checkpoint.
        content: What is in it.
        steps_lost: By which a later one was ahead, that is damaged.
    """

    file: Path
    content: ModelFile
    steps_lost: int

    @property
    def step(self) -> int:
        """Environment steps behind it."""
        return int(self.content.state("counters")["num_timesteps"])

    @property
    def positions(self) -> Mapping[str, int]:
        """How far each log had come."""
        kind = f"{LogPositions.__module__}.{LogPositions.__qualname__}"
        states = self.content.state("callbacks")["callbacks"] if "callbacks" in self.content else []
        return next((each["state"] for each in states if each["kind"] == kind), {})


def resume(
    run: str | Path,
    *,
    require: str | None = None,
    extend: int = 0,
    callback: Callbacks = None,
    time_limit: float | str | None = None,
    display: Display | None = None,
) -> Run:
    """Go on with a run from its latest checkpoint to its end; what its logs have beyond that is cut off.

    On the same kind of machine, with the same versions, every bit of what follows is what it would have been, if the
    environments allow it: the level that is reached is announced, with the reasons where it is not exact.

    Args:
        run: Its directory.
        require: ``"exact"`` refuses to go on in any other way; other levels likewise.
        extend: Environment steps beyond those that the run was for; schedules run to the new end.
        callback: The callbacks that the training had; they get back what they knew.
        time_limit: As for ``train``.
        display: Shows the progress.

    Returns:
        The run.

    Raises:
        ArgumentError: If an argument is of another kind.
        ConfigError: If there is no run, another process is at it, it has come to its end, or its plug-ins have not
            been imported.
        CheckpointError: If there is no checkpoint that can be loaded, or it does not reach the level.
    """
    keep_compiled_code_private()
    limit = TimeLimit(math.inf if time_limit is None else seconds_of(time_limit))
    if type(extend) is not int or extend < 0:
        raise ArgumentError(f"extend={extend!r}: give a number of environment steps, 0 or more.")
    callbacks, display = callbacks_of(callback), display or Silent()
    directory = Run(run).directory
    with ExitStack() as stack:
        with writing(directory.path):
            stack.enter_context(RunLock(directory.path))
            sweep(directory.path)
        config = load(directory.config)
        if config.population is not None:
            raise ConfigError(
                f"{directory.path}: this is a population. Go on with it by everlearn pbt --resume {directory.path} "
                "(resume_population in Python)."
            )
        require_imported(config.plugins, str(directory.path))
        point = _latest(directory, config)
        if point.step >= config.total_timesteps and not extend and directory.summary.is_file():
            raise ConfigError(
                f"{directory.path}: the run has come to its end, {config.total_timesteps:,} steps. Extend it with "
                "--extend STEPS (extend in Python)."
            )
        interruption = stack.enter_context(Interruption())
        venv = stack.enter_context(closing(training_environment(config.env, config.algorithm.gamma)))
        kind = algorithms[config.algorithm.name]
        stack.enter_context(threads(recorded_threads(point.content)))
        agent = kind.resume(point.file, venv, device_of(config), require=require)
        longer = config.model_copy(update={"total_timesteps": config.total_timesteps + extend})
        beyond = longer.total_timesteps - agent._total_timesteps  # also where an extended run is resumed once more
        order = Order(
            longer, directory, display, callbacks, interruption, limit, point.positions, continued=True, extend=beyond
        )
        return Run.just_trained(directory, agent, carried_out(order, agent, venv, _headline(order, agent, point)))


def recorded_threads(content: ModelFile) -> int:
    """Torch's threads when a checkpoint was written, which the last bits may depend on."""
    runtime = content.manifest.get("runtime")
    count = runtime.get("threads") if isinstance(runtime, Mapping) else None
    return count if type(count) is int and count > 0 else torch.get_num_threads()


def _latest(directory: RunDirectory, config: RunConfig) -> _Point:
    store = checkpoint_store(directory, config.checkpoint)
    try:
        found = store.latest()
    except NoValidCheckpoint as error:
        error.add_note("Without a checkpoint a run cannot be resumed: checkpoint.every says how often one is written.")
        raise
    return _Point(found.checkpoint.path, read_model_file(found.checkpoint.path), found.steps_lost)


def _headline(order: Order, agent: PPO, point: _Point) -> str:
    resumed = agent.resumed
    assert resumed is not None
    reasons = f" ({'; '.join(resumed.reasons)})" if resumed.reasons and resumed.level is not Level.EXACT else ""
    lost = f", {point.steps_lost:,} steps before a damaged one" if point.steps_lost else ""
    return (
        f"Resuming {order.directory.path} at step {point.step:,} of {order.config.total_timesteps:,}{lost}; "
        f"level: {resumed.level}{reasons}"
    )
