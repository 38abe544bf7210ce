"""Training in segments: paused between two iterations, put back from a file, and with what others have learned."""

from __future__ import annotations

from typing import Any, Literal, Self

from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecNormalize

from everlearn.checkpoint.codec import JSON
from everlearn.checkpoint.errors import refused
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place
from everlearn.core.errors import OrderError, StateError, require_in_range
from everlearn.core.resume_level import Resumability
from everlearn.environments.normaliser import NormaliserState
from everlearn.environments.statistics import require_consistent
from everlearn.population.copying import for_copy, with_own_noise
from everlearn.population.parameter_files import OPTIMIZER
from everlearn.ppo.loading import restored
from everlearn.ppo.loop_state import require_well_formed
from everlearn.ppo.model_file import ModelFile, learned_states, read_model_file, require_fit
from everlearn.ppo.policy import unwrapped
from everlearn.ppo.resuming import AFTER_START, ResumableLearner, found_level, require_checkpoint


class SegmentedLearner(ResumableLearner):
    """A learner that trains for some iterations at a time, and that can become another one without being built anew."""

    def learn_updates(
        self, updates: int, total_timesteps: int, callback: MaybeCallback = None, log_interval: int = 1
    ) -> Self:
        """Do so many training updates of a training of ``total_timesteps``, and pause between two iterations.

        The next call goes on, as if there had been no pause: schedules run over the whole training. What the last of
        these updates has logged is dumped before the pause, and not by the next rollout.

        Args:
            updates: Training updates, a rollout and its epochs each.
            total_timesteps: Environment steps of the whole training; where its end has moved, schedules run to it.
            callback: Those that the training had so far; they get back what they knew.
            log_interval: Iterations between logs.
        """
        require_in_range("updates", updates, 1)
        has_begun = self._total_timesteps > 0
        self._pause_at = (self._iteration if has_begun else 0) + updates
        try:
            if has_begun:
                self._total_timesteps = total_timesteps
                return self.continue_learning(callback, log_interval=log_interval)
            return self.learn(total_timesteps, callback, log_interval)
        finally:
            self._pause_at = None

    def _clean_point(self) -> None:
        if self._pause_at is not None and self._iteration == self._pause_at:
            self.logger.dump(self.num_timesteps)
        super()._clean_point()

    def restore(self, path: Place, *, sha256: str | None = None, limits: Limits = LIMITS) -> Resumability:
        """Become what a checkpoint holds, which a model built alike has written; ``learn_updates`` goes on from there.

        The environments and whatever was compiled stay; global generators become those of the file.

        Args:
            path: The checkpoint.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for.

        Returns:
            How exactly training goes on.

        Raises:
            CheckpointError: If the file is damaged, holds no checkpoint, or one of another model. Parts may have
                changed then: restore another one.
        """
        if self.env is None:
            raise OrderError("The model has no environment to go on in. Give it one with set_env().")
        file = read_model_file(path, limits, sha256)
        require_checkpoint(file)
        with refused(file.archive.file, "manifest" + JSON):
            level = found_level(file, self.device)
            require_well_formed(*(file.state(name) for name in AFTER_START))
        self._at_clean_point, self._callback, self._waiting = None, None, None
        self.resumed = level
        restored(self, file)
        self._saved_normaliser = None  # which is in the environments' state
        self._take_up(file, None)
        return self.resumed

    def take_over(
        self,
        path: Place,
        copied: Literal["everything", "weights"] = "everything",
        optimizer: Literal["copy", "reset"] = "copy",
        *,
        seed: int,
        sha256: str | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        """Take over what another model of this architecture has learned; environments and counters stay its own.

        The last episodes' returns come along, too, for they are those of the policy that is taken over.

        Args:
            path: A file of the other one's.
            copied: ``everything`` that it has learned, with the hyper-parameters in force; or the ``weights`` with what
                gives them their meaning, and then statistics of others are reset, with a warning.
            optimizer: Whether the optimizer's state comes along (``copy``) or begins anew (``reset``).
            seed: Of the global generators and of the optimizer's noise from now on: no two models draw the same.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for.

        Raises:
            CheckpointError: If the file is damaged, or of another architecture.
            StateError: If a part does not fit.
        """
        file = read_model_file(path, limits, sha256)
        require_fit(file.weights(), unwrapped(self.policy).state_dict(), file)
        with refused(file.archive.file, "its parameters"):
            taken = for_copy(learned_states(file, self), copied, optimizer, seed)
            self.set_parameters(taken, exact_match=False, device=self.device)
        if OPTIMIZER not in taken:
            self.reset_optimizer()
            self.set_parameters({OPTIMIZER: with_own_noise(self.get_parameters()[OPTIMIZER], seed)}, exact_match=False)
        if copied == "everything":
            self._take_hyperparameters(file)
        self._take_statistics(file)
        if "episodes" in file:  # which tell of the policy that is here now
            with refused(file.archive.file, "episodes" + JSON):
                self.state_tree()["episodes"].load_state_dict(file.state("episodes"))
        set_random_seed(seed % 2**32, using_cuda=self.device.type == "cuda")

    def begin_episodes(self, seed: int) -> None:
        """Begin new episodes in all environments when training goes on; those that are running are not finished.

        Args:
            seed: Of their generators from now on.
        """
        if self.env is None:
            raise OrderError("The model has no environment to begin episodes in. Give it one with set_env().")
        self.env.seed(seed % 2**32)
        self._last_obs, self._at_clean_point = None, None

    def _take_hyperparameters(self, file: ModelFile) -> None:
        tree = self.state_tree()
        for part in ("hyperparameters", "divergence"):
            if part in file:
                with refused(file.archive.file, part + JSON):
                    tree[part].load_state_dict(file.state(part))

    def _take_statistics(self, file: ModelFile) -> None:
        """The normaliser's; the running returns are those of the own environments, whose observation is read anew."""
        normaliser: Any = self._vec_normalize_env
        if normaliser is None or "normaliser" not in file:
            if normaliser is not None or "normaliser" in file:
                raise StateError(f"{file.archive.file}: only one of the two models has a normaliser. Build them alike.")
            return
        with refused(file.archive.file, "normaliser" + JSON):
            state = file.state("normaliser")
            require_consistent(state)
            own = NormaliserState(normaliser)
            own.load_state_dict({**state, "returns": own.state_dict()["returns"]})
        if self._last_obs is not None and isinstance(self.env, VecNormalize):
            self._last_obs = self.env.normalize_obs(self.env.get_original_obs())
