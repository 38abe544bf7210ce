"""Going on as if nothing had happened: the state between two iterations, and what it is restored into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from everlearn.checkpoint.codec import JSON
from everlearn.checkpoint.errors import Mismatch, refused
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place
from everlearn.core.errors import ArgumentError, OrderError
from everlearn.core.resume_level import Level, Resumability
from everlearn.core.stateful import Role
from everlearn.environments.recorded import NotRepeated
from everlearn.ppo.file_contents import origin
from everlearn.ppo.loop_state import require_well_formed
from everlearn.ppo.model_file import ModelFile, read_model_file
from everlearn.ppo.saving import SavedLearner

NOT_LEARNED = (Role.HYPER, Role.LOOP, Role.SIMULATION, Role.RECORD, Role.RANDOM)
"""The roles of the parts that collecting changes; what is learned stays as it is meanwhile."""
AFTER_START = ("callbacks", "records")
"""Parts that can be restored only once ``learn`` has its callbacks and its logger."""


class ResumableLearner(SavedLearner):
    """A learner that goes on from a file bit for bit.

    Between two iterations, at the clean point, a copy of everything that collecting will change is kept. Until the next
    update, "what is learned, and that copy" is the whole state: a file that is written meanwhile, whatever has happened
    in between, is exact.
    """

    resumed: Resumability | None = None
    """How exactly this model goes on from the file it was resumed from; None for another."""
    _goes_on = False

    @property
    def is_resumable(self) -> bool:
        """Whether ``learn`` is under way, or was left by an error, so that a file written now can be continued."""
        return self._at_clean_point is not None

    def state_between_rollouts(self) -> dict[str, Any]:
        """The state of all parts that are not learned, as at the last clean point; of now, while none stands."""
        kept = self._at_clean_point
        return self.state_tree().subset(NOT_LEARNED).state_dict() if kept is None else kept

    @property
    def saved_steps(self) -> int:
        """Environment steps behind what a file written now would hold."""
        kept = self._at_clean_point
        return int(self.num_timesteps if kept is None else kept["counters"]["num_timesteps"])

    def _clean_point(self) -> None:
        super()._clean_point()
        self._at_clean_point = None
        tree = self.state_tree().subset(NOT_LEARNED)
        normaliser = self.normaliser_state
        self._at_clean_point = tree.state_dict() | ({} if normaliser is None else {"normaliser": normaliser})

    def train(self) -> None:
        """Learn from the rollout in the buffer: ``n_epochs`` passes in minibatches."""
        self._at_clean_point = None  # what is learned moves
        super().train()

    def learn(self, total_timesteps: int, *args: Any, **kwargs: Any) -> Self:
        """As SB3's; afterwards the state is that of now, whatever is done to the model."""
        super().learn(total_timesteps, *args, **kwargs)
        self._at_clean_point = self._callback = None
        return self

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        if not self._goes_on:
            self._iteration, self._compiles = 0, None
        return super()._setup_learn(*args, **kwargs)

    def _started(self, callback: BaseCallback) -> int:
        iteration = super()._started(callback)
        waiting, self._waiting = self._waiting or {}, None
        tree = self.state_tree()
        for name, state in waiting.items():
            tree[name].load_state_dict(state)
        return iteration

    def continue_learning(
        self,
        callback: MaybeCallback = None,
        extend: int = 0,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        progress_bar: bool = False,
    ) -> Self:
        """Learn to the end of the training that was interrupted, as if it had not been.

        Args:
            callback: Those that the training had; they get back what they knew.
            extend: Further environment steps. Schedules then run to the new end.
            log_interval: Iterations between logs.
            tb_log_name: Name of the TensorBoard run.
            progress_bar: Whether SB3's progress bar is shown.

        Raises:
            OrderError: If no training was begun.
            ArgumentError: If ``extend`` is no number of steps.
        """
        if type(extend) is not int or extend < 0:
            raise ArgumentError(f"extend={extend!r}: give a number of environment steps, 0 or more.")
        if not self._total_timesteps:
            raise OrderError("No training was begun that could be continued. Call learn().")
        self._back_to_clean_point()
        remaining = max(self._total_timesteps - self.num_timesteps, 0) + extend
        self._goes_on = True
        try:
            return self.learn(remaining, callback, log_interval, tb_log_name, False, progress_bar)
        finally:
            self._goes_on = False

    def _back_to_clean_point(self) -> None:
        """Undo a part of a rollout that an error or a callback has ended, generators last."""
        kept, self._at_clean_point, self._callback = self._at_clean_point, None, None
        tree = self.state_tree()
        for name in sorted(kept or {}, key=lambda name: name == "generators"):
            if name != "normaliser":  # which is in the environments' state
                tree[name].load_state_dict((kept or {})[name])

    def set_parameters(
        self,
        load_path_or_dict: Place | Mapping[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """As SB3's; a rollout that was being collected belongs to other parameters then."""
        super().set_parameters(load_path_or_dict, exact_match, device)
        self._at_clean_point = None

    @classmethod
    def resume(
        cls,
        path: Place,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: Mapping[str, Any] | None = None,
        *,
        require: str | Level | None = None,
        sha256: str | None = None,
        limits: Limits | None = None,
    ) -> Self:
        """The model of a checkpoint with everything that training needs to go on; ``continue_learning`` does.

        Args:
            path: A checkpoint: a file of a run's store, or what ``save`` has written while ``learn`` was under way.
            env: New environments, made as those of the training; its seeds and states come from the file.
            device: Where it computes.
            custom_objects: Arguments that no file can hold, such as functions as schedules.
            require: ``"exact"`` refuses a file, or a machine, with which the continuation would not be bit for bit;
                other levels likewise.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for.

        Raises:
            CheckpointError: If the file is damaged or holds no checkpoint, or does not reach the level.
            ArgumentError: If there is no such level, or no environment.
        """
        wanted = _level(require)
        file = read_model_file(path, limits or LIMITS, sha256)
        require_checkpoint(file)
        if env is None:
            raise ArgumentError("resume: give the environment, made as that of the training: env=...")
        with refused(file.archive.file, "manifest" + JSON):
            found = found_level(file, torch.device("cpu") if device == "auto" else torch.device(device))
            require_well_formed(*(file.state(name) for name in AFTER_START))
        _require_level(file, found, wanted)
        model = cls.load(path, env, device, custom_objects, force_reset=False, sha256=sha256, limits=limits)
        model.resumed = found
        model._take_up(file, wanted)
        return model

    def _take_up(self, file: ModelFile, wanted: Level | None) -> None:
        """What only a training has, generators last."""
        tree = self.state_tree()
        with refused(file.archive.file, "environments" + JSON):
            try:
                tree["environments"].load_state_dict(file.state("environments"))
            except NotRepeated as error:
                assert self.resumed is not None
                self.resumed = Resumability.lowest([self.resumed, Resumability(Level.EPISODE, (str(error),))])
                self._last_obs = None
        _require_level(file, self.resumed, wanted)
        self._waiting = {name: file.state(name) for name in AFTER_START}
        with refused(file.archive.file, "generators" + JSON):
            tree["generators"].load_state_dict(file.state("generators"))

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Train in another environment from now on."""
        super().set_env(env, force_reset)
        self._at_clean_point = None


def _level(level: str | Level | None) -> Level | None:
    try:
        return None if level is None else Level(level)
    except ValueError:
        raise ArgumentError(f"require={level!r}: there are {', '.join(Level)}.") from None


def require_checkpoint(file: ModelFile) -> None:
    """Refuse a file from which no training could be continued.

    Raises:
        Mismatch: If it is one.
    """
    if file.manifest.get("kind") != "checkpoint":
        raise Mismatch(
            file.archive.file,
            "it holds a model, and no training that could be continued.",
            "Load it, and learn() on; or name a checkpoint.",
        )


def found_level(file: ModelFile, device: torch.device) -> Resumability:
    """What the file promises, on this machine."""
    promise = file.manifest.get("resume")
    promise = promise if isinstance(promise, Mapping) else {}
    saved = Resumability(Level(promise.get("level", "weights")), tuple(promise.get("reasons", ())))
    here, there = origin(device), file.manifest
    differences = []
    for section in ("libraries", "runtime"):
        for name, value in here[section].items():
            was = (there.get(section) or {}).get(name, value)
            if was != value:
                differences.append(f"{name} was {was}, and is {value} here")
    lower = Resumability(Level.EPISODE, tuple(differences)) if differences else Resumability(Level.EXACT)
    return Resumability.lowest([saved, lower])


def _require_level(file: ModelFile, found: Resumability | None, wanted: Level | None) -> None:
    if found is not None and wanted is not None and not found.level.reaches(wanted):
        raise Mismatch(
            file.archive.file,
            f"it can be continued only at the level '{found.level}': {'; '.join(found.reasons) or 'by its nature'}.",
            f"Resume it without asking for '{wanted}', or where it was written.",
        )
