"""A place where members train: environments and an agent, which become one member after the other."""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger, filter_excluded_keys
from stable_baselines3.common.utils import set_random_seed

from everlearn.checkpoint.archive import pack
from everlearn.checkpoint.errors import CheckpointError
from everlearn.checkpoint.files import write_file
from everlearn.config import RunConfig
from everlearn.core.digest import digest
from everlearn.core.errors import StateError
from everlearn.core.rng import GlobalGenerators
from everlearn.core.stateful import Role
from everlearn.environments.build import training_environment
from everlearn.population.executors import Beat
from everlearn.population.executors.executor import failure
from everlearn.population.members import file_part
from everlearn.population.segments import Checkpoint, Result, Task
from everlearn.ppo.algorithm import PPO
from everlearn.runs.building import EVALUATION_SEED, build_agent
from everlearn.runs.evaluating import play, policy_of
from everlearn.runs.periodic import unnoticed

NORMALISER = "normaliser"
_log = logging.getLogger(__name__)


@final
class Seat:
    """Environments and an agent of a population's configuration.

    Args:
        config: Every setting.
        directory: Where the members' files are.
    """

    def __init__(self, config: RunConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        self._venv = training_environment(config.env, config.algorithm.gamma)
        self._stands_at: Checkpoint | None = None
        self._generators: dict[str, Any] = {}
        self._is_whole = True
        assert config.seed is not None
        self.agent = build_agent(config, self._venv)

    def close(self) -> None:
        """Close the environments."""
        self._venv.close()

    def train(self, task: Task, beat: Beat) -> Result:
        """Become the task's member, train, and leave its state in a file.

        Args:
            task: What to train.
            beat: Told now and then how many updates are done.

        Raises:
            CheckpointError: If the member's file, or the one that it takes over, is missing or damaged.
            Exception: Whatever its environments raise, of any kind.
        """
        start = time.monotonic()
        if not self._is_whole:
            self._renew()
        self._is_whole, stands_at, self._stands_at = False, self._stands_at, None
        lost = self._become(task, stands_at)
        agent = self.agent
        before = int(agent.num_timesteps)
        log, segment = Records(), Segment(task, lambda updates: beat(task.member_id, updates), self._finish)
        agent.set_logger(Logger(None, [log]))
        agent.learn_updates(task.updates, self._config.total_timesteps, segment, self._config.logging.interval)
        assert segment.checkpoint is not None
        if segment.updates < task.updates:
            raise StateError(
                f"{task.member_id}: it ended after {segment.updates} of the segment's {task.updates} updates, "
                f"with {agent.num_timesteps} of {self._config.total_timesteps} time steps behind it. Train it longer."
            )
        self._stands_at, self._generators = segment.checkpoint, GlobalGenerators().state_dict()
        self._is_whole = True
        result = Result(
            task.member_id,
            task.generation,
            task.step + task.updates,
            segment.score,
            tuple(segment.returns)[-self._config.algorithm.stats_window_size :],
            int(agent.num_timesteps) - before,
            time.monotonic() - start,
            segment.checkpoint,
            tuple(log.records),
        )
        return result if lost is None else result.interrupted(lost)

    def _renew(self) -> None:
        """Other environments: for a member that begins, and after a segment that failed, who knows in what state."""
        try:
            self._venv.close()
        except Exception as error:  # whatever simulators raise: what has failed may fail to close
            _log.warning("Environments could not be closed: %s", failure(error))
        self._venv = training_environment(self._config.env, self._config.algorithm.gamma)
        self.agent.set_env(self._venv)

    def _become(self, task: Task, stands_at: Checkpoint | None) -> str | None:
        """Become a member; returns what was lost of it and is not needed, for it takes over another's state."""
        agent, copy, lost = self.agent, task.copy, None
        try:
            self._go_back_to(task, stands_at)
        except (CheckpointError, OSError) as error:
            if copy is None:
                raise
            lost = f"Its own state cannot be read, so that it begins anew with what it takes over: {error}"
            self._begin(task.seed)
        agent.seed = task.seed
        if copy is not None:
            path, source = self._directory / copy.checkpoint.name, copy.checkpoint
            agent.take_over(path, copy.copied, copy.optimizer, seed=copy.seed, sha256=source.sha256)
            if policy_digest(agent) != source.policy_digest:
                raise StateError(f"{path}: the policy that was taken over is not the one that was saved.")
            if task.checkpoint == source:  # in its place, where the next episodes would be its own
                agent.begin_episodes(copy.seed)
        agent.set_hyperparameters(task.hyperparams)
        return lost

    def _go_back_to(self, task: Task, stands_at: Checkpoint | None) -> None:
        """Be the member as it was after its last segment."""
        own = task.checkpoint
        if own is None:
            self._begin(task.seed)
        elif own == stands_at:
            GlobalGenerators().load_state_dict(self._generators)
        else:
            self.agent.restore(self._directory / own.name, sha256=own.sha256)

    def _begin(self, seed: int) -> None:
        """Become a new agent, without losing what was compiled for the one that sits here."""
        self._renew()
        new = build_agent(self._config.model_copy(update={"seed": seed}), self._venv)
        self.agent.restore(io.BytesIO(b"".join(pack(*new.file_contents(tuple(Role))))))

    def _finish(self, segment: Segment) -> None:
        """While the training stands at a clean point: score the agent, and write it."""
        segment.score = self._score(segment.returns, segment.beat)
        members, about = self.agent.file_contents(tuple(Role))
        task = segment.task
        chunks = pack(members, {**about, "performance": segment.score, "member": str(task.member_id)})
        fingerprint = hashlib.sha256()
        for chunk in chunks:
            fingerprint.update(chunk)
        sha256 = fingerprint.hexdigest()
        name = f"member-{file_part(task.member_id)}-generation-{task.generation:06d}-{sha256[:16]}.zip"
        write_file(self._directory / name, chunks)
        parts = tuple(self.agent.get_parameters())
        parts += (NORMALISER,) if self.agent.normaliser_state is not None else ()
        segment.checkpoint = Checkpoint(name, sha256, policy_digest(self.agent), parts)

    def _score(self, returns: Sequence[float], beat: Callable[[], None]) -> float | None:
        """The mean return of an evaluation, or of the last training episodes that the policy has had; None if none."""
        population, agent = self._config.population, self.agent
        assert population is not None
        if population.score == "training":
            last = [*returns][-self._config.algorithm.stats_window_size :]
            last = last or [episode["r"] for episode in agent.ep_info_buffer or ()]
            return float(np.mean(last)) if last else None
        rules = self._config.evaluation
        seed = EVALUATION_SEED if rules.seed is None else rules.seed
        with unnoticed(agent):
            set_random_seed(seed)
            act = policy_of(agent, deterministic=rules.deterministic)
            state = agent.normaliser_state

            def alive(observations: Any) -> np.ndarray:
                beat()
                return act(observations)

            played = play(self._config.env, lambda _: alive, rules.episodes, seed=seed, normaliser_state=state)
        return played.mean if played and played.returns else None


def policy_digest(agent: PPO) -> str:
    """The fingerprint of an agent's policy."""
    return digest(agent.get_parameters()["policy"])


@final
class Segment(BaseCallback):
    """Watches a segment: the episodes that end in it, its updates, and the clean point at its end.

    Args:
        task: The segment.
        beat: Told now and then how many updates are done.
        finish: Called at the clean point at its end.

    Attributes:
        returns: Of the episodes that have ended.
        score: Of the agent at its end.
        checkpoint: The file that it is in.
        updates: How many there were.
    """

    _PAUSE = 0.5  # seconds

    def __init__(self, task: Task, beat: Callable[[int], None], finish: Callable[[Segment], None]) -> None:
        super().__init__()
        self.task, self._beat, self._finish = task, beat, finish
        self.returns: deque[float] = deque(maxlen=1000)
        self.score: float | None = None
        self.checkpoint: Checkpoint | None = None
        self._next, self.updates = 0.0, 0

    def _on_rollout_start(self) -> None:
        self.updates += 1
        self._next = 0.0

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns.append(float(info["episode"]["r"]))
        self.beat()
        return True

    def beat(self) -> None:
        """Tell now and then that work goes on."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._PAUSE
            self._beat(max(self.updates - 1, 0))

    def _on_training_end(self) -> None:
        self._finish(self)


@final
class Records(KVWriter):
    """Keeps the numbers of all records."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, float]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Keep a record."""
        numbers = {}
        for key, value in filter_excluded_keys(key_values, key_excluded, "tensorboard").items():
            plain = value.item() if hasattr(value, "item") and np.size(value) == 1 else value
            if isinstance(plain, int | float):
                numbers[key] = float(plain)
        if numbers:
            self.records.append({"step": float(step), **numbers})

    def close(self) -> None:
        """Nothing to close."""
