"""A training run from its configuration to its result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.vec_env import VecEnv

from everlearn.config import RunConfig, dump, import_plugins, load_document
from everlearn.core.errors import ArgumentError, ConfigError, Noted
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.core.rng import kept_generators
from everlearn.core.threads import threads
from everlearn.environments.build import reward_threshold, training_environment
from everlearn.environments.evaluation import random_policy
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.algorithm import PPO
from everlearn.report import Display, Silent, Summary, draw_learning_curve
from everlearn.runs.building import EVALUATION_SEED, build_agent, resolved, thread_count
from everlearn.runs.checking import check_names
from everlearn.runs.checkpointing import checkpoint_store
from everlearn.runs.directory import RunDirectory, claim, claim_next
from everlearn.runs.evaluating import play, policy_of
from everlearn.runs.interruption import Interruption
from everlearn.runs.learning import Order, learn
from everlearn.runs.run import Run
from everlearn.runs.time_limit import TimeLimit, seconds_of
from everlearn.runs.writing import write_text, writing

RESTORING = "everlearn evaluate with the run's directory takes it, and so does Run(...).load()."
Configuration = str | Path | Mapping[str, Any] | RunConfig | None
Callback = BaseCallback | Callable[[dict[str, Any], dict[str, Any]], bool]
Callbacks = Callback | Sequence[Callback] | None


def train(
    config: Configuration = None,
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    plugins: Sequence[str] = (),
    callback: Callbacks = None,
    time_limit: float | str | None = None,
    display: Display | None = None,
) -> Run:
    """Train an agent, compare it with a random policy and leave everything in a directory.

    The first SIGINT or SIGTERM ends training after the current step; the agent is saved all the same.

    Args:
        config: A YAML file, a mapping with the same keys, or a ``RunConfig``; None starts from the defaults.
        out: The run's directory; None takes the next free ``runs/ENVIRONMENT-ALGORITHM-n``.
        settings: Dotted key to value, which replaces what ``config`` says: ``{"env.id": "CartPole-v1", "gamma": 0.9}``.
        overwrite: Replace an earlier run in ``out``.
        plugins: Modules to import, before those that ``config`` names; the run's configuration records them.
        callback: A callback of SB3, a function as ``learn`` takes it, or several of them.
        time_limit: Seconds, or a span such as ``"1h30m"``, after which training ends with the next step.
        display: Shows the progress; None shows nothing.

    Returns:
        The run; ``run.model`` is the agent, ``run.summary`` what was learned.

    Raises:
        ArgumentError: If an argument is of another kind.
        ConfigError: If the configuration is not valid or does not fit the environment, or ``out`` is taken.
        NonFiniteError: If a NaN or an infinity appears; the agent as it was then is saved if it is finite itself, and
            the checkpoints before stay.
        SaveError: If the agent at the end, or several checkpoints in a row, cannot be written.
    """
    keep_compiled_code_private()
    limit = TimeLimit(math.inf if time_limit is None else seconds_of(time_limit))
    if isinstance(plugins, str):
        raise ArgumentError(f"plugins={plugins!r}: give a list of names of modules: plugins=[{plugins!r}].")
    callbacks = callbacks_of(callback)
    wanted, document = load_document(source_of(config), settings, plugins)
    with document.blamed():
        require_single(wanted)
        import_plugins(wanted.plugins)
        check_names(wanted)
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        with document.blamed():
            venv = stack.enter_context(closing(training_environment(wanted.env, wanted.algorithm.gamma)))
            decided, _ = resolved(wanted, venv)
            agent = build_agent(decided, venv)
        agent.update_compiler.is_short = limit.left() < _WORTH_COMPILING
        directory = stack.enter_context(_claimed(decided, out, overwrite=overwrite))
        order = Order(decided, directory, display or Silent(), callbacks, interruption, limit)
        stack.enter_context(threads(thread_count(decided, agent)))
        return Run.just_trained(directory, agent, carried_out(order, agent, venv))


_WORTH_COMPILING = 300.0
"""Seconds: a shorter run would spend a good part of its time on compiling, however many steps it asks for."""


def require_single(config: RunConfig) -> None:
    """Refuse the configuration of a population where one agent is to be trained.

    Raises:
        ConfigError: Saying how a population is trained.
    """
    if config.population is not None:
        raise ConfigError(
            "population: this makes a population, which everlearn pbt trains (train_population in Python). Use that, "
            "or leave the section out."
        )


def source_of(config: Configuration) -> Path | Mapping[str, Any] | None:
    """A configuration in whatever form, as ``load_document`` takes it.

    Raises:
        ArgumentError: If it is none.
    """
    if isinstance(config, RunConfig):
        return config.model_dump()
    if isinstance(config, str):
        return Path(config)
    if isinstance(config, Path | Mapping | None):
        return config
    raise ArgumentError(f"config={config!r}: give the path of a YAML file, a mapping with its keys, or a RunConfig.")


def carried_out(order: Order, agent: PPO, venv: VecEnv, headline: str | None = None) -> Summary:
    """Train, evaluate, and leave the records.

    Args:
        order: What to do.
        agent: That learns.
        venv: In which it does.
        headline: What is announced.
    """
    config, directory = order.config, order.directory
    write_text(directory.config, dump(config))
    order.display.announce(headline or _headline(config, agent, directory))
    assert config.seed is not None
    play_on = partial(play, config.env, seed=config.seed + EVALUATION_SEED)
    with kept_generators():
        baseline = play_on(
            lambda fresh: random_policy(fresh, config.seed), config.logging.baseline_episodes, stopped=order.stopped
        )
    with _naming_saved_agent(directory):
        learning = learn(agent, order)
    statistics = venv.state_dict() if isinstance(venv, Normaliser) else None
    evaluation = play_on(
        lambda _: policy_of(agent),
        config.logging.evaluation_episodes,
        normaliser_state=statistics,
        stopped=order.interruption.requested,
    )
    summary = Summary(
        directory=directory.path,
        environment=config.env.id,
        algorithm=config.algorithm.name,
        seed=config.seed,
        steps=learning.steps,
        seconds=round(learning.seconds, 3),
        returns=[episode.ret for episode in learning.episodes],
        evaluation=evaluation,
        baseline=baseline,
        reward_threshold=reward_threshold(config.env.id),
        stopped_by=order.stopped_by(learning.steps),
        best=learning.best,
    )
    with writing(directory.learning_curve):
        draw_learning_curve(directory.learning_curve, [episode.env_step for episode in learning.episodes], summary)
    write_text(directory.summary, json.dumps(summary.as_dict(), indent=1, allow_nan=False) + "\n")
    return summary


def _claimed(config: RunConfig, out: str | Path | None, *, overwrite: bool) -> AbstractContextManager[RunDirectory]:
    if out is not None:
        return claim(Path(out), overwrite=overwrite)
    return claim_next(Path("runs"), f"{config.env.id}-{config.algorithm.name}")


def _headline(config: RunConfig, agent: PPO, directory: RunDirectory) -> str:
    normalised = "normalised, " if config.env.normalize.enabled else ""
    return (
        f"Training {config.algorithm.name} on {config.env.id} ({config.env.n_envs} environments, {normalised}"
        f"seed {config.seed}, {agent.device}) in {directory.path}"
    )


def callbacks_of(given: Callbacks) -> list[BaseCallback]:
    """One or several callbacks or functions, as a list."""
    if given is None:
        return []
    several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    for one in several:
        if not (isinstance(one, BaseCallback) or callable(one)):
            raise ArgumentError(
                f"callback={given!r}: {one!r} is no callback. Give a callback of Stable-Baselines3, a function of "
                "(locals, globals), or a list of these."
            )
    return [one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in several]


def _naming_saved_agent(directory: RunDirectory) -> Noted:
    """Errors say which agent is left."""

    def note() -> str | None:
        if directory.model.is_file():
            return f"The agent as it was then is saved in {directory.model}."
        checkpoints = checkpoint_store(directory).checkpoints()
        return f"The last checkpoint is {checkpoints[-1].path}; {RESTORING}" if checkpoints else None

    return Noted(note)
