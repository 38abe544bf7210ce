"""Collecting a rollout, and the rollout as tensors for the update."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs
from torch import Tensor

from everlearn.core.finite import require_finite
from everlearn.ppo.action_kl import action_parameters
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.update import Minibatch, mean_kl, rows

CHUNK = 4096
"""Samples per forward pass over a whole rollout."""


class RolloutCollector(OnPolicyAlgorithm):
    """SB3's rollout collection, which refuses rewards and observations that are not finite."""

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with ``n_rollout_steps`` steps of every environment, as SB3 does.

        Callbacks find SB3's names among the local variables.

        Args:
            env: The training environments.
            callback: Called at the start, after every step and at the end.
            rollout_buffer: Filled.
            n_rollout_steps: Steps per environment.

        Returns:
            False if a callback stopped the rollout.

        Raises:
            NonFiniteError: If an environment returns a NaN or an infinity; nothing has been learned from it.
        """
        assert self._last_obs is not None, "No previous observation was provided"
        require_finite("observation", self._last_obs, step=self.num_timesteps // env.num_envs)
        self.policy.set_training_mode(False)
        n_steps = 0
        rollout_buffer.reset()
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        callback.on_rollout_start()

        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            with torch.no_grad():
                obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
                actions, values, log_probs = self.policy(obs_tensor)
            actions = actions.cpu().numpy()
            clipped_actions = self._within_bounds(actions)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            self.num_timesteps += env.num_envs
            steps = self.num_timesteps // env.num_envs
            self._require_finite(new_obs, rewards, steps)

            callback.update_locals(locals())
            if not callback.on_step():
                return False

            self._update_info_buffer(infos, dones)
            n_steps += 1
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.reshape(-1, 1)
            self._bootstrap_truncated(rewards, dones, infos)
            rollout_buffer.add(
                self._last_obs,  # type: ignore[arg-type]
                actions,
                rewards,
                self._last_episode_starts,  # type: ignore[arg-type]
                values,
                log_probs,
            )
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones

        with torch.no_grad():
            values = self.policy.predict_values(obs_as_tensor(new_obs, self.device))  # type: ignore[arg-type]
        rollout_buffer.compute_returns_and_advantage(last_values=values, dones=dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _require_finite(self, observations: VecEnvObs, rewards: np.ndarray, step: int) -> None:
        """Refuse what the simulation returned, as it was before a normaliser could clip or spread it."""
        normaliser = self._vec_normalize_env
        if normaliser is not None:
            observations, rewards = normaliser.get_original_obs(), normaliser.get_original_reward()
        require_finite("reward", rewards, step=step)
        require_finite("observation", observations, step=step)

    def _within_bounds(self, actions: np.ndarray) -> np.ndarray:
        """Actions as the environment takes them: unscaled where the policy squashes, clipped elsewhere."""
        if not isinstance(self.action_space, spaces.Box):
            return actions
        if self.policy.squash_output:
            return np.asarray(self.policy.unscale_action(actions))
        return np.asarray(np.clip(actions, self.action_space.low, self.action_space.high))

    def _bootstrap_truncated(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """``r <- r + gamma * V(terminal)`` where a time limit ended the episode; the recursion is cut there anyway."""
        for index in np.flatnonzero(dones):
            info = infos[index]
            if info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
                steps = self.num_timesteps // len(dones)
                require_finite("terminal observation", info["terminal_observation"], step=steps, environment=int(index))
                terminal_obs = self.policy.obs_to_tensor(info["terminal_observation"])[0]
                with torch.no_grad():
                    rewards[index] += (self.gamma * self.policy.predict_values(terminal_obs)[0]).item()


@dataclass(frozen=True)
class Rollout:
    """A whole rollout as tensors, in the buffer's order (environment by environment).

    Args:
        samples: All samples as one minibatch.
        values: Reduced values as the rollout stored them, in reward units, (size,).
        raw_returns: In reward units, (size,).
    """

    samples: Minibatch
    values: Tensor
    raw_returns: Tensor

    def __len__(self) -> int:
        return len(self.raw_returns)

    def minibatches(self, batch_size: int) -> Iterator[Minibatch]:
        """The rollout in random order, in pieces: SB3's permutation, drawn from numpy's global generator."""
        order = torch.as_tensor(np.random.permutation(len(self)), device=self.raw_returns.device)
        for start in range(0, len(self), batch_size):
            indices = order[start : start + batch_size]
            yield self.samples.rows(indices)


def read_rollout(buffer: RolloutBuffer, action_space: spaces.Space[Any]) -> Rollout:
    """Everything in a rollout buffer as tensors, for any buffer class, without advancing a generator.

    The buffer hands out its samples in a random order, which is undone.
    """
    state = np.random.get_state()
    shuffled = next(iter(buffer.get(batch_size=None)))
    np.random.set_state(state)
    order = np.random.permutation(len(shuffled.returns))
    np.random.set_state(state)
    back = torch.as_tensor(np.argsort(order), device=shuffled.returns.device)
    actions = shuffled.actions[back]
    if isinstance(action_space, spaces.Discrete):
        actions = actions.long().flatten()
    values, returns = shuffled.old_values[back], shuffled.returns[back]
    samples = Minibatch(
        rows(shuffled.observations, back),
        actions,
        shuffled.old_log_prob[back],
        shuffled.advantages[back],
        returns,
        values.unsqueeze(1),
    )
    return Rollout(samples, values, returns)


@dataclass(frozen=True)
class Behaviour:
    """What the policy says of a whole rollout before the first update, when it still is the one that acted.

    Args:
        log_prob: Of the actions taken, (size,).
        means: What each critic expects, (size, n_critics), in the heads' unit.
        value: The reduced value in reward units, (size,).
        action_parameters: Of the action distributions, (size, k); None where their divergence has no closed form.
    """

    log_prob: Tensor
    means: Tensor
    value: Tensor
    action_parameters: Tensor | None


@torch.no_grad()
def recover_behaviour(evaluator: Evaluator, rollout: Rollout) -> Behaviour:
    """One pass over the rollout, in chunks: the old log-probabilities and every critic's old output."""
    parts = []
    for start in range(0, len(rollout), CHUNK):
        samples = rollout.samples.rows(slice(start, start + CHUNK))
        evaluation = evaluator(samples.observations, samples.actions)
        ensemble = evaluator.ensemble
        parts.append(
            (
                evaluation.log_prob,
                ensemble.means(evaluation.distributions),
                ensemble.value(evaluation.distributions),
                action_parameters(evaluation.action_distribution),
            )
        )
    log_prob, means, value, parameters = zip(*parts, strict=True)
    has_parameters = parameters[0] is not None
    return Behaviour(
        torch.cat(log_prob), torch.cat(means), torch.cat(value), torch.cat(parameters) if has_parameters else None
    )


@torch.no_grad()
def rollout_kl(evaluator: Evaluator, rollout: Rollout) -> float:
    """Mean KL(old || new) over all states of a rollout, of the policy as it is now."""
    total = 0.0
    for start in range(0, len(rollout), CHUNK):
        samples = rollout.samples.rows(slice(start, start + CHUNK))
        evaluation = evaluator(samples.observations, samples.actions)
        total += float(mean_kl(evaluation, samples)) * len(samples.returns)
    return total / len(rollout)
