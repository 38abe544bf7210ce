"""SB3's ``VecNormalize`` with a state that can be saved safely and a gate against non-finite values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from everlearn.checkpoint.archive import pack, read_archive
from everlearn.checkpoint.codec import members_of, state_of
from everlearn.checkpoint.errors import Unsupported, refused
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place, source_at, write_to
from everlearn.core.errors import StateError
from everlearn.core.finite import require_finite
from everlearn.environments.finite import require_finite_ends
from everlearn.environments.statistics import SETTINGS, plain_setting, require_consistent, require_shapes, shapes_of


class Normaliser(VecNormalize):
    """Observations to mean 0 and variance 1, rewards divided by the deviation of their discounted sum.

    ``clip((observation - mean) / sqrt(var + epsilon))``, ``clip(reward / sqrt(var of returns + epsilon))``.
    A NaN or an infinity raises ``NonFiniteError`` before any statistic is touched.

    Args:
        venv: The environments to normalise.
        training: Whether the statistics follow what is seen.
        norm_obs: Normalise observations.
        norm_reward: Normalise rewards.
        clip_obs: Largest absolute normalised observation.
        clip_reward: Largest absolute normalised reward.
        gamma: Discount of the sum whose variance scales the rewards: the algorithm's.
        epsilon: Added to variances.
        norm_obs_keys: For dictionary observations, the keys to normalise; None means all.
    """

    def __init__(
        self,
        venv: VecEnv,
        training: bool = True,
        norm_obs: bool = True,
        norm_reward: bool = True,
        clip_obs: float = 10.0,
        clip_reward: float = 10.0,
        gamma: float = 0.99,
        epsilon: float = 1e-8,
        norm_obs_keys: list[str] | None = None,
    ) -> None:
        self._steps = 0
        super().__init__(
            venv,
            training=training,
            norm_obs=norm_obs,
            norm_reward=norm_reward,
            clip_obs=clip_obs,
            clip_reward=clip_reward,
            gamma=gamma,
            epsilon=epsilon,
            norm_obs_keys=norm_obs_keys,
        )

    # The gate stands where VecNormalize notes what the simulation has returned, before it updates any statistic. A
    # wrapper inside this one would do as well, but SB3's EvalCallback wants as many wrappers around its environments.

    @property
    def old_obs(self) -> Any:
        """The last observations, before normalisation."""
        return self._old_obs

    @old_obs.setter
    def old_obs(self, observations: Any) -> None:
        require_finite("observation", observations, step=self._steps)
        self._old_obs = observations

    @property
    def old_reward(self) -> np.ndarray:
        """The last rewards, before normalisation."""
        return self._old_reward

    @old_reward.setter
    def old_reward(self, rewards: np.ndarray) -> None:
        require_finite("reward", rewards, step=self._steps)
        self._old_reward = rewards

    def reset(self) -> Any:
        """Reset all environments; the steps of each are counted from here."""
        self._steps = 0
        return super().reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments.

        Raises:
            NonFiniteError: Naming the quantity, the environment and its step since the reset.
        """
        self._steps += 1
        outcome = super().step_wait()
        require_finite_ends(outcome, self._steps)
        return outcome

    @classmethod
    def from_state(cls, venv: VecEnv, state: Mapping[str, Any]) -> Normaliser:
        """A normaliser for evaluation: ``state``'s settings and statistics, true rewards, nothing updated."""
        normaliser = cls(venv, training=False, **state["settings"])
        normaliser.load_state_dict(state)
        normaliser.norm_reward = False
        return normaliser

    def save(self, save_path: Place) -> None:
        """Save settings and statistics in a file that executes nothing.

        Args:
            save_path: A path, whose suffix ``.zip`` may be left out, or an open binary file.

        Raises:
            NonFiniteError: If a statistic is not finite; nothing is written.
            StateError: If a setting is none that a normaliser can have; nothing is written.
            SaveError: If the file cannot be written; the one before is untouched.
        """
        state = self.state_dict()
        require_consistent(state)
        write_to(save_path, pack(members_of("normaliser", state), {"kind": "normaliser"}))

    @staticmethod
    def load(load_path: Place, venv: VecEnv, *, sha256: str | None = None, limits: Limits | None = None) -> Normaliser:
        """A normaliser around ``venv`` with the settings and statistics of a file.

        Args:
            load_path: A path, whose suffix ``.zip`` may be left out, or an open binary file.
            venv: The environments.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for; ``everlearn.checkpoint.limits.LIMITS`` by default.

        Raises:
            CheckpointError: If the file is damaged, or ``Mismatch`` if it is for other observations.
        """
        limits = limits or LIMITS
        archive = read_archive(source_at(load_path), limits=limits, sha256=sha256)
        if archive.manifest.get("kind") != "normaliser":
            kind = archive.manifest.get("kind")
            raise Unsupported(archive.file, f"it holds a {kind!r}.", "Name a file that a normaliser has saved.")
        with refused(archive.file, "normaliser"):
            state = state_of(archive, "normaliser", limits)
            require_consistent(state)
            require_shapes(state, venv.observation_space, "Give environments as those it was saved with.")
            normaliser = Normaliser(venv, **state["settings"])
            normaliser.load_state_dict(state)
        return normaliser

    def state_dict(self) -> dict[str, Any]:
        """Settings, running statistics, and the discounted reward sum of each running episode, (n_envs,)."""
        return NormaliserState(self).state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over statistics; the settings stay as this object was built.

        The running sums belong to the episodes of as many environments; for another number they start at 0.

        Raises:
            StateError: If the observations of the state have other keys or shapes; nothing has changed then.
        """
        NormaliserState(self).load_state_dict(state_dict)


class NormaliserState:
    """The state of any ``VecNormalize``: ours, or SB3's own.

    Args:
        normaliser: Whose state it is.
    """

    def __init__(self, normaliser: VecNormalize) -> None:
        self.normaliser = normaliser

    def state_dict(self) -> dict[str, Any]:
        """Settings, running statistics, and the discounted reward sum of each running episode, (n_envs,)."""
        return {
            "settings": {name: plain_setting(name, getattr(self.normaliser, name)) for name in SETTINGS},
            "obs_rms": {key: _statistics_state(rms) for key, rms in _observation_statistics(self.normaliser).items()},
            "ret_rms": _statistics_state(self.normaliser.ret_rms),
            "returns": torch.from_numpy(self.normaliser.returns.copy()),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> None:
        """Take over statistics; the settings stay.

        Raises:
            StateError: If the observations of the state have other keys or shapes; nothing has changed then.
        """
        normaliser = self.normaliser
        statistics = _observation_statistics(normaliser)
        _check_fit(statistics, state_dict["obs_rms"])
        for key, rms in statistics.items():
            _load_statistics(rms, state_dict["obs_rms"][key])
        _load_statistics(normaliser.ret_rms, state_dict["ret_rms"])
        returns = state_dict["returns"].numpy().copy()
        normaliser.returns = returns if returns.shape == (normaliser.num_envs,) else np.zeros(normaliser.num_envs)


def _observation_statistics(normaliser: VecNormalize) -> dict[str, RunningMeanStd]:
    """The statistics by observation key; a plain observation has the key ''."""
    if not normaliser.norm_obs:
        return {}
    statistics: Any = normaliser.obs_rms
    return statistics if isinstance(statistics, dict) else {"": statistics}


def _statistics_state(rms: RunningMeanStd) -> dict[str, Any]:
    return {
        "mean": torch.as_tensor(np.array(rms.mean)),
        "var": torch.as_tensor(np.array(rms.var)),
        "count": float(rms.count),
    }


def _load_statistics(rms: RunningMeanStd, state: Mapping[str, Any]) -> None:
    rms.mean = state["mean"].numpy().copy()
    rms.var = state["var"].numpy().copy()
    rms.count = state["count"]


def _check_fit(statistics: Mapping[str, RunningMeanStd], state: Mapping[str, Any]) -> None:
    mine = {key: tuple(rms.mean.shape) for key, rms in statistics.items()}
    given = shapes_of(state)
    if mine != given:
        raise StateError(
            f"The normaliser's state is for observations {given}; this environment has {mine}. "
            "Use the environment and the normalisation that the state was saved with."
        )
