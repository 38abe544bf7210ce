"""The normaliser that belongs to a model: its statistics go with the model and come back around its environments."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecTransposeImage, unwrap_vec_normalize

from everlearn.environments.normaliser import Normaliser, NormaliserState
from everlearn.environments.statistics import normalised, require_shapes
from everlearn.ppo.tuning import TunableLearner

_WRAPPED = (
    "The model was trained with a normaliser inside another wrapper: give the environment wrapped in the same way, "
    "with a normaliser in that place, such as VecFrameStack(VecNormalize(env), 4)."
)


class NormalisedLearner(TunableLearner):
    """A learner that knows the statistics its observations are normalised by."""

    _saved_normaliser: dict[str, Any] | None = None
    """Of a loaded model that has no environment yet."""
    _own_normaliser: Normaliser | None = None
    """Put around an environment by ``set_env``."""
    _rewards_rest: bool | None = None
    """While that normaliser rests: whether rewards are to be normalised once it wakes."""

    @property
    def normaliser_state(self) -> dict[str, Any] | None:
        """The statistics with which observations are normalised: the environment's, or the saved ones; None without."""
        if self._vec_normalize_env is None:
            return self._saved_normaliser
        state = NormaliserState(self._vec_normalize_env).state_dict()
        if self._rewards_rest is not None and self._vec_normalize_env is self._own_normaliser:
            state["settings"]["norm_reward"] = self._rewards_rest
        return state

    def normalize_obs(self, observations: Any) -> Any:
        """Observations as the policy was trained to see them; as they are if it was trained on plain ones.

        Args:
            observations: As the environment inside the normaliser gives them, an array ``(..., *shape)`` or a
                dictionary of such.

        Raises:
            StateError: If the statistics are of other observations.
        """
        state = self.normaliser_state
        return observations if state is None else normalised(observations, state)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Train in another environment from now on; a loaded model brings its normaliser's statistics with it.

        Args:
            env: The environment. Without a normaliser it gets one with the model's statistics, which rests until
                ``learn``; one that has a normaliser, inside whatever wrappers, gets the statistics.
            force_reset: Whether it is reset before training goes on.

        Raises:
            StateError: If its observations do not fit the statistics; the model keeps its environment then.
        """
        state = self._brought_statistics()
        if state is None:
            super().set_env(env, force_reset)
            return
        venv = self._wrap_env(env, self.verbose)
        own = self._own_normaliser
        present = unwrap_vec_normalize(venv)
        if present is None:
            inner = venv.venv if isinstance(venv, VecTransposeImage) else venv
            require_shapes(state, inner.observation_space, _WRAPPED)
            venv = own = Normaliser.from_state(inner, state)
        elif present is not own:
            NormaliserState(present).load_state_dict(state)
        super().set_env(venv, force_reset)
        if own is not self._own_normaliser:
            self._own_normaliser, self._rewards_rest = own, state["settings"]["norm_reward"]
        self._saved_normaliser = None

    def _brought_statistics(self) -> dict[str, Any] | None:
        """Those that were loaded, or that are in a normaliser of the model's own."""
        own = self._own_normaliser
        return self.normaliser_state if own is not None and self._vec_normalize_env is own else self._saved_normaliser

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        """From evaluation to training: statistics follow again, rewards are normalised if they were."""
        if self._own_normaliser is not None and self._rewards_rest is not None:
            self._own_normaliser.training = True
            self._own_normaliser.norm_reward, self._rewards_rest = self._rewards_rest, None
        return super()._setup_learn(*args, **kwargs)
