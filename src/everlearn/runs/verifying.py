"""Whether a checkpoint is continued in the same way, bit for bit, each time."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from everlearn.config import import_plugins, load
from everlearn.core.digest import digest
from everlearn.core.errors import ConfigError, EverlearnError
from everlearn.core.private_cache import keep_compiled_code_private
from everlearn.core.rng import kept_generators
from everlearn.core.threads import threads
from everlearn.environments.build import training_environment
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.model_file import read_model_file
from everlearn.runs.building import device_of
from everlearn.runs.directory import RunDirectory
from everlearn.runs.names import algorithms
from everlearn.runs.resuming import recorded_threads

COMPARED = (
    *("normaliser", "hyperparameters", "progress", "divergence", "counters", "course", "observations", "records"),
    "generators",
)
"""Parts besides what is learned that are compared; monitors and statistics of episodes also hold the time of day."""


@dataclass(frozen=True)
class Verification:
    """What two continuations of a checkpoint have come to.

    Attributes:
        digests: SHA-256 of the whole state after one iteration, of each.
        level: How exactly the file promises to be continued.
        reasons: Why it is not exact.
    """

    digests: tuple[str, str]
    level: str
    reasons: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether both came to the same state."""
        return self.digests[0] == self.digests[1]


def verify_resume(file: Path, run: Path | None = None) -> Verification:
    """Resume a checkpoint twice, in two new processes, for one iteration each; the file is not changed.

    Args:
        file: The checkpoint.
        run: The directory of its run; by default the one that the file is in.

    Raises:
        ConfigError: If there is no such run.
        EverlearnError: If a process fails, with its report.
    """
    home = run or file.parent.parent
    if not RunDirectory(home).is_run():
        raise ConfigError(f"{file}: it is in no run's directory. Name the run with --run DIR (run in Python).")
    first, second = (_in_a_new_process(file, home) for _ in range(2))
    return Verification((first["digest"], second["digest"]), first["level"], tuple(first["reasons"]))


def continued(file: Path, run: Path) -> dict[str, Any]:
    """One iteration from a checkpoint: the digest of the state then, and the level."""
    keep_compiled_code_private()
    config = load(RunDirectory(run).config)
    import_plugins(config.plugins)
    with ExitStack() as stack:
        stack.enter_context(kept_generators())
        venv = stack.enter_context(closing(training_environment(config.env, config.algorithm.gamma)))
        stack.enter_context(threads(recorded_threads(read_model_file(file))))
        kind = algorithms[config.algorithm.name]
        agent = kind.resume(file, venv, device_of(config))
        once = _OneIteration()
        agent.continue_learning(once, extend=int(agent.num_timesteps >= agent._total_timesteps))
        assert agent.resumed is not None
        return {"digest": once.digest, "level": str(agent.resumed.level), "reasons": list(agent.resumed.reasons)}


class _OneIteration(BaseCallback):
    """Ends training at the second clean point, with a digest of the state there."""

    def __init__(self) -> None:
        super().__init__()
        self.digest: str | None = None
        self._rollouts = 0

    def _on_rollout_start(self) -> None:
        self._rollouts += 1
        if self._rollouts > 1:
            self._take()

    def _on_step(self) -> bool:
        return self.digest is None

    def _on_training_end(self) -> None:
        if self.digest is None:
            self._take()

    def _take(self) -> None:
        agent = self.model
        assert isinstance(agent, PPO)
        others = agent.state_between_rollouts()
        parts = {name: others[name] for name in COMPARED if name in others}
        self.digest = digest({"learned": agent.get_parameters(), **parts})


def _in_a_new_process(file: Path, run: Path) -> dict[str, Any]:
    program = "import sys, json, pathlib; from everlearn.runs.verifying import continued; "
    program += "print(json.dumps(continued(*map(pathlib.Path, sys.argv[1:]))))"
    command = [sys.executable, "-c", program, str(file.resolve()), str(run.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EverlearnError(f"{file}: the process that resumed it has failed:\n{done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
